"""The width of a field in a unit of length, which distances between its pixels follow from."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from infdiff.coordinates import Size, format_size
from infdiff.errors import OptionError


@dataclass(frozen=True)
class Extent:
    """Width of a stored field, as 512 of the unit km. Pixels are as high as they are wide."""

    width: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Extent:
        """Read "512km". Raises OptionError for anything but a number above 0 with a unit."""
        found = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?) *([^\W\d].*)", text.strip())
        try:
            width = float(found[1]) if found else 0.0
        except ValueError:
            width = 0.0
        if found is None or not (0 < width < math.inf):
            raise OptionError("extent", text, "want a width with its unit, as in 512km")
        return cls(width, found[2].strip())

    def distance(self, pixels: float, size: Size) -> float:
        """Return a number of pixels of a field of a size in the unit."""
        return pixels * self.width / size[1]

    def pixels(self, distance: float, size: Size) -> int:
        """Invert `distance`. Raises OptionError for a distance that is no whole number of pixels, to a hundredth."""
        exact = distance * size[1] / self.width
        if not 0.5 <= exact < math.inf or abs(exact - round(exact)) > 0.01:
            pitch = f"{self.distance(1, size):.4g} {self.unit}"
            problem = f"a pixel of fields of {format_size(size)} is {pitch}: want multiples of that"
            raise OptionError("distances", f"{distance:g}", problem)
        return round(exact)
