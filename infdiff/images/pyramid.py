"""Deep Zoom pyramids: an image at every power of two of its size, in square tiles, as folders of PNG files.

Levels are the image halved again and again, rounded up, down to level 0, which is one pixel. `NAME.dzi` describes what
`NAME_files` holds, `NAME_files/LEVEL/COLUMN_ROW.png`; viewers such as OpenSeadragon open it from a folder as well as
from a server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.files import make_folder, save_text
from infdiff.images.write import save_png

NAME = "image"
TILE = 256


@dataclass(frozen=True)
class Pyramid:
    """The layout of a pyramid in a folder. size: of the largest level; tile: pixels along a side of a tile."""

    folder: Path
    size: Size
    tile: int = TILE

    @property
    def levels(self) -> int:
        """The number of the largest level."""
        return (max(self.size) - 1).bit_length()

    def size_of(self, level: int) -> Size:
        """The size of a level."""
        halvings = self.levels - level
        return -(-self.size[0] // 2**halvings), -(-self.size[1] // 2**halvings)

    def tiles_of(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's tiles."""
        size = self.size_of(level)
        return -(-size[0] // self.tile), -(-size[1] // self.tile)

    def path(self, level: int, row: int, column: int) -> Path:
        """The file of a tile."""
        return self.folder / f"{NAME}_files" / str(level) / f"{column}_{row}.png"

    def write_rows(self, level: int, first: int, rows: Tensor) -> None:
        """Write the tiles of complete rows of tiles, (3, h, W) uint8, from pixel row `first` of a level on."""
        make_folder(self.path(level, 0, 0).parent)
        for top in range(0, rows.shape[1], self.tile):
            for left in range(0, rows.shape[2], self.tile):
                path = self.path(level, (first + top) // self.tile, left // self.tile)
                save_png(rows[:, top : top + self.tile, left : left + self.tile], path)

    def describe(self) -> Path:
        """Write the description, and return its path."""
        path = self.folder / f"{NAME}.dzi"
        make_folder(self.folder)
        height, width = self.size
        save_text(
            path,
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="png" Overlap="0" '
            f'TileSize="{self.tile}"><Size Width="{width}" Height="{height}"/></Image>\n',
        )
        return path


def write_pyramid(image: Tensor, pyramid: Pyramid) -> Path:
    """Write all levels of an image (3, H, W) uint8 and return the description's path, which is written last.

    By rows of tiles, from the top: in the memory of two rows of tiles of each level. A pixel of a level is the mean of
    four of the next one; the mean is taken of rounded values, level by level.
    """
    waiting: list[list[Tensor]] = [[] for _ in range(pyramid.levels + 1)]
    written = [0] * (pyramid.levels + 1)

    def add(level: int, rows: Tensor) -> None:
        """Take further rows of a level, and write what makes a row of tiles or is the end of it."""
        waiting[level].append(rows)
        height = pyramid.size_of(level)[0]
        here = sum(part.shape[1] for part in waiting[level])
        if here < pyramid.tile and written[level] + here < height:
            return
        complete = torch.cat(waiting[level], dim=1)
        waiting[level] = []
        pyramid.write_rows(level, written[level], complete)
        written[level] += here
        if level > 0:
            add(level - 1, halved(complete))

    for top in range(0, pyramid.size[0], pyramid.tile):
        add(pyramid.levels, image[:, top : top + pyramid.tile].cpu())
    return pyramid.describe()


def halved(image: Tensor) -> Tensor:
    """The means over 2 x 2 pixels of an image (3, H, W) uint8, rounded; over those that are there, at an odd end."""
    odd = image.shape[2] % 2, image.shape[1] % 2
    padded = F.pad(image.float()[None], (0, odd[0], 0, odd[1]), mode="replicate") if any(odd) else image.float()[None]
    return F.avg_pool2d(padded, 2)[0].round().to(torch.uint8)
