"""Patches: real parts of the images, at places of the seed, from all images evenly."""

import pytest
import torch

from infdiff.errors import UserError
from infdiff.evaluation.patches import PatchCutter

SIZE = (40, 50)


def numbered(number):
    """(3, 40, 50): an image that tells its number, the row and the column of every pixel."""
    rows, columns = torch.meshgrid(*map(torch.arange, SIZE), indexing="ij")
    return torch.stack([torch.full(SIZE, number), rows, columns]).to(torch.uint8)


def cut(cutter, count, available=7):
    asked = []

    def images(numbers):
        asked.extend(numbers)
        return torch.stack([numbered(number) for number in numbers])

    batches = list(cutter.batches(images, available, SIZE, count))
    return torch.cat(batches) if batches else None, asked


def test_patches_are_parts_of_the_images():
    patches, asked = cut(PatchCutter(16, seed=3), 70)
    assert (patches.shape, patches.dtype) == ((70, 3, 16, 16), torch.uint8)
    for patch in patches:
        number, top, left = patch[:, 0, 0].tolist()
        assert torch.equal(patch, numbered(number)[:, top : top + 16, left : left + 16])
    # Ten of each of the seven, each of which is read once.
    assert patches[:, 0, 0, 0].bincount().tolist() == [10] * 7
    assert asked == list(range(7))


def test_places_are_random_and_of_the_seed_alone():
    def places(seed, count=300, available=7):
        return cut(PatchCutter(16, seed), count, available)[0][:, 1:, 0, 0].tolist()

    assert places(0) == places(0) == places(0, available=3)
    assert places(0)[:50] == places(0, 50)
    assert places(0) != places(1)
    tops, lefts = zip(*places(0), strict=True)
    # All of them occur: 25 tops and 35 lefts, 300 draws of each.
    assert set(tops) == set(range(25))
    assert set(lefts) == set(range(35))


def test_fewer_patches_than_images_are_spread():
    patches, asked = cut(PatchCutter(40, seed=0), 3, available=9)
    assert patches[:, 0, 0, 0].tolist() == asked == [0, 3, 6]


@pytest.mark.parametrize(("side", "count"), [(40, 7), (20, 28), (16, 42), (21, 14)])
def test_as_many_as_fit_side_by_side(side, count):
    cutter = PatchCutter(side, seed=0)
    assert cutter.count(7, SIZE) == count
    cutter.require_within(SIZE)


def test_larger_than_the_images():
    with pytest.raises(UserError, match=r"^patches: 41: larger than images of 40x50$"):
        PatchCutter(41, seed=0).require_within(SIZE)
