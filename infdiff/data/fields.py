"""Images with any channels and real values: how a store holds them, and what their values mean."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.data.extent import Extent
from infdiff.data.normalisation import Normalisation
from infdiff.images.field_resize import resized

# The `format` of a store of fields.
FIELD_FORMAT = "array"
DTYPES = ("uint8", "uint16", "float16", "float32")


@dataclass(frozen=True)
class FieldDescription:
    """Channels, type and meaning of the values of a set of fields.

    names, units: one a channel, or none. limits: the lowest and the highest normalised value of each channel. fewest:
    the fewest valid pixels of an image as stored; None where no pixel is missing. rms: root mean square of the
    normalised values. extent: width of a stored field; None where it is not known.
    """

    channels: int
    dtype: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    normalisation: Normalisation
    limits: tuple[tuple[float, float], ...]
    fewest: int | None
    rms: float
    extent: Extent | None = None

    def record(self) -> dict[str, Any]:
        """Return the description as numbers and texts, for JSON."""
        return asdict(self) | {"normalisation": self.normalisation.record()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> FieldDescription:
        """Invert `record`. Raises ValueError, TypeError or KeyError for anything else."""
        values = dict(record)
        values["normalisation"] = Normalisation.from_record(values["normalisation"])
        if (extent := values.get("extent")) is not None:
            values["extent"] = Extent(float(extent["width"]), str(extent["unit"]))
        values["limits"] = tuple((float(low), float(high)) for low, high in values["limits"])
        return cls(**values | {name: tuple(values[name]) for name in ("names", "units")})

    def part(self, start: int, stop: int) -> FieldDescription:
        """Return the description of the channels from `start` to before `stop`."""
        chosen = slice(start, stop)
        return replace(
            self,
            channels=stop - start,
            names=self.names[chosen],
            units=self.units[chosen],
            normalisation=replace(self.normalisation, tables=self.normalisation.tables[chosen]),
            limits=self.limits[chosen],
        )

    def label(self, channel: int) -> str:
        """Return the name of a channel with its unit, as far as they are known."""
        name = self.names[channel] if self.names else f"channel {channel + 1}"
        return f"{name} ({self.units[channel]})" if self.units and self.units[channel] else name

    @property
    def limits_in_units(self) -> list[tuple[float, float]]:
        """The lowest and the highest value of each channel."""
        low, high = self.in_units(torch.tensor(self.limits).view(1, -1, 1, 2))[0, :, 0].unbind(-1)
        return list(zip(low.tolist(), high.tolist(), strict=True))

    def normalised(self, values: np.ndarray) -> Tensor:
        """Return values (C, H, W) in units as the network's (C, H, W) float32; NaN, which is missing, stays NaN."""
        return torch.from_numpy(self.normalisation.apply(values))

    @property
    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Factor and offset (C, 1, 1) that take normalised values to units; None where no affine map does."""
        tables = self.normalisation.tables
        if any(len(inputs) != 2 for inputs, _ in tables):
            return None
        pairs = []
        for inputs, outputs in tables:
            slope = (inputs[1] - inputs[0]) / (outputs[1] - outputs[0])
            pairs.append((slope, inputs[0] - slope * outputs[0]))
        factor, offset = torch.tensor(pairs, dtype=torch.float32).view(-1, 2, 1, 1).unbind(1)
        return factor, offset

    def differentiable_units(self, images: Tensor) -> Tensor:
        """Return what `in_units` does, on the images' device and with its derivative."""
        planes = []
        for channel, (inputs, outputs) in enumerate(self.normalisation.tables):
            x, y = (torch.tensor(side, dtype=torch.float64, device=images.device) for side in (outputs, inputs))
            values = images[:, channel].double()
            place = torch.searchsorted(x, values.detach().contiguous(), right=True).clamp(1, len(x) - 1) - 1
            slope = (y[place + 1] - y[place]) / (x[place + 1] - x[place])
            planes.append(y[place] + (values - x[place]) * slope)
        return torch.stack(planes, dim=1).to(images.dtype)

    def in_units(self, images: Tensor) -> Tensor:
        """Return normalised images (B, C, H, W) in units, float32, on the CPU."""
        arrays = images.detach().float().cpu().numpy()
        return torch.from_numpy(np.stack([self.normalisation.invert(array) for array in arrays]))


def encode_field(values: np.ndarray, valid: np.ndarray | None) -> bytes:
    """Encode a field (C, H, W) of one of DTYPES without loss, and which pixels (H, W) are valid; None: all.

    What stands at missing pixels is not kept.
    """
    buffer = io.BytesIO()
    np.save(buffer, values if valid is None else np.where(valid, values, np.zeros_like(values)), allow_pickle=False)
    if valid is not None:
        np.save(buffer, np.packbits(valid), allow_pickle=False)
    return zlib.compress(buffer.getvalue())


def decode_field(value: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Invert `encode_field`."""
    content = zlib.decompress(value)
    buffer = io.BytesIO(content)
    values = np.load(buffer, allow_pickle=False)
    if buffer.tell() == len(content):
        return values, None
    height, width = values.shape[1:]
    packed = np.load(buffer, allow_pickle=False)
    return values, np.unpackbits(packed, count=height * width).reshape(height, width).astype(bool)


def field_at(value: bytes, field: FieldDescription, size: Size) -> Tensor:
    """Return an encoded field, cropped and resized, as (C, H, W) float32: normalised, NaN at missing pixels."""
    values, valid = decode_field(value)
    values, valid = resized(values, valid, size)
    out = field.normalised(values)
    return out if valid is None else out.masked_fill_(~torch.from_numpy(valid), torch.nan)
