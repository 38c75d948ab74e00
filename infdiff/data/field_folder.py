"""A folder or zip of fields of one size and in one unit, to be compared with others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.sources import Source
from infdiff.errors import UserError, first_line
from infdiff.images.field_files import UNREADABLE, as_field, decode_array
from infdiff.images.field_resize import resized_nan


@dataclass(frozen=True)
class FieldFolder:
    """Fields in the source's order, each with the same channels."""

    source: Source
    channels: int
    size: Size

    @classmethod
    def open(cls, source: Source, channels: int) -> FieldFolder:
        """Read all of them once. Raises UserError naming one with other channels, of another size, or unreadable."""
        sizes: dict[Size, str] = {}
        for name in source.names:
            field = _read(source, name, channels)
            sizes.setdefault((field.shape[1], field.shape[2]), name)
            if len(sizes) > 1:
                (a, first), (b, second) = list(sizes.items())
                raise UserError(
                    f"{source.path} holds fields of mixed sizes ({first} has {format_size(a)}, {second} "
                    f"{format_size(b)}): resize them first"
                )
        return cls(source, channels, next(iter(sizes)))

    def __len__(self) -> int:
        return len(self.source.names)

    def read(self, index: int, size: Size) -> Tensor:
        """Return (C, H, W) float32, NaN where missing, cropped and resized as stored fields are."""
        values = _read(self.source, self.source.names[index], self.channels)
        return torch.from_numpy(np.ascontiguousarray(resized_nan(values, size)))

    def batches(self, size: Size, batch: int) -> Iterator[Tensor]:
        """Yield all fields as (B, C, H, W) float32."""
        for places in torch.arange(len(self)).split(batch):
            yield torch.stack([self.read(place, size) for place in places.tolist()])


def _read(source: Source, name: str, channels: int) -> np.ndarray:
    """Read a file as (C, H, W) float32."""
    try:
        return as_field(*decode_array(source.read(name)), channels)
    except UNREADABLE as error:
        raise UserError(f"{source.path}: {name} cannot be read as a field ({first_line(error)})") from error
