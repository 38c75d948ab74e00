"""Labels of images: a class, or a vector of numbers. Networks see each as one row of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# A class by its number, or the numbers of a vector, as a store keeps them.
Value = tuple[float, ...]


@dataclass(frozen=True)
class LabelDescription:
    """Meaning of the labels of a set of images.

    classes: their names; or, for vectors, mean and standard deviation (D,) of each number over the images.
    """

    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def fitted(cls, vectors: Sequence[Value]) -> LabelDescription:
        """Return the description of vectors, at least one. A number that never changes has standard deviation 1."""
        values = np.array(vectors, np.float64)
        std = values.std(axis=0)
        return cls(mean=tuple(values.mean(axis=0).tolist()), std=tuple(np.where(std > 0, std, 1.0).tolist()))

    @property
    def length(self) -> int:
        """The numbers of a vector; 0 for classes."""
        return len(self.mean)

    @property
    def dim(self) -> int:
        """Length of the row that networks see."""
        return label_dim(len(self.classes), self.length)

    def record(self) -> dict[str, Any]:
        """Return the description as numbers and texts, for JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> LabelDescription:
        """Invert `record`. Raises ValueError or TypeError for anything else."""
        found = cls(**{name: tuple(values) for name, values in record.items()})
        numbers = (*found.mean, *found.std)
        if bool(found.classes) == bool(found.mean) or len(found.mean) != len(found.std):
            raise ValueError("labels are classes, or vectors with a mean and a standard deviation")
        if not all(isinstance(name, str) for name in found.classes) or not all(map(math.isfinite, numbers)):
            raise ValueError("labels without names, or without finite numbers")
        return found

    def row(self, value: Value) -> Tensor:
        """Return the row (dim,) float32: 1 at a class's place; or a vector, normalised, and 1. All zeros: no label.

        Raises ValueError for a value that no image of the set can have.
        """
        if self.classes:
            number = int(value[0])
            if len(value) != 1 or not 0 <= number < len(self.classes):
                raise ValueError(f"no class {value} among {len(self.classes)}")
            return torch.eye(len(self.classes))[number]
        if len(value) != self.length or not all(map(math.isfinite, value)):
            raise ValueError(f"a vector {value}: want {self.length} finite numbers")
        numbers = zip(value, self.mean, self.std, strict=True)
        return torch.tensor([*((x - mean) / std for x, mean, std in numbers), 1.0])

    def describe(self) -> str:
        """Return a phrase for logs."""
        if not self.classes:
            return f"vectors of {self.length}"
        shown = ", ".join(self.classes[:10]) + (", …" if len(self.classes) > 10 else "")
        return f"{len(self.classes)} classes ({shown})"


def label_dim(classes: int, vector: int) -> int:
    """Return the length of the row that networks see of one of `classes`, or of a vector; 0 without labels."""
    return classes or (vector + 1 if vector else 0)


def encode_label(value: Value) -> bytes:
    """Encode a label as a store keeps it."""
    return np.asarray(value, "<f8").tobytes()


def decode_label(value: bytes) -> Value:
    """Invert `encode_label`."""
    return tuple(np.frombuffer(value, "<f8").tolist())
