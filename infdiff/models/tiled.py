"""∞-Diff's denoiser on all pixels of an image, strip by strip: memory is that of strips, not of the image's features.

Strips of rows go through the sparse blocks from the image's top to its bottom. A block holds the strips that its window
still reads and passes on those it has finished, so nothing is computed twice but the down half: once for the grid
network, which sees the whole image, and once more beside the up half, in place of stored skip connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infdiff import ops
from infdiff.coordinates import Size, pixel_coordinates, scale_of
from infdiff.memory import mapped_empty
from infdiff.nn.sparse_block import SparseBlock, by_rows

if TYPE_CHECKING:
    from infdiff.models.sparse_unet import SparseUNet


@torch.no_grad()
def denoise_in_strips(model: SparseUNet, x: Tensor, t: Tensor, z: Tensor | None, rows: int) -> Tensor:
    """What `model` makes of all pixels of images x (B, in_channels, H, W), `rows` rows at a time."""
    size: Size = (x.shape[2], x.shape[3])
    condition = model.conditioning(t, z)
    lift = _Lift(model, x, rows)
    memory = _Memory(lift(0))
    blocks = [_BlockInStrips(b, size, scale_of(size, model.base), condition, memory) for b in (*model.down, *model.up)]
    down, up = blocks[: len(model.down)], blocks[len(model.down) :]

    grid = ops.GridFromStrips(size, model.grid_for(size), x.device)
    for number, strip in enumerate(_flow(lift, down, memory)):
        grid.add(strip.flatten(1, 2), number * rows)
    up[0].added = model.grid_network(grid.read(), condition)

    for block, twin in zip(up, reversed(down), strict=True):
        twin.begin()
        twin.kept = block.skip = []
    out = torch.empty_like(x)
    for number, strip in enumerate(_flow(lift, blocks, memory)):
        values = by_rows(lambda h: model.project(model.norm(h)), strip.flatten(1, 2))
        out[:, :, number * rows : (number + 1) * rows] = values.mT.unflatten(2, strip.shape[1:3])
    return out


class _Lift:
    """Gives the first features (B, rows, W, C) of strip n."""

    def __init__(self, model: SparseUNet, x: Tensor, rows: int) -> None:
        self.model, self.x, self.rows = model, x, rows

    def __call__(self, number: int, out: Tensor | None = None) -> Tensor:
        height, width = self.x.shape[2:]
        first, last = number * self.rows, min((number + 1) * self.rows, height)
        ids = torch.arange(first * width, last * width, device=self.x.device)[None]
        where = pixel_coordinates(ids, (height, width)).expand(len(self.x), -1, -1)
        values = self.x[:, :, first:last].flatten(2).mT
        result = by_rows(self.model.lift, values, where, out=None if out is None else out.flatten(1, 2))
        return result.unflatten(1, (last - first, width))


def _flow(lift: Callable[..., Tensor], blocks: list[_BlockInStrips], memory: _Memory) -> Iterator[Tensor]:
    """The last block's strips in order. The last block that can run does, so that none holds more than it must."""
    given, last = 0, blocks[-1]
    while not last.finished():
        able = [n for n, block in enumerate(blocks) if block.ready()]
        if not able:
            strip = lift(given, memory.strip(blocks[0].rows_left()))
            given += 1
            blocks[0].accept(strip)
            memory.free(strip)
            continue
        strip = blocks[able[-1]].run()
        if blocks[able[-1]] is last:
            yield strip
        else:
            blocks[able[-1] + 1].accept(strip)
        if blocks[able[-1]].kept is None:
            memory.free(strip)


class _Memory:
    """Strips' memory, used again."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.unused = like, [like]

    def strip(self, rows: int) -> Tensor:
        """(B, rows, W, C); only an image's last strip has fewer rows than the others."""
        if rows != self.like.shape[1]:
            return self.like[:, :rows].clone()
        return self.unused.pop() if self.unused else mapped_empty(self.like, *self.like.shape)

    def free(self, strip: Tensor) -> None:
        if strip.shape == self.like.shape:
            self.unused.append(strip)


class _BlockInStrips:
    """A sparse block that is given the strips of an image (B, rows, W, C) in order, and gives its own in order.

    kept: where the results also go, in order, for a skip connection. skip: whence results of the twin are merged.
    added: what the grid network gave, which the block adds to its input first.
    """

    def __init__(
        self, block: SparseBlock, size: Size, scale: tuple[float, float], condition: Tensor, memory: _Memory
    ) -> None:
        self.block, self.size, self.scale, self.condition, self.memory = block, size, scale, condition, memory
        self.kept: list[Tensor] | None = None
        self.skip: list[Tensor] | None = None
        self.added: Tensor | None = None
        self.rows = memory.like.shape[1]
        self.reach = ops.rows_around(block.conv.taps.shape[-1], scale)
        around = -(-self.reach // self.rows)
        batch, _, width, channels = memory.like.shape
        self.held = mapped_empty(memory.like, batch, min((2 * around + 1) * self.rows, size[0]), width, channels)
        self.begin()

    def begin(self) -> None:
        """From the image's top (again)."""
        # Of the input, rows `first` to `end` are held; the result has been given up to row `done`.
        self.first = self.end = self.done = 0

    def finished(self) -> bool:
        return self.done == self.size[0]

    def rows_left(self) -> int:
        """Of the strip that comes next."""
        return min(self.rows, self.size[0] - self.end)

    def ready(self) -> bool:
        """Whether every row that the next strip reads is there."""
        return not self.finished() and self.end >= min(self.done + self.rows + self.reach, self.size[0])

    def accept(self, strip: Tensor) -> None:
        batch, rows, width, _ = strip.shape
        place = self.held[:, self.end - self.first : self.end - self.first + rows].flatten(1, 2)
        ids = torch.arange(self.end * width, (self.end + rows) * width, device=strip.device).expand(batch, -1)
        skip = [] if self.skip is None else [self.skip.pop(0)]
        by_rows(self._enter, strip.flatten(1, 2), ids.unsqueeze(-1), *(s.flatten(1, 2) for s in skip), out=place)
        for taken in skip:
            self.memory.free(taken)
        self.end += rows

    def _enter(self, features: Tensor, ids: Tensor, *skip: Tensor) -> Tensor:
        if self.added is not None:
            features = features + ops.grid_to_points(self.added, ids[..., 0], self.size)
        return self.block.merged(features, *skip) if skip else features

    def run(self) -> Tensor:
        """The next strip. Forgets the rows that no later one reads."""
        last = min(self.done + self.rows, self.size[0])
        shape = {"first": self.done, "rows": last - self.done, "window_first": self.first}
        window = self.held[:, : self.end - self.first]
        conv = self.block.conv
        convolved = ops.conv2d_strip(window, conv.taps, self.size, self.scale, **shape)
        convolved += conv.bias.to(convolved)
        x = window[:, self.done - self.first : last - self.first]
        result = self.memory.strip(last - self.done)
        self.block.mixed(x.flatten(1, 2), convolved.flatten(1, 2), self.condition, out=result.flatten(1, 2))
        self.done = last
        self._forget()
        if self.kept is not None:
            self.kept.append(result)
        return result

    def _forget(self) -> None:
        first = max(self.first, (self.done - self.reach) // self.rows * self.rows)
        # Moved to the front of the same memory, in pieces that do not overlap.
        step, count = first - self.first, self.end - first
        for start in range(0, count if step else 0, max(step, 1)):
            stop = min(start + step, count)
            self.held[:, start:stop] = self.held[:, start + step : stop + step]
        self.first = first
