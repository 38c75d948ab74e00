"""Convolution of complete images in our kernels: all algorithms agree, with all that is done on the way."""

import pytest
import torch

from infdiff.ops.dense_conv2d import dense_conv2d
from infdiff.ops.dense_kernels import KERNEL_ALGORITHMS, choose_kernel_algorithm, dense_conv2d_kernels
from infdiff.ops.gpu import enlarged, launch
from tests.ops.test_dense_conv2d import SCALES, image_of, written_out


def algorithms_for(scale, kernel_size=5):
    """The algorithms that can serve 8 channels."""
    names = ["direct", "tents"]
    if all(s.is_integer() for s in scale):
        steps = int(scale[0]), int(scale[1])
        names.append("dilated")
        if enlarged.tile_of(8, (kernel_size, kernel_size), steps, torch.device("cpu")):
            names.append("fused")
    return names


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [(12, 14), (1, 1), (3, 40)])
def test_algorithms_agree(scale, size, emulated, generator):
    image = image_of(size, 8, generator)
    taps = torch.randn(8, 1, 5, 5, dtype=torch.float64, generator=generator)
    expected = written_out(image, taps, scale)
    for algorithm in algorithms_for(scale):
        actual = dense_conv2d_kernels(image.float(), taps.float(), scale, algorithm)
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max(), algorithm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (5.0, 5.0), (1.5, 3.0)])
def test_factors_bias_rows_and_the_adjoint(scale, dtype, emulated, generator):
    image = image_of((22, 13), 8, generator).to(dtype)
    taps = torch.randn(8, 1, 5, 5, generator=generator).to(dtype)
    factors, bias = torch.rand(22, 13, 1, generator=generator), torch.randn(8, generator=generator)
    wide, wide_taps = image.double(), taps.double()
    forward = dense_conv2d(wide, wide_taps, scale) * factors.double() + bias.double()
    adjoint = dense_conv2d(wide * factors.double(), wide_taps.flip(-1, -2), scale)
    plain = dense_conv2d(wide, wide_taps, scale)
    # A rounding of the type, and of taps that are resized to it.
    most = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2}[dtype]
    for algorithm in algorithms_for(scale):
        part = slice(5, 19)
        found = {
            "forward": dense_conv2d_kernels(image, taps, scale, algorithm, factors=factors, bias=bias),
            "rows": dense_conv2d_kernels(image, taps, scale, algorithm, rows=(5, 19), factors=factors[part], bias=bias),
            "plain rows": dense_conv2d_kernels(image, taps, scale, algorithm, rows=(5, 19)),
            "adjoint": dense_conv2d_kernels(image, taps, scale, algorithm, factors=factors, adjoint=True),
        }
        wanted = {"forward": forward, "rows": forward[:, part], "plain rows": plain[:, part], "adjoint": adjoint}
        for name, actual in found.items():
            assert actual.dtype == dtype
            assert actual.shape == wanted[name].shape
            assert (actual - wanted[name]).abs().max() <= most * wanted[name].abs().max(), (algorithm, name)


def test_the_cheapest_algorithm(monkeypatch):
    taps = torch.zeros(8, 1, 7, 7)

    def chosen(*scale, taps=taps):
        return choose_kernel_algorithm(taps, scale)

    assert chosen(1.0, 1.0) == chosen(2.0, 2.0) == chosen(4.0, 8.0) == chosen(1.0, 4.0) == "fused"
    assert chosen(1.5, 1.0) == chosen(1.0, 1.0, taps=taps[:3]) == chosen(2.0, 2.0, taps=taps[:3]) == "direct"
    assert chosen(64.0, 64.0) == chosen(4.0, 4.0, taps=taps[:3]) == "dilated"
    assert chosen(4.0, 8.5) == "tents"
    assert {chosen(*scale) for scale in SCALES} <= set(KERNEL_ALGORITHMS)
    # Of a device whose blocks have less memory, rows of a large kernel do not fit.
    monkeypatch.setattr(launch, "shared_memory", lambda device: 99 * 1024)
    assert chosen(4.0, 4.0) == "fused"
    assert chosen(8.0, 8.0) == "dilated"
