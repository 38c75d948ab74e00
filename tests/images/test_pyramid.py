"""Deep Zoom pyramids: tiles, sizes, the description."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from infdiff.images.pyramid import Pyramid, halved, write_pyramid
from tests.conftest import pixels


def image(height, width):
    values = np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
    return torch.from_numpy(values)


def joined(pyramid, level):
    rows, columns = pyramid.tiles_of(level)
    return np.concatenate(
        [np.concatenate([pixels(pyramid.path(level, r, c)) for c in range(columns)], axis=1) for r in range(rows)]
    )


@pytest.mark.parametrize("size", [(64, 64), (37, 90), (1, 5), (130, 33)])
def test_every_level_is_there_and_halves_the_next(size, tmp_path):
    given, pyramid = image(*size), Pyramid(tmp_path, size, tile=32)
    write_pyramid(given, pyramid)
    assert (joined(pyramid, pyramid.levels) == given.permute(1, 2, 0).numpy()).all()
    assert pyramid.size_of(0) == (1, 1)
    for level in range(pyramid.levels):
        fine, coarse = joined(pyramid, level + 1), joined(pyramid, level)
        assert coarse.shape[:2] == pyramid.size_of(level)
        height, width = coarse.shape[0], coarse.shape[1]
        for i, j in {(0, 0), (height - 1, width - 1), (height // 2, width // 3)}:
            mean = fine[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(axis=(0, 1))
            assert np.abs(coarse[i, j] - mean).max() <= 0.5
    assert sum(1 for _ in tmp_path.rglob("*.png")) == sum(
        rows * columns for rows, columns in (pyramid.tiles_of(n) for n in range(pyramid.levels + 1))
    )


def test_the_description_says_what_is_there(tmp_path):
    root = ET.parse(Pyramid(tmp_path, (37, 90), tile=32).describe()).getroot()
    size = next(iter(root))
    assert root.tag == "{http://schemas.microsoft.com/deepzoom/2008}Image"
    assert root.attrib == {"Format": "png", "Overlap": "0", "TileSize": "32"}
    assert size.attrib == {"Width": "90", "Height": "37"}


def test_halving_is_the_mean():
    given = image(6, 8)
    means = given.numpy().astype(float).reshape(3, 3, 2, 4, 2).mean(axis=(2, 4))
    assert np.abs(halved(given).numpy() - means).max() <= 0.5
