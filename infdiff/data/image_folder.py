"""A folder, zip or LMDB of images of one size, to be compared with others."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.sources import Source
from infdiff.data.store import to_tensor
from infdiff.errors import UserError
from infdiff.images.transforms import crop_to_aspect, resize, to_rgb


@dataclass(frozen=True)
class ImageFolder:
    """Images in the source's order."""

    source: Source
    size: Size
    formats: tuple[str, ...]  # those that occur, such as "JPEG", "PNG"

    @classmethod
    def open(cls, source: Source) -> ImageFolder:
        """Read all sizes and formats.

        Raises UserError when there are fewer than two images, or naming one that has another size or is unreadable.
        """
        if len(source.names) < 2:
            raise UserError(f"{source.path} holds one image: sets of images are compared, give at least two")
        sizes: dict[Size, str] = {}
        formats = set()
        for name in source.names:
            with _opened(source, name) as image:
                formats.add(image.format or "unknown")
                sizes.setdefault((image.height, image.width), name)
        if len(sizes) > 1:
            (a, first), (b, second) = list(sizes.items())[:2]
            raise UserError(
                f"{source.path} holds images of mixed sizes ({first} has {format_size(a)}, {second} {format_size(b)}): "
                "resize them first"
            )
        return cls(source, next(iter(sizes)), tuple(sorted(formats)))

    def __len__(self) -> int:
        return len(self.source.names)

    def read(self, index: int, size: Size) -> Tensor:
        """Return (3, H, W) uint8, cropped to the aspect ratio of `size` and resized to it, antialiased."""
        with _opened(self.source, self.source.names[index]) as image:
            try:
                rgb = to_rgb(image)
            except (OSError, ValueError, SyntaxError) as error:
                raise _unreadable(self.source, self.source.names[index], error) from error
        return to_tensor(resize(crop_to_aspect(rgb, size), size))

    def batches(self, size: Size, batch: int) -> Iterator[Tensor]:
        """Yield all images as (B, 3, H, W) uint8."""
        for places in torch.arange(len(self)).split(batch):
            yield torch.stack([self.read(place, size) for place in places.tolist()])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the files' bytes, in order."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self.source.names:
            digest.update(hashlib.blake2b(self.source.read(name)).digest())
        return digest.hexdigest()


def _opened(source: Source, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(source.read(name)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(source, name, error) from error


def _unreadable(source: Source, name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{source.path}: {name} cannot be read as an image ({reason}): remove it, or repair it")
