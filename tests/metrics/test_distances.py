"""Fréchet and kernel distance: closed forms, exact expectations, and what they must not depend on."""

import itertools
import time

import numpy as np
import pytest
import scipy.linalg
import torch

from infdiff.metrics.distances import Gaussian, frechet_distance, kernel_distance, squared_mmd


def with_moments(mean, root):
    return Gaussian(torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(root, dtype=torch.float64))


def test_frechet_distance_of_gaussians_in_one_dimension():
    a, b = with_moments([1.0], [[2.0]]), with_moments([4.0], [[0.5]])
    assert frechet_distance(a, b) == pytest.approx(3**2 + 1.5**2)


def test_frechet_distance_of_commuting_gaussians(generator):
    basis = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    std_a, std_b = torch.rand(2, 6, generator=generator, dtype=torch.float64)
    shift = torch.randn(6, generator=generator, dtype=torch.float64)
    a, b = with_moments(torch.zeros(6), std_a[:, None] * basis.mT), with_moments(shift, std_b[:, None] * basis.mT)
    expected = float(shift.square().sum() + (std_a - std_b).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def square_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def test_the_square_root_of_this_test_is_scipys(generator):
    matrix = np.cov(torch.randn(50, 8, generator=generator, dtype=torch.float64).numpy(), rowvar=False)
    np.testing.assert_allclose(square_root(matrix), scipy.linalg.sqrtm(matrix), atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(50, 40), (50, 4), (5, 40), (6, 5)])
def test_frechet_distance_is_that_of_the_matrix_square_root(n, m, generator):
    a = torch.randn(n, 8, generator=generator, dtype=torch.float64) @ torch.diag(torch.arange(1.0, 9.0).double())
    b = torch.randn(m, 8, generator=generator, dtype=torch.float64) + 1
    s_a, s_b = (np.cov(x.numpy(), rowvar=False) for x in (a, b))
    # Step by step as in the formula; scipy's general square root is inexact for singular matrices.
    overlap = np.trace(square_root(square_root(s_a) @ s_b @ square_root(s_a)))
    shift = a.numpy().mean(0) - b.numpy().mean(0)
    expected = shift @ shift + np.trace(s_a) + np.trace(s_b) - 2 * overlap
    assert frechet_distance(Gaussian.fit(a), Gaussian.fit(b)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [3, 20, 200])
def test_identical_sets_have_no_distance(count, generator):
    features = torch.randn(count, 20, generator=generator)
    gaussian = Gaussian.fit(features)
    assert frechet_distance(gaussian, Gaussian.fit(features.flip(0))) == pytest.approx(0, abs=1e-5)
    assert gaussian.root.shape == (min(count, 20), 20)


def test_moments_alone_tell_the_same_distance(generator):
    a = torch.randn(60, 10, generator=generator) @ torch.randn(10, 10, generator=generator)
    b = torch.randn(6, 10, generator=generator) + 1  # a singular covariance
    moments = [(x.double().numpy().mean(0), np.cov(x.double().numpy(), rowvar=False)) for x in (a, b)]
    told = [Gaussian.of_moments(*map(torch.from_numpy, pair)) for pair in moments]
    for gaussian, (mean, covariance) in zip(told, moments, strict=True):
        np.testing.assert_allclose(gaussian.mean, mean)
        np.testing.assert_allclose(gaussian.root.mT @ gaussian.root, covariance, atol=1e-12)
    expected = frechet_distance(Gaussian.fit(a), Gaussian.fit(b))
    assert frechet_distance(*told) == pytest.approx(expected, rel=1e-6)
    # Computed in float32, it has small negative eigenvalues.
    rounded = Gaussian.of_moments(told[1].mean, torch.from_numpy(moments[1][1]).float())
    assert frechet_distance(told[0], rounded) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("mean", "covariance", "reason"),
    [
        (torch.zeros(3), torch.eye(2), "want"),
        (torch.zeros(2, 2), torch.eye(2), "want"),
        (torch.zeros(0), torch.zeros(0, 0), "want"),
        (torch.tensor([0.0, torch.nan]), torch.eye(2), "not finite"),
        (torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "negative eigenvalues"),
    ],
)
def test_what_is_no_mean_and_covariance(mean, covariance, reason):
    with pytest.raises(ValueError, match=reason):
        Gaussian.of_moments(mean, covariance)


def test_rotation_leaves_the_distance_and_scale_squares_it(generator):
    a = torch.randn(60, 10, generator=generator, dtype=torch.float64)
    b = 2 * torch.randn(70, 10, generator=generator, dtype=torch.float64) + 0.3
    plain = frechet_distance(Gaussian.fit(a), Gaussian.fit(b))
    q = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64)).Q
    assert frechet_distance(Gaussian.fit(a @ q + 5), Gaussian.fit(b @ q + 5)) == pytest.approx(plain, rel=1e-6)
    assert frechet_distance(Gaussian.fit(3 * a), Gaussian.fit(3 * b)) == pytest.approx(9 * plain, rel=1e-6)


def test_2048_features_take_seconds(generator):
    roots = torch.randn(2, 2048, 2048, generator=generator, dtype=torch.float64).tril() / 2048**0.5
    gaussians = [Gaussian(torch.zeros(2048, dtype=torch.float64), root) for root in roots]
    start = time.process_time()
    assert frechet_distance(*gaussians) > 0
    assert time.process_time() - start < 30  # about 3 on one core; the usual square root takes minutes


def test_squared_mmd_by_hand():
    # One feature: k(x, y) = (xy + 1)^3.
    a, b = torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    within_a, within_b, between = 27.0, 1.0, (1 + 8 + 1 + 27) / 4
    assert squared_mmd(a, b) == pytest.approx(within_a + within_b - 2 * between)


def test_squared_mmd_is_unbiased():
    """Its expectation over all samples of two and three is the distance of the distributions."""
    atoms = torch.tensor([[0.0, 1.0], [2.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    p, q = (0.5, 0.3, 0.2), (0.1, 0.2, 0.7)
    kernel = (atoms @ atoms.mT / 2 + 1) ** 3
    weights = torch.tensor(p, dtype=torch.float64) - torch.tensor(q, dtype=torch.float64)
    expected = float(weights @ kernel @ weights)
    mean = 0.0
    for i in itertools.product(range(3), repeat=2):
        for j in itertools.product(range(3), repeat=3):
            chance = np.prod([p[k] for k in i]) * np.prod([q[k] for k in j])
            mean += chance * squared_mmd(atoms[list(i)], atoms[list(j)])
    assert mean == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_of_small_sets_is_exact_and_of_large_ones_an_average(generator):
    a = torch.randn(300, 4, generator=generator, dtype=torch.float64)
    b = torch.randn(200, 4, generator=generator, dtype=torch.float64) * 1.5
    whole = squared_mmd(a, b)
    assert kernel_distance(a, b) == (whole, 0.0)
    mean, deviation = kernel_distance(a, b, subsets=400, size=100)
    assert mean == pytest.approx(whole, abs=5 * deviation / 400**0.5)
    assert 0 < deviation < abs(whole)
    assert kernel_distance(a, b, subsets=5, size=100, seed=1) == kernel_distance(a, b, subsets=5, size=100, seed=1)
    assert kernel_distance(a, b, subsets=5, size=100, seed=1) != kernel_distance(a, b, subsets=5, size=100, seed=2)


def test_one_image_has_no_spread():
    one, two = torch.zeros(1, 3), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="1 image"):
        Gaussian.fit(one)
    for pair in ((one, two), (two, one)):
        with pytest.raises(ValueError, match="1 image"):
            squared_mmd(*pair)
