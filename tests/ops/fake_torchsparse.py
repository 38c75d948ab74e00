"""A stand-in for TorchSparse 2.1: the few calls that the backend makes, as its sources define them, in plain PyTorch.

Its kernel map lists, for each voxel, the voxel at each place of the window, the first of the three axes running
fastest; the list is padded to a multiple of 128 with -1. Its convolution multiplies by one matrix a place.
"""

import itertools
import sys
from types import ModuleType, SimpleNamespace

import torch


class SparseTensor:
    def __init__(self, feats, coords):
        assert coords.dtype == torch.int32
        assert coords.shape == (feats.shape[0], 4)
        self.feats, self.coords = feats, coords
        self._caches = SimpleNamespace(kmaps={})


def build_kernel_map(coordinates, count, kernel_size, stride, mode, dataflow):
    assert stride == 1
    assert (mode, dataflow) == ("hashmap_on_the_fly", "implicit GEMM")
    known = {tuple(c): i for i, c in enumerate(coordinates.tolist())}
    volume = kernel_size[0] * kernel_size[1] * kernel_size[2]
    table = torch.full((-(-count // 128) * 128, volume), -1, dtype=torch.int32)
    # The last axis runs slowest.
    places = itertools.product(*(range(n) for n in reversed(kernel_size)))
    for number, place in enumerate(places):
        offset = [i - (n - 1) // 2 for i, n in zip(reversed(place), kernel_size, strict=True)]
        for (image, *position), row in known.items():
            there = (image, *(p + o for p, o in zip(position, offset, strict=True)))
            table[row, number] = known.get(there, -1)
    return {"out_in_map": table}


def conv3d(voxels, weight, kernel_size, training):
    assert training
    maps = voxels._caches.kmaps
    if kernel_size not in maps:
        maps[kernel_size] = build_kernel_map(
            voxels.coords, len(voxels.coords), kernel_size, 1, "hashmap_on_the_fly", "implicit GEMM"
        )
    table = maps[kernel_size]["out_in_map"][: len(voxels.coords)].long()
    padded = torch.cat([voxels.feats, voxels.feats.new_zeros(1, voxels.feats.shape[1])])
    result = sum(padded[table[:, i]] @ weight[i] for i in range(weight.shape[0]))
    return SparseTensor(result, voxels.coords)


def install(monkeypatch):
    functional = ModuleType("torchsparse.nn.functional")
    functional.build_kernel_map, functional.conv3d = build_kernel_map, conv3d
    functional.Dataflow = SimpleNamespace(ImplicitGEMM="implicit GEMM")
    package = ModuleType("torchsparse")
    package.SparseTensor = SparseTensor
    for name, module in (("torchsparse", package), ("torchsparse.nn.functional", functional)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "torchsparse.nn", ModuleType("torchsparse.nn"))
