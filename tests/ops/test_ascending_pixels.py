"""Ids in order: marked in an image of all pixels, or sorted, the same."""

import importlib

import pytest
import torch

from infdiff.points import draw_points

module = importlib.import_module("infdiff.ops.ascending_pixels")


@pytest.mark.parametrize(("size", "count"), [((64, 64), 1024), ((5, 300), 1500), ((17, 31), 1), ((40, 40), 50)])
def test_marked_pixels_are_the_sorted_ones(size, count, generator, monkeypatch):
    ids = draw_points(5, count, size, generator)
    mixed = ids[:, torch.randperm(count, generator=generator)]
    expected = module.ascending_pixels_ref(mixed, size)
    monkeypatch.setattr(module, "_MARKED_IDS", 0)
    monkeypatch.setattr(module, "_PIXELS_A_POINT", size[0] * size[1] + 1)
    assert torch.equal(module.ascending_pixels(mixed, size), expected)
