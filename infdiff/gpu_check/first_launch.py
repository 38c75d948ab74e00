"""Run an operator, forward and backward, in a thread whose first call of CUDA is the launch of a kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from infdiff import ops
from infdiff.ops.gpu import launch
from infdiff.points import draw_points

_SIZE, _GRID, _CHANNELS = (24, 20), (12, 10), 1


def agrees(device: torch.device) -> bool:
    """Return True when threads of their own compute on a device what the specification does on the CPU."""
    ids = draw_points(2, 120, _SIZE, torch.Generator().manual_seed(0))
    features = torch.randn(2, 120, _CHANNELS, generator=torch.Generator().manual_seed(1))
    near = ops.nearest_points_ref(ids, _SIZE, _GRID)
    leaf = features.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(ops.points_to_grid_ref(leaf, near).sum(), leaf)

    there = ids.to(device)
    found_near = ops.nearest_points(there, _SIZE, _GRID)
    leaf = features.to(device).requires_grad_()
    out = ops.points_to_grid(leaf, found_near)
    direction = torch.ones_like(out)
    index = _in_a_new_thread(lambda: ops.lattice_index(there, _SIZE))
    # The backward pass runs in autograd's own thread, where it is the first of CUDA.
    (gradient,) = torch.autograd.grad(out, leaf, direction)
    same = torch.equal(index.cpu(), ops.lattice_index_ref(ids, _SIZE))
    return same and torch.allclose(gradient.cpu(), wanted, rtol=1e-4, atol=1e-5)


def _in_a_new_thread(call: Callable[[], Tensor]) -> Tensor:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


def main() -> None:
    """Exit with 1 and a line when kernels do not run or are wrong."""
    why = launch.why_closed()
    if why is not None:
        sys.exit(f"CUDA kernels do not run: {why}")
    if not agrees(torch.device("cuda", torch.cuda.current_device())):
        sys.exit("a kernel launched from a thread of its own gave a wrong result")
    sys.stdout.write("kernels launched from threads of their own are right\n")


if __name__ == "__main__":
    main()
