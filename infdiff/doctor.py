"""Check this installation: versions, devices, the compiler of CUDA kernels, each operator against its specification.

  python -m infdiff.doctor
  python -m infdiff.doctor --device cpu
  INFDIFF_KERNELS=off python -m infdiff.doctor        # without CUDA kernels, as on a machine that cannot compile them

INFDIFF_KERNELS=off switches the CUDA kernels off. INFDIFF_CACHE=FOLDER chooses where compiled kernels are kept.
The exit code is 0 when every operator is right, 1 when one is not, 2 on bad input.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

try:
    import torch
    from torch import Tensor

    from infdiff import ops
    from infdiff.cli import Parser, choose_device, run
    from infdiff.files import cache_folder
    from infdiff.ops import routing, torchsparse_backend
    from infdiff.ops.gpu import launch, nvrtc
    from infdiff.points import draw_points
except Exception as problem:  # a PyTorch that does not load is the first thing to report
    _BROKEN: Exception | None = problem
else:
    _BROKEN = None

_IMAGE, _GRID, _BATCH, _CHANNELS, _TAPS, _ENLARGED = (24, 20), (12, 10), 2, 16, 7, (2.0, 3.0)
_ALL, _QUARTER, _FEW = 480, 120, 8
# Largest difference that rounding explains, relative to the largest value.
_TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}
_LABEL = 16


def environment() -> str:
    """A line for each thing that the operators depend on. Never raises."""
    probes: list[tuple[str, Callable[[], str]]] = [
        ("infdiff", lambda: f"{version('infdiff')}, in {Path(__file__).parent}"),
        ("Python", lambda: f"{platform.python_version()}, {platform.platform()}"),
        ("PyTorch", lambda: torch.__version__),
        ("built with CUDA", lambda: torch.version.cuda or "none: CPU build"),
        ("CUDA driver", _driver),
        ("devices", _devices),
        ("compiler", lambda: nvrtc.compiler_versions()),
        ("kernel cache", _cache),
        ("CUDA kernels", _kernels),
        ("TorchSparse", lambda: torchsparse_backend.why_missing() or f"found, {version('torchsparse')}"),
    ]
    if _BROKEN is not None:
        broken = f"does not load: {_first_line(_BROKEN)}"
        probes = [*probes[:2], ("PyTorch", lambda: version("torch")), ("infdiff.ops", lambda: broken)]
    return "\n".join(f"{label:<{_LABEL}} {_survive(probe)}" for label, probe in probes)


def _survive(probe: Callable[[], str]) -> str:
    try:
        return probe()
    except Exception as problem:
        return _first_line(problem)


def _first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0]}"


def _driver() -> str:
    number = nvrtc.driver_version()
    return "none" if number is None else f"for CUDA up to {number // 1000}.{number % 1000 // 10}"


def _devices() -> str:
    if not torch.cuda.is_available():
        return "the CPU alone"
    names = []
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        names.append(f"cuda:{i} {torch.cuda.get_device_name(i)}, compute capability {major}.{minor}")
    return f"\n{'':<{_LABEL}} ".join(names)


def _kernels() -> str:
    """Kernels that run, or why not, on each device; one line where all of them are alike."""
    reasons = {i: launch.why_closed(i) for i in range(max(1, torch.cuda.device_count()))}
    said = {i: "run" if why is None else f"do not run: {why}" for i, why in reasons.items()}
    if len(set(said.values())) == 1:
        return said[0]
    return f"\n{'':<{_LABEL}} ".join(f"cuda:{i} {words}" for i, words in said.items())


def _cache() -> str:
    folder = cache_folder()
    # The folder is made when the first kernel is compiled; until then its nearest parent decides.
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            return f"{folder}, can be written to"
    except OSError as problem:
        return f"{folder}, cannot be written to ({problem.strerror}): every program compiles again"


class Check(NamedTuple):
    """An operator on small data: ids (B, L) and inputs in float64, all on the CPU."""

    operator: str
    case: str
    ids: Tensor
    inputs: tuple[Tensor, ...]  # what gradients go to
    call: Callable[..., Any]  # of the operator or its specification, ids and the inputs
    scale: tuple[float, float] = (1.0, 1.0)


def checks() -> Iterator[Check]:
    """All operators, on the same random data every time."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    quarter, few, everywhere = (draw_points(_BATCH, n, _IMAGE, generator) for n in (_QUARTER, _FEW, _ALL))
    some = "a quarter of the pixels"
    exact = torch.float64
    yield Check("lattice_index", some, quarter, (), lambda run, ids: run(ids, _IMAGE))
    yield Check("inverse_count", some, quarter, (), lambda run, ids: run(ids, _IMAGE, _TAPS, (1.0, 1.0), dtype=exact))
    yield Check("nearest_points", some, quarter, (), lambda run, ids: run(ids, _IMAGE, _GRID)[:4])
    places = {some: quarter, f"{_FEW} pixels": few, "all pixels": everywhere}
    settings = [(case, ids, (1.0, 1.0)) for case, ids in places.items()]
    settings += [(f"{case}, enlarged", ids, _ENLARGED) for case, ids in places.items() if ids is not few]
    for operator, inputs_of_a_tap in (("sparse_depthwise_conv2d", 1), ("sparse_conv2d", _CHANNELS)):
        for case, ids, scale in settings:
            inputs = normal(*ids.shape, _CHANNELS), normal(_CHANNELS, inputs_of_a_tap, _TAPS, _TAPS)

            def convolve(run: Callable[..., Any], ids: Tensor, f: Tensor, t: Tensor, scale: Any = scale) -> Any:
                return run(f, t, ops.Points.of(ids, _IMAGE, _TAPS, scale))

            yield Check(operator, case, ids, inputs, convolve, scale)
    features, grid, taps = normal(*quarter.shape, _CHANNELS), normal(_BATCH, _CHANNELS, *_GRID), normal(1, _TAPS, _TAPS)

    def to_grid(run: Callable[..., Any], ids: Tensor, f: Tensor) -> Any:
        return run(f, ops.nearest_points_ref(ids, _IMAGE, _GRID))

    yield Check("points_to_grid", some, quarter, (features,), to_grid)
    yield Check("grid_to_points", some, quarter, (grid,), lambda run, ids, g: run(g, ids, _IMAGE))
    yield Check("resize_kernel", "enlarged", quarter, (taps,), lambda run, ids, t: run(t, _ENLARGED))


def routes(device: torch.device) -> str:
    """The route that each operator takes on a device, and why, one line each."""

    def route(check: Check) -> str:
        tensor = (check.inputs[0].float() if check.inputs else check.ids).to(device)
        name, why = routing.route_of(check.operator, tensor, _IMAGE, _TAPS, check.scale)
        return f"{name:<14}{why}"

    return "\n".join(f"{c.operator:<25}{c.case:<35}{_survive(partial(route, c))}" for c in checks())


def verdicts(device: torch.device) -> tuple[str, bool]:
    """Each operator run once in each type, forward and backward, as lines of text; and whether all are right."""
    types = ("float32", "bfloat16") if device.type == "cuda" else ("float32",)
    lines, right = [f"{'':<70}forward   backward"], True
    for check in checks():
        for dtype in types if check.inputs else types[:1]:
            try:
                found = differences(check, getattr(torch, dtype), device)
            except Exception as problem:
                numbers, fine, said = "", False, f"raised {_first_line(problem)}"
            else:
                fine = all(difference <= _TOLERANCES[dtype] for difference in found)
                numbers, said = "".join(f"{d:<10.1e}" for d in found), "ok" if fine else "WRONG"
            right &= fine
            kind = dtype if check.inputs else ""
            lines.append(f"{check.operator:<25}{check.case:<35}{kind:<10}{numbers:<20}{said}")
    return "\n".join(lines), right


def differences(check: Check, dtype: torch.dtype, device: torch.device) -> list[float]:
    """Largest difference over largest value, of results and, if there are any, of gradients. NaN where a value is."""
    inputs = [x.to(dtype) for x in check.inputs]
    exact = _results(check, getattr(ops, f"{check.operator}_ref"), check.ids, [x.double() for x in inputs], dtype)
    cudnn = torch.backends.cudnn
    # Rounding to TF32 would hide the differences that count.
    with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
        here = check.ids.to(device), [x.to(device) for x in inputs]
        actual = _results(check, getattr(ops, check.operator), *here, dtype)
    return [_difference(a, e) for a, e in zip(actual, exact, strict=True) if e]


def _results(
    check: Check, run: Callable[..., Any], ids: Tensor, inputs: Sequence[Tensor], dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor]]:
    """Results and gradients, float64 on the CPU. The gradient to the result is rounded to `dtype`."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = check.call(run, ids, *leaves)
    outs, gradients = [out] if isinstance(out, Tensor) else list(out), []
    if leaves:
        direction = torch.arange(out.numel(), dtype=torch.float64).sin().view(out.shape).to(dtype)
        gradients = list(torch.autograd.grad(out, leaves, direction.to(out)))
    return [t.detach().double().cpu() for t in outs], [t.double().cpu() for t in gradients]


def _difference(actual: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    for a, e in zip(actual, exact, strict=True):
        if a.shape != e.shape:
            raise ValueError(f"shape {tuple(a.shape)}, want {tuple(e.shape)}")
    parts = [(a - e).abs().max() / e.abs().max().clamp(min=1e-30) for a, e in zip(actual, exact, strict=True)]
    return float(torch.stack(parts).max())


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Report on this installation and exit: 0 when every operator is right, 1 when not, 2 on bad input."""
    if _BROKEN is not None:
        sys.stdout.write(f"{environment()}\n")
        sys.exit(1)
    run(partial(_report, arguments, prog))


def _report(arguments: Sequence[str] | None, prog: str | None) -> None:
    parser = Parser(__doc__, prog or "python -m infdiff.doctor")
    parser.add_device()
    device = choose_device(parser.parse_args(arguments).device)
    sys.stdout.write(f"{environment()}\n\nOperators on {device}: the route each one takes, and why\n{routes(device)}\n")
    sys.stdout.flush()
    text, right = verdicts(device)
    sys.stdout.write(
        f"\nOperators on {device}: largest difference from the specification in float64, relative\n{text}\n"
    )
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
