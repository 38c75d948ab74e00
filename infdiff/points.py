"""Subsets of an image's pixels: draw them, gather values at them, scatter values back.

A batch of points is `ids` (B, L) int64, ascending in each row and without repeats, with a size (H, W).
All draws happen on the generator's device and have static shapes; nothing waits for the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.ops.permuted_pixels import hash32, permuted_pixels

KINDS = ("uniform", "stratified", "halton")

# (kind, random numbers, count, size) -> ids: `place_points`, or the same compiled.
Place = Callable[[str, tuple[Tensor, ...], int, Size], Tensor]

_FEISTEL_ROUNDS, _FEISTEL_MIN_SIDE = 8, 16
_HASH_BITS = 0xFFFFFFFF


@dataclass(frozen=True)
class PointBatch:
    """Images of `size` that are seen at points alone, in place of a batch (B, C, H, W).

    values, mollified: x_0 and T x_0 at the points. encoder_ids, encoder_values: another subset of each, and x_0 there;
    of no points where there is no encoder.
    """

    size: Size
    ids: Tensor  # (B, L) int64
    values: Tensor  # (B, L, C) uint8
    mollified: Tensor  # (B, L, C) float32
    encoder_ids: Tensor  # (B, M) int64
    encoder_values: Tensor  # (B, M, C) uint8

    @classmethod
    def join(cls, batches: Sequence[PointBatch]) -> PointBatch:
        """Concatenate batches of one size and number of points."""
        parts = zip(*(batch._tensors() for batch in batches), strict=True)
        return cls(batches[0].size, *(torch.cat(part) for part in parts))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (B, C, H, W) of the images."""
        return self.ids.shape[0], self.values.shape[2], *self.size

    @property
    def device(self) -> torch.device:
        return self.values.device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PointBatch:
        """Return the batch on a device."""
        return PointBatch(self.size, *(t.to(device, non_blocking=non_blocking) for t in self._tensors()))

    def pin_memory(self) -> PointBatch:
        """Return the batch in page-locked memory."""
        return PointBatch(self.size, *(t.pin_memory() for t in self._tensors()))

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.ids, self.values, self.mollified, self.encoder_ids, self.encoder_values


def all_points(batch: int, size: Size, device: torch.device | str | None = None) -> Tensor:
    """The dense case: ids (B, H*W) of every pixel, one row of memory shared by the batch."""
    return torch.arange(size[0] * size[1], device=device).expand(batch, -1)


def draw_points(
    batch: int,
    count: int,
    size: Size,
    generator: torch.Generator,
    kind: str = "uniform",
    place: Place | None = None,
) -> Tensor:
    """Draw `count` of the H*W pixels for each of `batch` images.

    kind: "uniform" (every subset equally likely, up to the quality of a hash), "stratified" (one in each of
    `count` equal patches) or "halton" (a randomly shifted low-discrepancy sequence). place: `place_points`, compiled.

    Returns ids (B, L) int64, sorted, without repeats, on the generator's device.
    Raises ValueError when count is not in 1..H*W or the kind is unknown.
    """
    return draw_subsets(1, batch, count, size, generator, kind, place)[0]


def draw_subsets(
    number: int,
    batch: int,
    count: int,
    size: Size,
    generator: torch.Generator,
    kind: str = "uniform",
    place: Place | None = None,
) -> list[Tensor]:
    """`number` calls of `draw_points` after one another, whose arithmetic is done at once."""
    _check_points(count, size, kind)
    if count == size[0] * size[1]:
        return [all_points(batch, size, generator.device)] * number
    draw = {"uniform": _uniform_keys, "stratified": _stratified_places, "halton": _halton_shifts}[kind]
    drawn = [draw(batch, count, size, generator) for _ in range(number)]
    if number == 1:
        return [(place or place_points)(kind, drawn[0], count, size)]
    images = 1 if kind == "uniform" and drawn[0][0].dim() == 3 else 0  # the dimension
    random = tuple(torch.cat(parts, dim=images) for parts in zip(*drawn, strict=True))
    return list((place or place_points)(kind, random, count, size).split(batch))


def place_points(kind: str, random: tuple[Tensor, ...], count: int, size: Size) -> Tensor:
    """The points (B, L) of `draw_points` as a function of its random numbers: arithmetic alone, fit to be compiled."""
    if kind == "uniform" and _mixes(size) and random[0].device.type == "cpu":
        return permuted_pixels(random[0], count, size, ascending=True)
    place = {"uniform": _place_uniform, "stratified": _place_stratified, "halton": _place_halton}[kind]
    return place(random, count, size).sort(dim=1).values


def draw_valid_points(
    valid: Tensor,
    count: int,
    generator: torch.Generator,
    kind: str = "uniform",
    batch: int | None = None,
    own: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> Tensor:
    """Draw `count` of the valid pixels of each image, as `draw_points`; with all of them valid, the same ones.

    valid (B, H, W): at least `count` of each, or points come back that are none. batch, own: the images that numbers
    are drawn for, and the rows of them that are these B. Returns ids (B, L) int64, sorted, without repeats. Raises
    ValueError when count is not in 1..H*W or the kind is unknown.
    """
    size = (valid.shape[1], valid.shape[2])
    pixels = size[0] * size[1]
    _check_points(count, size, kind)
    if count == pixels:
        return all_points(len(valid), size, generator.device)
    flat, batch = valid.flatten(1), len(valid) if batch is None else batch
    if kind == "halton":
        shift, unvisited = _halton_shifts(batch, count, size, generator)
        ids = _place_halton((own(shift), own(unvisited)), count, size, flat)
    elif kind == "stratified":
        order = _patch_by_patch(torch.arange(pixels, device=valid.device), count, size).expand(len(valid), -1)
        known = flat.gather(1, order)
        (place,) = _stratified_places(batch, count, size, generator)
        ids = _in_order(order, known, _one_of_each_run(own(place), count, known.sum(dim=1, keepdim=True)))
    else:
        keys = _uniform_keys(batch, pixels, size, generator)
        ids = _first_valid(lambda tried: own(_place_uniform(keys, tried, size)), flat, count)
    return ids.sort(dim=1).values


def _check_points(count: int, size: Size, kind: str) -> None:
    pixels = size[0] * size[1]
    if not 1 <= count <= pixels:
        raise ValueError(f"cannot draw {count} points from {size[0]}x{size[1]} = {pixels} pixels")
    if kind not in KINDS:
        raise ValueError(f"unknown kind of points {kind!r}: choose one of {', '.join(KINDS)}")


def subset_points(ids: Tensor, count: int) -> Tensor:
    """Keep `count` of the points (B, L) of each image at random: their numbers (B, count) int64, ascending.

    A function of the ids alone, of one image's at a time: a new set of points has a new subset, and the same set the
    same one in every step of sampling. Raises ValueError when count is not in 1..L.
    """
    if not 1 <= count <= ids.shape[1]:
        raise ValueError(f"cannot keep {count} of {ids.shape[1]} points")
    key = hash32(ids.sum(dim=1, keepdim=True) & _HASH_BITS, torch.zeros_like(ids[:, :1]))
    # The point's number decides between equal hashes.
    order = (hash32(ids, key) << 31) + torch.arange(ids.shape[1], device=ids.device)
    return order.topk(count, dim=1, largest=False).indices.sort(dim=1).values


def gather(image: Tensor, ids: Tensor) -> Tensor:
    """Values of an image (B, C, H, W) at points (B, L): (B, L, C)."""
    rows = image.flatten(2).transpose(1, 2)
    return rows.gather(1, ids[:, :, None].expand(-1, -1, rows.shape[2]))


def scatter(features: Tensor, ids: Tensor, size: Size, fill: float = 0.0) -> Tensor:
    """Values (B, L, C) at points (B, L) -> image (B, C, H, W), `fill` where there is no point."""
    batch, _, channels = features.shape
    flat = features.new_full((batch, channels, size[0] * size[1]), fill)
    flat.scatter_(2, ids[:, None].expand(-1, channels, -1), features.transpose(1, 2))
    return flat.view(batch, channels, *size)


def _uniform_keys(batch: int, count: int, size: Size, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Keys of the rounds (rounds, B, 1); one for each pixel (B, H*W) where sides are too short to mix."""
    device = generator.device
    if not _mixes(size):
        return (torch.rand(batch, size[0] * size[1], device=device, generator=generator),)
    return (torch.randint(0, _HASH_BITS, (_FEISTEL_ROUNDS, batch, 1), device=device, generator=generator),)


def _mixes(size: Size) -> bool:
    return min(size) >= _FEISTEL_MIN_SIDE


def _place_uniform(random: tuple[Tensor, ...], count: int, size: Size) -> Tensor:
    """The first pixels of a keyed permutation. Sides too short for it to mix fall back to sorting random keys."""
    (keys,) = random
    if not _mixes(size):
        return keys.argsort(dim=1)[:, :count]
    return permuted_pixels(keys, count, size)


def _stratified_places(batch: int, count: int, size: Size, generator: torch.Generator) -> tuple[Tensor, ...]:
    """(B, L): a place within each run."""
    return (torch.rand(batch, count, device=generator.device, generator=generator),)


def _place_stratified(random: tuple[Tensor, ...], count: int, size: Size) -> Tensor:
    """One pixel from each of `count` runs of an order that visits the image patch by patch."""
    (place,) = random
    return _patch_by_patch(_one_of_each_run(place, count, size[0] * size[1]), count, size)


def _one_of_each_run(place: Tensor, count: int, length: Tensor | int) -> Tensor:
    """The places (B, count), at parts `place` (B, count) of `count` equal runs of orders of lengths (B, 1), or one."""
    bounds = torch.arange(count + 1, device=place.device) * length // count
    length = bounds.diff()
    return bounds[..., :-1] + torch.minimum((place * length).long(), length - 1)


def _patch_by_patch(place: Tensor, count: int, size: Size) -> Tensor:
    """The pixels at places of an order that visits `count` square patches one by one, where they fit the image."""
    height, width = size
    side = max(1, round((height * width / count) ** 0.5))
    if height % side or width % side:
        side = 1
    patch, inside = place // (side * side), place % (side * side)
    patches_wide = width // side
    row = (patch // patches_wide) * side + inside // side
    column = (patch % patches_wide) * side + inside % side
    return row * width + column


def _first_valid(order: Callable[[int], Tensor], valid: Tensor, count: int) -> Tensor:
    """The first `count` valid pixels of each image's order, whose first pixels `order` returns; valid: (B, H*W).

    On a CPU O(count) where a fixed part of the pixels is valid: twice as many are tried until they suffice. Elsewhere
    all are tried at once, as looking whether they suffice would wait for the device.
    """
    pixels = valid.shape[1]
    tried = min(2 * count, pixels) if valid.device.type == "cpu" else pixels
    while True:
        pixel = order(tried)
        known = valid.gather(1, pixel)
        if tried == pixels or int(known.sum(dim=1).min()) >= count:
            ranks = torch.arange(count, device=valid.device).expand(len(valid), -1)
            return _in_order(pixel, known, ranks)
        tried = min(2 * tried, pixels)


def _in_order(order: Tensor, known: Tensor, ranks: Tensor) -> Tensor:
    """The pixels that have `ranks` (B, L) among the known ones of an order (B, N); known: (B, N) of them."""
    place = torch.searchsorted(known.long().cumsum(dim=1), ranks.contiguous() + 1)
    return order.gather(1, place.clamp(max=order.shape[1] - 1))


def _halton_shifts(batch: int, count: int, size: Size, generator: torch.Generator) -> tuple[Tensor, ...]:
    """(B, 1, 2): shifts of the sequence; (B, H*W): the order of the pixels that it does not visit. float64."""
    shapes = ((batch, 1, 2), (batch, size[0] * size[1]))
    options = {"device": generator.device, "generator": generator, "dtype": torch.float64}
    return tuple(torch.rand(shape, **options) for shape in shapes)  # type: ignore[call-overload]


def _place_halton(random: tuple[Tensor, ...], count: int, size: Size, valid: Tensor | None = None) -> Tensor:
    """The pixels that a shifted Halton sequence (bases 2 and 3) visits first; unvisited ones last, in random order."""
    (shift, unvisited), (height, width) = random, size
    batch, device = shift.shape[0], shift.device
    visits = 2 * count + 64
    sequence = torch.stack([_radical_inverse(visits, base, device) for base in (2, 3)], dim=-1)
    place = (sequence + shift) % 1.0
    row = (place[..., 0] * height).long().clamp_(max=height - 1)
    column = (place[..., 1] * width).long().clamp_(max=width - 1)
    never = unvisited + visits
    when = torch.arange(visits, device=device, dtype=never.dtype).expand(batch, -1)
    first_visit = never.scatter_reduce(1, row * width + column, when, "amin")
    if valid is not None:
        first_visit = first_visit.masked_fill(~valid, torch.inf)
    return first_visit.topk(count, dim=1, largest=False).indices


def _make_radical_inverse(n: int, base: int, device: torch.device) -> Tensor:
    index = torch.arange(1, n + 1, device=device)
    value = torch.zeros(n, dtype=torch.float64, device=device)
    factor = 1.0
    while factor > 1 / (n * base):
        factor /= base
        value += factor * (index % base)
        index = index // base
    return value


_stored_radical_inverse = lru_cache(maxsize=16)(torch.inference_mode(False)(_make_radical_inverse))


def _radical_inverse(n: int, base: int, device: torch.device) -> Tensor:
    """The first n terms of the van der Corput sequence in `base`, float64; on a CPU stored."""
    stored = device.type == "cpu" and not torch.compiler.is_compiling()
    return (_stored_radical_inverse if stored else _make_radical_inverse)(n, base, device)
