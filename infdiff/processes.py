"""This process among all that torchrun started, and what they do together.

A program that runs alone is the only process: every function here then returns what it is given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from infdiff.errors import ProcessGoneError, UserError, first_line

T = TypeVar("T")

_apart = False

# The first process validates, samples previews and writes checkpoints while the others wait for it.
_PATIENCE = timedelta(hours=2)
# All processes are started at about the same time.
_ARRIVAL = timedelta(minutes=10)
_ANSWER, _AGAIN = timedelta(seconds=5), 0.1  # seconds
_ADDRESS = "infdiff/port"


@dataclass(frozen=True)
class Place:
    """Place of this process among all, as set by torchrun. local: among those of this machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> Place:
        """Return the place of this process."""
        names = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
        return cls(*(int(os.environ.get(name, default)) for name, default in names))

    @property
    def first(self) -> bool:
        """True for the process that speaks and writes for all."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return every `count`-th of the items, from the rank's own on."""
        return items[self.rank :: self.count]


ALONE = Place()


def select_gpu() -> None:
    """Make the GPU of this process's number the current one, where there are several processes."""
    place = Place.here()
    if place.count > 1 and torch.cuda.is_available():
        torch.cuda.set_device(place.local % torch.cuda.device_count())


def require_one_process(program: str) -> None:
    """Raise UserError under torchrun with several processes, which would all do the same."""
    if Place.here().count > 1:
        raise UserError(f"{program} works in one process: call it without torchrun")


@contextmanager
def together(
    device: torch.device,
    work: str = "training",
    remedy: str = "torchrun --max-restarts 3 starts all of them again from the last checkpoint",
) -> Iterator[Place]:
    """Within the block, all processes do one piece of work; a program that runs alone is left alone.

    Raises ProcessGoneError in the others when one of them is gone. work, remedy: for its message.
    """
    place = Place.here()
    if place.count == 1:
        yield place
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = _store_of_attempt(place)
    own = {} if store is None else {"store": store, "rank": place.rank, "world_size": place.count}
    distributed.init_process_group(backend, timeout=_PATIENCE, **own)
    try:
        yield place
    except RuntimeError as error:
        if not _is_of_the_network(error):
            raise
        raise ProcessGoneError(f"another process of this {work} is gone ({first_line(error)}); {remedy}") from error
    finally:
        distributed.destroy_process_group()


def _store_of_attempt(place: Place) -> Any:
    """Return a store of this attempt's own, where processes find each other; None where each attempt has one anyway.

    torchrun keeps one store for all its attempts. In it stay addresses of processes that are gone, and those that are
    started again would try them.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    open_store: Any = distributed.TCPStore  # type: ignore[attr-defined]
    shared = open_store(address, port, is_master=False, timeout=_ARRIVAL)
    if place.first:
        own = open_store(address, 0, place.count, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
        shared.set(_ADDRESS, str(own.port))
        return own
    end = time.monotonic() + _ARRIVAL.total_seconds()
    while True:
        port = int(shared.get(_ADDRESS))
        try:
            own = open_store(address, port, place.count, is_master=False, wait_for_workers=False, timeout=_ANSWER)
        except distributed.DistError:  # of an earlier attempt
            if time.monotonic() > end:
                raise
            time.sleep(_AGAIN)
        else:
            own.set_timeout(_PATIENCE)
            return own


def _is_of_the_network(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()


@contextmanager
def apart() -> Iterator[None]:
    """Within the block, this process works by itself: batches are its own, and no other takes part."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


def joined() -> Place:
    """The place among processes that work together; the only one outside of `together`, and within `apart`."""
    if _apart or not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Place(distributed.get_rank(), distributed.get_world_size(), Place.here().local)


def own_rows(values: Tensor) -> Tensor:
    """The rows of this process, of values (B, ...) of the global batch: one of `count` equal parts, by rank."""
    place = joined()
    return values if place.count == 1 else values.chunk(place.count)[place.rank]


def own_range(rows: int) -> range:
    """The numbers of the rows of this process, of those of the global batch."""
    place = joined()
    part = rows // place.count
    return range(place.rank * part, (place.rank + 1) * part)


def global_size(rows: int) -> int:
    """The rows of the global batch, of which this process has `rows`."""
    return rows * joined().count


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance (C,) of rows (B, C) of the global batch, differentiable in each."""
    count = joined().count
    if count == 1:
        return values.mean(dim=0), values.var(dim=0)
    mean: Tensor = _Sum.apply(values.mean(dim=0)) / count  # type: ignore[no-untyped-call]
    squares: Tensor = _Sum.apply((values - mean).square().sum(dim=0))  # type: ignore[no-untyped-call]
    return mean, squares / (global_size(len(values)) - 1)


def total(values: Tensor) -> Tensor:
    """The sum of the tensors of all processes, without a gradient."""
    if joined().count == 1:
        return values
    values = values.detach().clone()
    distributed.all_reduce(values)
    return values


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process runs the block, which may make files, before the others do."""
    first = joined().first
    if not first:
        wait()
    yield
    if first:
        wait()


def bands(rows: int) -> list[range]:
    """The rows of an image in bands, one for each process, by rank; one band where they are too few to share."""
    count = joined().count
    count = count if count <= rows else 1
    return [range(rows * rank // count, rows * (rank + 1) // count) for rank in range(count)]


def exchange(values: Tensor, parts: Sequence[range], dim: int) -> None:
    """Fill in the parts along a dimension that other processes have computed, one each, by rank."""
    for rank, rows in enumerate(parts):
        own = values.narrow(dim, rows.start, len(rows))
        sent = own.contiguous()
        distributed.broadcast(sent, src=rank)
        own.copy_(sent)


def sent(values: Tensor | None, owner: int, device: torch.device) -> Tensor:
    """The tensor of the process of rank `owner`, in every process, on `device`. values: None in the others."""
    shape = [None if values is None else (values.shape, values.dtype)]
    distributed.broadcast_object_list(shape, src=owner)
    assert shape[0] is not None
    size, dtype = shape[0]
    result = torch.empty(size, dtype=dtype, device=device) if values is None else values.contiguous()
    distributed.broadcast(result, src=owner)
    return result


def of_the_first(value: T) -> T:
    """The value of the first process, in every process."""
    if joined().count == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


@contextmanager
def failing_together() -> Iterator[None]:
    """Raise a UserError of one process in every process, at the end of the block, which does not wait for others."""
    if joined().count == 1:
        yield
        return
    failure: str | None = None
    try:
        yield
    except UserError as error:
        failure = str(error)
    failures: list[str | None] = [None] * joined().count
    distributed.all_gather_object(failures, failure)
    if found := [text for text in failures if text is not None]:
        raise UserError(found[0])


def same_everywhere(value: str) -> bool:
    """Return True where the value is the same in every process."""
    count = joined().count
    if count == 1:
        return True
    values: list[str | None] = [None] * count
    distributed.all_gather_object(values, value)
    return len(set(values)) == 1


def wait() -> None:
    """Wait until every process is here."""
    if joined().count > 1:
        distributed.barrier()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:
        return total(values)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        return total(gradients[0])
