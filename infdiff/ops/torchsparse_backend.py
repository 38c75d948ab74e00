"""TorchSparse 2.1 as a backend: its kernel map serves our depthwise kernel, its own convolution the regular taps.

TorchSparse works on voxels: a pixel (row, column) of image b is the voxel (b, 0, row, column), a k x k window a
(1, k, k) one. It numbers a window's places with the row running fastest, where taps have the column running fastest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from infdiff.coordinates import Size

# The commit that this was written against.
COMMIT = "385f5ce"
# Its set-up imports PyTorch, and its sources Google's sparse hash.
_INSTALL = (
    "pip install --no-build-isolation 'infdiff[torchsparse]', with nvcc and the headers of libsparsehash-dev "
    "(docker/torchsparse.Dockerfile has the steps)"
)


def why_missing() -> str | None:
    """Return one sentence that says why TorchSparse cannot be used, or None when it can."""
    try:
        version("torchsparse")
        import_module("torchsparse.backend")
    except (ModuleNotFoundError, PackageNotFoundError) as problem:
        return f"TorchSparse is not installed ({problem}): {_INSTALL}"
    except Exception as problem:  # built for another PyTorch or CUDA; or it asks for the device, and there is none
        if torch.cuda.is_available():
            return f"TorchSparse does not load ({_first_line(problem)}): build it for this PyTorch, {_INSTALL}"
    if not torch.cuda.is_available():
        return "TorchSparse needs a CUDA device, and PyTorch sees none"
    return None


@dataclass(frozen=True)
class Voxels:
    """A set of points as TorchSparse stores it. Reuse one for all calls with the same points: it caches its maps.

    tables: neighbour tables by kernel size, as far as they were asked for.
    """

    coordinates: Tensor  # (B * L, 4) int32: image, 0, row, column
    caches: Any
    tables: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, ids: Tensor, size: Size) -> Voxels:
        """Voxels of points `ids` (B, L) of an image of `size`. Raises RuntimeError where TorchSparse is missing."""
        batch, count = ids.shape
        image = torch.arange(batch, device=ids.device)[:, None].expand(-1, count)
        row, column = torch.div(ids, size[1], rounding_mode="floor"), ids % size[1]
        coordinates = torch.stack([image, torch.zeros_like(ids), row, column], dim=-1).flatten(0, 1).int()
        return cls(coordinates, _sparse_tensor(coordinates[:, :1].float(), coordinates)._caches)


def neighbour_table(voxels: Voxels, kernel_size: int) -> Tensor:
    """(B * L, k * k) int32: each point's neighbour at each tap, as a row of the flattened features, or -1."""
    if kernel_size not in voxels.tables:
        voxels.tables[kernel_size] = _neighbour_table(voxels, kernel_size)
    return voxels.tables[kernel_size]


def _neighbour_table(voxels: Voxels, kernel_size: int) -> Tensor:
    n, k = voxels.coordinates.shape[0], kernel_size
    if k == 1:
        return torch.arange(n, dtype=torch.int32, device=voxels.coordinates.device)[:, None]
    functional = _import("torchsparse.nn.functional")
    maps = functional.build_kernel_map(
        voxels.coordinates,
        n,
        (1, k, k),
        stride=1,
        mode="hashmap_on_the_fly",
        dataflow=functional.Dataflow.ImplicitGEMM,
    )
    # TorchSparse pads the map for its own kernels: only the first n rows are of points.
    table: Tensor = maps["out_in_map"][:n].view(n, k, k).transpose(1, 2).reshape(n, k * k)
    return table.contiguous()


def conv2d(features: Tensor, taps: Tensor, voxels: Voxels) -> Tensor:
    """Regular submanifold convolution by TorchSparse: (B, L, C), taps (O, C, k, k) -> (B, L, O), not normalised."""
    outputs, inputs, k, _ = taps.shape
    if k == 1:
        return features @ taps[:, :, 0, 0].mT
    # TorchSparse knows no bfloat16.
    dtype = torch.float32 if features.dtype == torch.bfloat16 else features.dtype
    tensor = _sparse_tensor(features.flatten(0, 1).to(dtype), voxels.coordinates)
    tensor._caches = voxels.caches
    weight = taps.permute(3, 2, 1, 0).reshape(k * k, inputs, outputs).to(dtype)
    # training: also builds the maps of the backward pass, which TorchSparse cannot add later.
    result = _import("torchsparse.nn.functional").conv3d(tensor, weight, kernel_size=(1, k, k), training=True)
    rows: Tensor = result.feats
    return rows.view(*features.shape[:2], outputs).to(features.dtype)


def _sparse_tensor(features: Tensor, coordinates: Tensor) -> Any:
    return _import("torchsparse").SparseTensor(features, coordinates)


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except Exception as problem:
        raise RuntimeError(f"backend 'torchsparse': {why_missing() or _first_line(problem)}") from problem


def _first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0]}"
