"""∞-Diff's denoiser on all pixels of an image, tile by tile: memory is that of tiles, not of the image's features.

Tiles of rows go through the sparse blocks from the image's top to its bottom. Each block buffers only the tiles its
window still needs. The down half runs twice: first to feed the grid network, which sees the complete image, then
alongside the up half so that skip connections need not be stored.

Processes that work together each compute a band of the image's rows, and read the rows around it that their blocks
need. Their shares of the grid are summed, and each has the grid network's result; the bands are exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from infdiff import ops, processes
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

    The result (B, out_channels, H, W) equals that on all pixels at once up to rounding, in every process.
    """
    size: Size = (x.shape[2], x.shape[3])
    scale = scale_of(size, model.base)
    condition = model.condition(t, z, label)
    bands = processes.bands(size[0])
    own = bands[processes.joined().rank if len(bands) > 1 else 0]
    tile_rows = min(tile_rows, len(own))
    lift = _Lift(model, x)
    memory = _TileMemory(lift(range(tile_rows)))
    blocks = [_TiledBlock(block, size, scale, condition, memory) for block in (*model.down, *model.up)]
    down, up = blocks[: len(model.down)], blocks[len(model.down) :]

    grid = ops.GridFromTiles(size, model.grid_for(size), x.device)
    for rows, tile in _flow(lift, down, own, memory):
        grid.add(tile.flatten(1, 2), rows.start)
    if len(bands) > 1:
        grid.join(processes.total)
    up[0].added = model.on_grid(grid.read(), condition, z)

    for block, twin in zip(up, reversed(down), strict=True):
        twin.kept = block.skip = []
    out = x.new_empty(x.shape[0], model.out_channels, *size)
    for rows, tile in _flow(lift, blocks, own, memory):
        place = slice(rows.start, rows.stop)
        values = by_rows(lambda h, x: model.read_out(h, x, condition), tile.flatten(1, 2), x[:, :, place].flatten(2).mT)
        out[:, :, place] = values.mT.unflatten(2, tile.shape[1:3])
    if len(bands) > 1:
        processes.exchange(out, bands, dim=2)
    return out


def held_tiles(blocks: int) -> int:
    """Return the tiles of features that `denoise_tiled` holds with as many blocks on the way down as up.

    Three in each block, where tiles are as high as what is read around them, and those under way or waiting for the up
    half.
    """
    return 3 * 2 * blocks + blocks**2


class _Lift:
    """Computes the first features (B, len(rows), W, C) of some rows."""

    def __init__(self, model: SparseUNet, x: Tensor) -> None:
        self.model, self.x = model, x

    def __call__(self, rows: range, out: Tensor | None = None) -> Tensor:
        height, width = self.x.shape[2:]
        ids = torch.arange(rows.start * width, rows.stop * width, device=self.x.device)[None]
        where = pixel_coordinates(ids, (height, width)).expand(len(self.x), -1, -1)
        values = self.x[:, :, rows.start : rows.stop].flatten(2).mT
        result = by_rows(self.model.lift, values, where, out=None if out is None else out.flatten(1, 2))
        return result.unflatten(1, (len(rows), width))


def _flow(
    lift: Callable[..., Tensor], blocks: list[_TiledBlock], rows: range, memory: _TileMemory
) -> Iterator[tuple[range, Tensor]]:
    """Yield the last block's tiles of `rows` in order, with the rows of each.

    Runs the deepest ready block first, to keep the buffers small.
    """
    for block in reversed(blocks):
        rows = block.begin(rows)
    last = blocks[-1]
    while not last.finished():
        ready = [n for n, block in enumerate(blocks) if block.ready()]
        if not ready:
            lifted = blocks[0].next_rows()
            tile = lift(lifted, memory.take(len(lifted)))
            blocks[0].accept(tile)
            memory.free(tile)
            continue
        block = blocks[ready[-1]]
        made, tile = block.run()
        if block is last:
            yield made, tile
        else:
            blocks[ready[-1] + 1].accept(tile)
        if block.kept is None:
            memory.free(tile)


class _TileMemory:
    """A pool of tiles' memory."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.unused = like, [like]

    def take(self, rows: int) -> Tensor:
        """(B, rows, W, C); only the first and the last tile have fewer rows than the others."""
        if rows != self.like.shape[1]:
            return self.like[:, :rows].clone()
        return self.unused.pop() if self.unused else mapped_empty(self.like, *self.like.shape)

    def free(self, tile: Tensor) -> None:
        if tile.shape == self.like.shape:
            self.unused.append(tile)


class _TiledBlock:
    """A sparse block that accepts the tiles of an image (B, tile_rows, W, C) in order and returns its own in order.

    Tiles end at multiples of tile_rows, or with the rows that are wanted. kept: a list to which results are also
    appended with their rows, for a skip connection. skip: the list from which results of the twin are merged. added:
    the grid network's result, which the block first adds to its input.
    """

    def __init__(self, block: SparseBlock, size: Size, scale: Scale, condition: Given, memory: _TileMemory) -> None:
        self.block, self.size, self.scale, self.condition, self.memory = block, size, scale, condition, memory
        self.kept: list[tuple[range, Tensor]] | None = None
        self.skip: list[tuple[range, Tensor]] | None = None
        self.added: Tensor | None = None
        self.tile_rows = memory.like.shape[1]
        self.convs = [block.conv] if block.conv_after is None else [block.conv, block.conv_after]
        self.reach = sum(self._rows_around(conv) for conv in self.convs)
        around = -(-self.reach // self.tile_rows)
        batch, _, width, channels = memory.like.shape
        held_rows = min((2 * around + 1) * self.tile_rows, size[0])
        self.held = mapped_empty(memory.like, batch, held_rows, width, channels)
        self.begin(range(size[0]))

    def begin(self, rows: range) -> range:
        """Begin with the first of the rows that are wanted. Returns those of the input that they are made of."""
        self.wanted = rows
        self.read = range(max(0, rows.start - self.reach), min(rows.stop + self.reach, self.size[0]))
        # Of the input, rows `first` to `end` are held; the result has been returned up to row `done`.
        self.first = self.end = self.read.start
        self.done = rows.start
        return self.read

    def finished(self) -> bool:
        return self.done == self.wanted.stop

    def next_rows(self) -> range:
        """Rows of the next tile to accept."""
        return range(self.end, self._tile_end(self.end, self.read))

    def _tile_end(self, row: int, rows: range) -> int:
        return min((row // self.tile_rows + 1) * self.tile_rows, rows.stop)

    def ready(self) -> bool:
        """True when every row that the next result reads is there."""
        if self.finished():
            return False
        return self.end >= min(self._tile_end(self.done, self.wanted) + self.reach, self.read.stop)

    def accept(self, tile: Tensor) -> None:
        batch, rows, width, _ = tile.shape
        place = self.held[:, self.end - self.first : self.end - self.first + rows].flatten(1, 2)
        ids = torch.arange(self.end * width, (self.end + rows) * width, device=tile.device).expand(batch, -1)
        skip = [] if self.skip is None else [self._next_skipped(self.skip)]
        parts = [taken[:, self.end - own.start :][:, :rows] for own, taken in skip]
        by_rows(self._enter, tile.flatten(1, 2), ids.unsqueeze(-1), *(s.flatten(1, 2) for s in parts), out=place)
        for _, taken in skip:
            self.memory.free(taken)
        self.end += rows

    def _next_skipped(self, skip: list[tuple[range, Tensor]]) -> tuple[range, Tensor]:
        """The twin's result that holds the next rows. The twin has more of them, above and below."""
        while self.end not in skip[0][0]:
            self.memory.free(skip.pop(0)[1])
        return skip.pop(0)

    def _enter(self, features: Tensor, ids: Tensor, *skip: Tensor) -> Tensor:
        if self.added is not None:
            features = features + ops.grid_to_points(self.added, ids[..., 0], self.size)
        return self.block.merged(features, *skip) if skip else features

    def run(self) -> tuple[range, Tensor]:
        """Compute the next tile, and drop the rows that no later one reads. Returns its rows, too."""
        last = self._tile_end(self.done, self.wanted)
        window = self.held[:, : self.end - self.first]
        convolved = self._convolved(window, last)
        x = window[:, self.done - self.first : last - self.first]
        result = self.memory.take(last - self.done)
        self.block.mixed(x.flatten(1, 2), convolved.flatten(1, 2), self.condition, out=result.flatten(1, 2))
        rows = range(self.done, last)
        self.done = last
        self._drop_read_rows()
        if self.kept is not None:
            self.kept.append((rows, result))
        return rows, result

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
