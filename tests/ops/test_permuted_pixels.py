"""The keyed permutation of an image's pixels: the kernel's numbers are the reference's, and it is a permutation."""

import pytest
import torch

from infdiff import ops


def keys(rounds, batch):
    drawn = torch.randint(0, 2**32, (rounds, batch, 1), generator=torch.Generator().manual_seed(batch))
    drawn[0, 0] = 2**32 - 1
    return drawn


@pytest.mark.parametrize(("size", "count"), [((16, 16), 256), ((17, 301), 700), ((5, 3), 15), ((1, 1), 1), ((2, 9), 1)])
@pytest.mark.parametrize(("rounds", "batch"), [(8, 3), (2, 1)])
def test_the_kernel_is_the_reference(size, count, rounds, batch, device):
    own = keys(rounds, batch)
    found = ops.permuted_pixels(own.to(device), count, size)
    assert torch.equal(found.cpu(), ops.permuted_pixels_ref(own, count, size))


@pytest.mark.parametrize("size", [(16, 16), (17, 301), (5, 3), (1, 1), (64, 48), (65536, 3)])
def test_a_cpu_has_the_numbers_of_the_reference(size):
    own, count = keys(8, 3), min(size[0] * size[1], 3000)
    assert torch.equal(ops.permuted_pixels(own, count, size), ops.permuted_pixels_ref(own, count, size))
    for some in (count, -(-count // 50)):  # marked, and sorted
        expected = ops.permuted_pixels_ref(own, some, size).sort(dim=1).values
        assert torch.equal(ops.permuted_pixels(own, some, size, ascending=True), expected)


@pytest.mark.parametrize("count", [1, 40])
def test_kernels_have_them_in_order_too(count, device):
    found = ops.permuted_pixels(keys(8, 3).to(device), count, (17, 19), ascending=True)
    assert torch.equal(found.cpu(), ops.permuted_pixels_ref(keys(8, 3), count, (17, 19), ascending=True))


def test_large_images_do_not_overflow(device):
    """The last pixels of 65536 rows: a place times a multiplier, and a row plus a hash, leave 32 bits."""
    own = keys(8, 1)
    found = ops.permuted_pixels(own.to(device), 3000, (65536, 3))
    assert torch.equal(found.cpu(), ops.permuted_pixels_ref(own, 3000, (65536, 3)))


@pytest.mark.parametrize("size", [(16, 16), (19, 23)])
def test_it_is_a_permutation_of_its_own_for_each_image(size):
    pixels = size[0] * size[1]
    found = ops.permuted_pixels(keys(8, 4), pixels, size)
    assert torch.equal(found.sort(dim=1).values, torch.arange(pixels).expand(4, -1))
    assert len({tuple(row.tolist()) for row in found}) == 4
