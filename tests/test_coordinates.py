"""The coordinate convention."""

import pytest
import torch
import torch.nn.functional as F

from infdiff.coordinates import (
    cell_centres,
    covering,
    format_size,
    parse_size,
    pixel_coordinates,
    to_grid_sample,
    within,
)


def test_pixels_sit_at_cell_centres():
    expected = torch.tensor([[1 / 4, 1 / 6], [1 / 4, 3 / 6], [1 / 4, 5 / 6], [3 / 4, 1 / 6]], dtype=torch.float64)
    torch.testing.assert_close(pixel_coordinates(torch.arange(4), (2, 3), torch.float64), expected)


def test_grid_sample_reads_each_pixel_at_its_own_coordinates(generator):
    image = torch.randn(1, 2, 5, 7, dtype=torch.float64, generator=generator)
    place = pixel_coordinates(torch.arange(35), (5, 7), torch.float64)
    read = F.grid_sample(image, to_grid_sample(place).view(1, 5, 7, 2), align_corners=False)
    torch.testing.assert_close(read, image)


def test_row_and_column_are_not_transposed():
    # A function of the row alone must change along the first axis only.
    place = pixel_coordinates(torch.arange(12), (3, 4), torch.float64).view(3, 4, 2)
    torch.testing.assert_close(place[:, 0, 0], cell_centres(3))
    assert (place[..., 0] == place[:, :1, 0]).all()


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), (48, (48, 48)), ("512x1024", (512, 1024))])
def test_sizes_are_read_height_first(text, size):
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["0", "abc", "", "-3", "1x2x3", "12.5", "0x5"])
def test_bad_sizes_are_named(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "shape", "wanted"),
    [((64, 128), (64, 64), (128, 128)), ((48, 48), (64, 64), (48, 48)), ((90, 60), (64, 96), (90, 135))],
)
def test_the_smallest_size_in_given_proportions(size, shape, wanted):
    assert covering(size, shape) == wanted


@pytest.mark.parametrize(
    ("size", "limit", "wanted"),
    [
        ((256, 256), (64, 64), (64, 64)),
        ((512, 768), (64, 64), (43, 64)),
        ((40, 20), (64, 64), (40, 20)),
        ((3, 900), (64, 64), (1, 64)),
        ((90, 60), (64, 20), (30, 20)),
    ],
)
def test_the_largest_size_of_the_same_shape(size, limit, wanted):
    assert within(size, limit) == wanted
