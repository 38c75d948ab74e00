"""Operators and pseudo-inverses against numpy's, and the noise that a measurement leaves in an image."""

import numpy as np
import pytest
import torch

from infdiff.diffusion.measurements import Mask, Measurement, Reduction


def matrix(operator, size):
    count = size[0] * size[1]
    return operator(torch.eye(count, dtype=torch.float64).view(count, 1, *size)).flatten(1).mT.numpy()


@pytest.mark.parametrize(("size", "small"), [((6, 8), (3, 2)), ((6, 8), (4, 3)), ((5, 7), (5, 2))])
def test_the_pseudo_inverse_of_a_reduction_is_that_of_its_matrix(size, small):
    operator = Reduction(size, small)
    np.testing.assert_allclose(
        matrix(operator.A_dagger, small), np.linalg.pinv(matrix(operator, size)), rtol=0, atol=1e-12
    )


def test_the_pseudo_inverse_of_a_mask_is_that_of_its_matrix():
    visible = torch.rand(5, 6, generator=torch.Generator().manual_seed(0)) > 0.4
    operator = Mask(visible)
    np.testing.assert_array_equal(matrix(operator.A_dagger, (5, 6)), np.linalg.pinv(matrix(operator, (5, 6))))
    assert operator(torch.ones(2, 3, 5, 6)).sum() == 6 * visible.sum()


def test_agreement_changes_only_what_is_measured(generator):
    images, operator = torch.randn(2, 3, 6, 8, generator=generator), Reduction((6, 8), (3, 4))
    values = torch.randn(2, 3, 3, 4, generator=generator)
    agreed = Measurement(values, operator, operator.A_dagger).agreed(images)
    torch.testing.assert_close(operator(agreed), values)
    unseen = images - operator.A_dagger(operator(images))
    torch.testing.assert_close(agreed - operator.A_dagger(operator(agreed)), unseen)


def test_noise_in_the_image():
    """A mean of n pixels with noise s: as noise of s * sqrt(n) in each pixel would leave; a mask's is its own."""
    reduction, mask = Reduction((8, 8), (4, 2)), Mask(torch.eye(8) > 0)
    reduced = Measurement(torch.zeros(1, 3, 4, 2), reduction, reduction.A_dagger, noise=0.1)
    assert reduced.noise_in_image == pytest.approx(0.1 * 8**0.5, rel=1e-5)
    masked = Measurement(torch.zeros(1, 3, 8, 8), mask, mask.A_dagger, noise=0.1)
    assert masked.noise_in_image == pytest.approx(0.1, rel=1e-5)
    assert Measurement(torch.zeros(1, 3, 4, 2), reduction).noise_in_image == 0
    with pytest.raises(ValueError, match="pseudo-inverse"):
        Measurement(torch.zeros(1, 3, 4, 2), reduction).agreed(torch.zeros(1, 3, 8, 8))
