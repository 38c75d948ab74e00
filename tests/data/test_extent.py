"""Widths with a unit, and distances between pixels that follow from them."""

import pytest

from infdiff.data.extent import Extent
from infdiff.errors import OptionError


@pytest.mark.parametrize(
    ("text", "width", "unit"),
    [("512km", 512.0, "km"), (" 0.5 m", 0.5, "m"), ("2e3µm", 2000.0, "µm"), ("360 deg E", 360, "deg E")],
)
def test_a_width_with_a_unit(text, width, unit):
    assert Extent.parse(text) == Extent(width, unit)


@pytest.mark.parametrize("text", ["", "512", "km", "0km", "-3km", "1.2.3km", "1e999km", "nan km"])
def test_others_are_refused(text):
    with pytest.raises(OptionError, match="want a width with its unit, as in 512km"):
        Extent.parse(text)


def test_distances_and_pixels():
    extent, size = Extent(96.0, "km"), (16, 32)  # 3 km a pixel
    assert [extent.distance(n, size) for n in (1, 2, 5)] == [3.0, 6.0, 15.0]
    assert [extent.pixels(d, size) for d in (3.0, 6.0, 15.02)] == [1, 2, 5]
    for distance in (0.0, 1.0, 4.0, -3.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="a pixel of fields of 16x32 is 3 km: want multiples of that"):
            extent.pixels(distance, size)
