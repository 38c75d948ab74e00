"""Published statistics: the files that others write, and what is wrong with other files."""

import dataclasses

import numpy as np
import pytest
import torch

from infdiff.errors import UserError
from infdiff.evaluation.statistics import PublishedStatistics, holds_statistics
from infdiff.metrics.distances import Gaussian, frechet_distance
from tests.metrics.sets import NETWORK


@pytest.fixture
def features(generator):
    return torch.randn(50, 2, generator=generator) @ torch.tensor([[1.0, 0.5], [0.0, 2.0]])


def moments(features):
    return features.double().numpy().mean(0), np.cov(features.double().numpy(), rowvar=False)


@pytest.mark.parametrize(
    ("keys", "further", "save"),
    [
        (("mu", "sigma"), {}, np.savez_compressed),  # clean-fid
        (("mu", "sigma"), {}, np.savez),  # EDM
        (
            ("mu", "sigma"),
            {"mu_s": np.zeros(3), "sigma_s": np.eye(3), "arr_0": np.zeros((2, 4, 4, 3))},
            np.savez,
        ),  # ADM
        (("mean", "cov"), {}, np.savez),
    ],
)
def test_mean_and_covariance_are_read(keys, further, save, features, tmp_path, generator):
    path = tmp_path / "reference.npz"
    save(path, **dict(zip(keys, moments(features), strict=True)), **further)
    statistics = PublishedStatistics.open(path)
    other = Gaussian.fit(torch.randn(40, 2, generator=generator))
    expected = frechet_distance(other, Gaussian.fit(features))
    assert frechet_distance(other, statistics.gaussian) == pytest.approx(expected, rel=1e-9)
    statistics.require([NETWORK])
    assert statistics.about() == {"data": str(path), "statistics": "mean and covariance", "features": 2}


def test_a_network_of_another_dimension(features, tmp_path):
    np.savez(tmp_path / "r.npz", mu=moments(features)[0], sigma=moments(features)[1])
    statistics = PublishedStatistics.open(tmp_path / "r.npz")
    other = dataclasses.replace(NETWORK, name="other", dimension=3)
    with pytest.raises(
        UserError, match=r"r\.npz: holds 2 features, other has 3: name the network .* --network"
    ) as caught:
        statistics.require([NETWORK, other])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"nothing of the kind"), "cannot be read as statistics"),
        (lambda path: path.write_bytes(b""), "cannot be read as statistics"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(120)), "cannot be read as statistics"),
        (lambda path: path.mkdir(), "cannot be read as statistics"),
        (lambda path: np.savez(path, arr_0=np.zeros((2, 4, 4, 3))), "holds arr_0: want mu and sigma, or mean and cov"),
        (lambda path: np.savez(path), "holds nothing: want mu and sigma"),
        (lambda path: np.savez(path, mu=np.zeros(2), sigma=np.eye(3)), "want .D,. and .D, D."),
        (lambda path: np.savez(path, mu=np.array([{}]), sigma=np.eye(1)), "cannot be read as statistics"),
        (lambda path: np.savez(path, mu=np.array(["a"]), sigma=np.eye(1)), "cannot be read as statistics"),
        (lambda path: np.savez(path, mu=np.zeros(2), sigma=np.full((2, 2), np.nan)), "not finite"),
    ],
)
def test_other_files_are_one_line(write, reason, tmp_path):
    path = tmp_path / "r.npz"
    write(path)
    with pytest.raises(UserError, match=reason) as caught:
        PublishedStatistics.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_one_line(features, tmp_path):
    path = tmp_path / "r.npz"
    np.savez(path, mu=moments(features)[0], sigma=moments(features)[1])
    whole = path.read_bytes()
    for length in (10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cannot be read as statistics"):
            PublishedStatistics.open(path)


def test_statistics_are_told_by_the_name(tmp_path):
    assert holds_statistics(tmp_path / "a.npz")
    assert holds_statistics(tmp_path / "A.NPZ")
    assert not holds_statistics(tmp_path / "a.zip")
    assert not holds_statistics(None)
