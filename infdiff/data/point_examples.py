"""Images that are seen at a few points each: x_0 and T x_0 there, without the other pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.data.examples import Examples
from infdiff.data.image_set import ImageSet
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.smooth_copy import SmoothCopy
from infdiff.points import PointBatch, draw_points
from infdiff.seeding import generator_for


class PointReader:
    """Reads images (3, H, W) uint8 of one size, and what the mollifier makes of them, at points.

    Images in memory get smooth copies in memory, where T is wide enough. Of others, the stored copy is read where there
    is one; else all of the image is decoded and smoothed for each reading.
    """

    def __init__(self, images: Examples, size: Size, mollifier: Mollifier) -> None:
        self.images, self.size, self.mollifier = images, size, mollifier
        self.lattice = SmoothCopy.for_mollifier(mollifier, size)
        self.copies: list[Tensor] | None = None
        if images.images is not None and not self.lattice.of_pixels:
            self.copies = [self.lattice.make(image) for image in images.images]

    def values(self, place: int, ids: Tensor) -> Tensor:
        """x_0 of an image at points `ids` (L,): (L, 3) uint8."""
        return _at(self._around(place, ids, 0), ids, self.size)

    def read(self, place: int, ids: Tensor) -> tuple[Tensor, Tensor]:
        """x_0 and T x_0 of an image at points `ids` (L,): (L, 3) uint8 and (L, 3) float32."""
        if self.lattice.of_pixels:
            pixels = self._around(place, ids, max(self.lattice.reach))
            return _at(pixels, ids, self.size), self.lattice.read(pixels, ids, self.size)
        if self.copies is not None:
            return self.values(place, ids), self.lattice.read(self.copies[place], ids, self.size)
        stored = self.images.smooth_copy(place) if isinstance(self.images, ImageSet) else None
        if stored is not None:
            lattice = SmoothCopy.of_cells((stored.shape[0], stored.shape[1]), self.mollifier)
            if lattice is not None:
                return self.values(place, ids), lattice.read(stored, ids, self.size)
        image = self.images[place]
        return _at(image.permute(1, 2, 0), ids, self.size), self.lattice.read(self.lattice.make(image), ids, self.size)

    def _around(self, place: int, ids: Tensor, reach: int) -> Tensor:
        """(H, W, 3) uint8, right at `ids` and up to `reach` away."""
        if isinstance(self.images, ImageSet):
            return self.images.around(place, ids, reach)
        return self.images[place].permute(1, 2, 0)


class PointExamples:
    """Some points of each image. What is drawn is a function of (seed, purpose, position), whatever the cache.

    count, kind: how many points, and how they are drawn, as `draw_points`. flip: mirror every second image. encoder:
    also draw points for an encoder, as many.
    """

    def __init__(
        self, reader: PointReader, count: int, *, kind: str, flip: bool, encoder: bool, seed: int, purpose: str
    ) -> None:
        self.reader, self.count, self.kind, self.flip, self.encoder = reader, count, kind, flip, encoder
        self.seed, self.purpose = seed, purpose

    @property
    def images(self) -> Tensor | None:
        return self.reader.images.images

    @property
    def labels(self) -> Tensor | None:
        return self.reader.images.labels

    def __len__(self) -> int:
        return len(self.reader.images)

    def take(self, places: Tensor) -> PointBatch:
        """Return images at `places` (B,), always at the same points."""
        return PointBatch.join([self.draw(place, place) for place in places.tolist()])

    def draw(self, place: int, position: int) -> PointBatch:
        """Return one image, at the points of a position in the order of training."""
        generator = generator_for("cpu", self.seed, self.purpose, position)
        size = self.reader.size
        flipped = self.flip and bool(torch.rand((), generator=generator) < 0.5)
        ids = draw_points(1, self.count, size, generator, self.kind)
        values, mollified = self.reader.read(place, self._stored(ids[0], flipped))
        seen = ids[:, :0], values[:0]
        if self.encoder:
            other = draw_points(1, self.count, size, generator, self.kind)
            seen = other, self.reader.values(place, self._stored(other[0], flipped))
        return PointBatch(size, ids, values[None], mollified[None], seen[0], seen[1][None])

    def _stored(self, ids: Tensor, flipped: bool) -> Tensor:
        """The pixels of the stored image that are at `ids` of the flipped one, on the images' device."""
        width = self.reader.size[1]
        if flipped:
            column = ids % width
            ids = ids - column + (width - 1 - column)
        return ids if self.images is None else ids.to(self.images.device)


def _at(pixels: Tensor, ids: Tensor, size: Size) -> Tensor:
    """Values (L, 3) of an image (H, W, 3) at points (L,)."""
    row = torch.div(ids, size[1], rounding_mode="floor")
    return pixels[row, ids - row * size[1]]
