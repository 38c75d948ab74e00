"""A set of points with all that the convolutions need to know of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from infdiff.coordinates import Scale, Size
from infdiff.ops.dense_conv2d import window_of
from infdiff.ops.inverse_count import inverse_count
from infdiff.ops.lattice_index import lattice_index
from infdiff.ops.neighbour_lists import neighbour_lists
from infdiff.ops.row_pairs import bisects


class Points(NamedTuple):
    """Points of an image, as `sparse_depthwise_conv2d` and `sparse_conv2d` take them.

    Only ids, size and scale say which function is computed. The others follow from them and are stored because many
    calls share them. `Points.of` computes index and inverse_count, `listed` the lists.
    """

    ids: Tensor  # (B, L) int64, ascending and without repeats
    size: Size
    scale: Scale  # pixels per base pixel, for (rows, columns)
    # `lattice_index`, or TorchSparse's neighbour table; None: computed if it is needed. Hides `tuple.index`.
    index: Tensor | None  # type: ignore[assignment]
    inverse_count: Tensor  # (B or 1, L, 1), for one kernel size
    # `neighbour_lists`, for one kernel size; None: computed when they are needed.
    by_point: Tensor | None = None
    by_offset: Tensor | None = None

    @classmethod
    def of(
        cls,
        ids: Tensor,
        size: Size,
        kernel_size: int,
        scale: Scale = (1.0, 1.0),
        dtype: torch.dtype = torch.float32,
    ) -> Points:
        """Points `ids` of an image of `size`, for kernels of kernel_size x kernel_size taps.

        dtype: of the normaliser; float64 for features of float64. Raises ValueError when the ids do not ascend, repeat
        or leave the image.
        """
        scale = float(scale[0]), float(scale[1])
        unneeded = ids.shape[-1] == size[0] * size[1] or bisects(ids, size)
        index = None if unneeded else lattice_index(ids, size)
        return cls(ids, size, scale, index, inverse_count(ids, size, kernel_size, scale, index, dtype))

    def listed(self, kernel_size: int) -> Points:
        """The same points with neighbour lists for k x k taps, where CUDA kernels read them; else unchanged."""
        if self.index is None or self.index.dim() == 2:
            return self
        window = window_of(kernel_size, self.scale)
        by_point, by_offset = neighbour_lists(self.ids, self.index, self.size, window)
        return self._replace(by_point=by_point, by_offset=by_offset)
