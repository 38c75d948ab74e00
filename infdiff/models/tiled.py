"""∞-Diff's denoiser on all pixels of an image, tile by tile: memory is that of tiles, not of the image's features.

Tiles of rows go through the sparse blocks from the image's top to its bottom. Each block buffers only the tiles its
window still needs. The down half runs twice: first to feed the grid network, which sees the complete image, then
alongside the up half so that skip connections need not be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff import ops
from infdiff.coordinates import Scale, Size, pixel_coordinates, scale_of
from infdiff.memory import mapped_empty
from infdiff.models.sparse_unet import SparseUNet
from infdiff.nn.condition import Given
from infdiff.nn.sparse_block import SparseBlock, SparseConv, by_rows


@torch.no_grad()
def denoise_tiled(
    model: SparseUNet, x: Tensor, t: Tensor, z: Tensor | None, tile_rows: int, label: Tensor | None = None
) -> Tensor:
    """`model` on all pixels of images x (B, in_channels, H, W), `tile_rows` rows at a time.

    The result (B, out_channels, H, W) equals that on all pixels at once up to rounding.
    """
    size: Size = (x.shape[2], x.shape[3])
    scale = scale_of(size, model.base)
    condition = model.condition(t, z, label)
    lift = _Lift(model, x, tile_rows)
    memory = _TileMemory(lift(0))
    blocks = [_TiledBlock(block, size, scale, condition, memory) for block in (*model.down, *model.up)]
    down, up = blocks[: len(model.down)], blocks[len(model.down) :]

    grid = ops.GridFromTiles(size, model.grid_for(size), x.device)
    for number, tile in enumerate(_flow(lift, down, memory)):
        grid.add(tile.flatten(1, 2), number * tile_rows)
    up[0].added = model.on_grid(grid.read(), condition, z)

    for block, twin in zip(up, reversed(down), strict=True):
        twin.restart()
        twin.kept = block.skip = []
    out = x.new_empty(x.shape[0], model.out_channels, *size)
    for number, tile in enumerate(_flow(lift, blocks, memory)):
        rows = slice(number * tile_rows, (number + 1) * tile_rows)
        values = by_rows(lambda h, x: model.read_out(h, x, condition), tile.flatten(1, 2), x[:, :, rows].flatten(2).mT)
        out[:, :, rows] = values.mT.unflatten(2, tile.shape[1:3])
    return out


class _Lift:
    """Computes the first features (B, tile_rows, W, C) of tile n."""

    def __init__(self, model: SparseUNet, x: Tensor, tile_rows: int) -> None:
        self.model, self.x, self.tile_rows = model, x, tile_rows

    def __call__(self, number: int, out: Tensor | None = None) -> Tensor:
        height, width = self.x.shape[2:]
        first, last = number * self.tile_rows, min((number + 1) * self.tile_rows, height)
        ids = torch.arange(first * width, last * width, device=self.x.device)[None]
        where = pixel_coordinates(ids, (height, width)).expand(len(self.x), -1, -1)
        values = self.x[:, :, first:last].flatten(2).mT
        result = by_rows(self.model.lift, values, where, out=None if out is None else out.flatten(1, 2))
        return result.unflatten(1, (last - first, width))


def _flow(lift: Callable[..., Tensor], blocks: list[_TiledBlock], memory: _TileMemory) -> Iterator[Tensor]:
    """Yield the last block's tiles in order. Runs the deepest ready block first, to keep the buffers small."""
    lifted, last = 0, blocks[-1]
    while not last.finished():
        ready = [n for n, block in enumerate(blocks) if block.ready()]
        if not ready:
            tile = lift(lifted, memory.take(blocks[0].next_rows()))
            lifted += 1
            blocks[0].accept(tile)
            memory.free(tile)
            continue
        tile = blocks[ready[-1]].run()
        if blocks[ready[-1]] is last:
            yield tile
        else:
            blocks[ready[-1] + 1].accept(tile)
        if blocks[ready[-1]].kept is None:
            memory.free(tile)


class _TileMemory:
    """A pool of tiles' memory."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.unused = like, [like]

    def take(self, rows: int) -> Tensor:
        """(B, rows, W, C); only an image's last tile has fewer rows than the others."""
        if rows != self.like.shape[1]:
            return self.like[:, :rows].clone()
        return self.unused.pop() if self.unused else mapped_empty(self.like, *self.like.shape)

    def free(self, tile: Tensor) -> None:
        if tile.shape == self.like.shape:
            self.unused.append(tile)


class _TiledBlock:
    """A sparse block that accepts the tiles of an image (B, tile_rows, W, C) in order and returns its own in order.

    kept: a list to which results are also appended, for a skip connection. skip: the list from which results of the
    twin are merged. added: the grid network's result, which the block first adds to its input.
    """

    def __init__(self, block: SparseBlock, size: Size, scale: Scale, condition: Given, memory: _TileMemory) -> None:
        self.block, self.size, self.scale, self.condition, self.memory = block, size, scale, condition, memory
        self.kept: list[Tensor] | None = None
        self.skip: list[Tensor] | None = None
        self.added: Tensor | None = None
        self.tile_rows = memory.like.shape[1]
        self.convs = [block.conv] if block.conv_after is None else [block.conv, block.conv_after]
        self.reach = sum(self._rows_around(conv) for conv in self.convs)
        around = -(-self.reach // self.tile_rows)
        batch, _, width, channels = memory.like.shape
        held_rows = min((2 * around + 1) * self.tile_rows, size[0])
        self.held = mapped_empty(memory.like, batch, held_rows, width, channels)
        self.restart()

    def restart(self) -> None:
        """Go back to the image's top."""
        # Of the input, rows `first` to `end` are held; the result has been returned up to row `done`.
        self.first = self.end = self.done = 0

    def finished(self) -> bool:
        return self.done == self.size[0]

    def next_rows(self) -> int:
        """Number of rows of the next tile to accept."""
        return min(self.tile_rows, self.size[0] - self.end)

    def ready(self) -> bool:
        """True when every row that the next result reads is there."""
        return not self.finished() and self.end >= min(self.done + self.tile_rows + self.reach, self.size[0])

    def accept(self, tile: Tensor) -> None:
        batch, rows, width, _ = tile.shape
        place = self.held[:, self.end - self.first : self.end - self.first + rows].flatten(1, 2)
        ids = torch.arange(self.end * width, (self.end + rows) * width, device=tile.device).expand(batch, -1)
        skip = [] if self.skip is None else [self.skip.pop(0)]
        by_rows(self._enter, tile.flatten(1, 2), ids.unsqueeze(-1), *(s.flatten(1, 2) for s in skip), out=place)
        for taken in skip:
            self.memory.free(taken)
        self.end += rows

    def _enter(self, features: Tensor, ids: Tensor, *skip: Tensor) -> Tensor:
        if self.added is not None:
            features = features + ops.grid_to_points(self.added, ids[..., 0], self.size)
        return self.block.merged(features, *skip) if skip else features

    def run(self) -> Tensor:
        """Compute the next tile, and drop the rows that no later one reads."""
        last = min(self.done + self.tile_rows, self.size[0])
        window = self.held[:, : self.end - self.first]
        convolved = self._convolved(window, last)
        x = window[:, self.done - self.first : last - self.first]
        result = self.memory.take(last - self.done)
        self.block.mixed(x.flatten(1, 2), convolved.flatten(1, 2), self.condition, out=result.flatten(1, 2))
        self.done = last
        self._drop_read_rows()
        if self.kept is not None:
            self.kept.append(result)
        return result

    def _convolved(self, window: Tensor, last: int) -> Tensor:
        """The block's operator on rows `done` to `last`: (B, rows, W, C).

        With two convolutions, of the first one also the rows around them that the second one reads.
        """
        if len(self.convs) == 1:
            return self._conv(self.convs[0], window, self.first, self.done, last)
        around = self._rows_around(self.convs[1])
        first, end = max(self.done - around, 0), min(last + around, self.size[0])
        between = F.silu(self._conv(self.convs[0], window, self.first, first, end))
        return self._conv(self.convs[1], between, first, self.done, last)

    def _conv(self, conv: SparseConv, window: Tensor, window_first: int, first: int, last: int) -> Tensor:
        """Rows `first` to `last` of a convolution of the image, of which `window` holds rows from window_first on."""
        out = ops.conv2d_tile(
            window, conv.taps, self.size, self.scale, first=first, tile_rows=last - first, window_first=window_first
        )
        out += conv.bias.to(out)
        return out

    def _rows_around(self, conv: SparseConv) -> int:
        return ops.rows_around(conv.taps.shape[-1], self.scale)

    def _drop_read_rows(self) -> None:
        first = max(self.first, (self.done - self.reach) // self.tile_rows * self.tile_rows)
        # Moved to the front of the same memory, in pieces that do not overlap.
        step, count = first - self.first, self.end - first
        for start in range(0, count if step else 0, max(step, 1)):
            stop = min(start + step, count)
            self.held[:, start:stop] = self.held[:, start + step : stop + step]
        self.first = first
