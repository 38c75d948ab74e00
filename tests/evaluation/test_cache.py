"""Descriptions of real images, cached on disk."""

import pytest
import torch

from infdiff.evaluation.cache import cached_description
from infdiff.metrics.compare import describe
from tests.metrics.sets import NETWORK, images


def test_descriptions_are_cached_by_their_key(generator, tmp_path):
    made = []

    def make():
        made.append(1)
        return describe([NETWORK], [images(40, generator)])[0]

    first = cached_description(("a", (8, 8)), make, tmp_path)
    again = cached_description(("a", (8, 8)), make, tmp_path)
    assert len(made) == 1
    assert torch.equal(first.features, again.features)
    assert torch.equal(first.spectra, again.spectra)
    assert torch.equal(first.gaussian.root, again.gaussian.root)
    for key in (("b", (8, 8)), ("a", (8, 9))):
        cached_description(key, make, tmp_path)
    assert len(made) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_file_is_replaced_and_a_closed_folder_is_ignored(generator, tmp_path):
    described = describe([NETWORK], [images(6, generator)])[0]
    cached_description((1,), lambda: described, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    assert cached_description((1,), lambda: described, tmp_path) is described
    assert torch.equal(cached_description((1,), pytest.fail, tmp_path).features, described.features)
    (tmp_path / "file").write_text("")
    assert cached_description((2,), lambda: described, tmp_path / "file") is described
