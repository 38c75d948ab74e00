"""The spectral convolution against direct sums and functions known in closed form, and the dual convolution."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from infdiff.nn.spectral_conv import ALGORITHMS, DualConv, SpectralConv2d, spectral_conv

EVERY = pytest.mark.parametrize("algorithm", ALGORITHMS)
SIZES = [(32, 32), (48, 48), (80, 80), (96, 96), (160, 160), (33, 50), (31, 97)]


def random_weight(modes, channels=2, out=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2 * modes - 1, modes, channels, out, 2, generator=generator, dtype=dtype)


def random_grid(size, channels=2, dtype=torch.float64):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(7), dtype=dtype)


def waves(n, frequencies):
    """(K, n): exp(2 pi i k c) at the cells' centres."""
    return np.exp(2j * np.pi * np.asarray(frequencies)[:, None] * (np.arange(n) + 0.5) / n)


def direct(x, weight, size):
    """The definition, mode by mode: analysis by a sum over all cells, a complex product, synthesis by a sum."""
    x, (height, width) = x.numpy(), x.shape[2:]
    weight = weight.numpy()[..., 0] + 1j * weight.numpy()[..., 1]
    modes = weight.shape[1]
    out = np.zeros((x.shape[0], weight.shape[3], *size))
    for row in range(-(modes - 1), modes):
        for column in range(modes):
            if 2 * abs(row) >= min(height, size[0]) or 2 * column >= min(width, size[1]):
                continue
            down, across = waves(height, [row])[0], waves(width, [column])[0]
            coefficient = np.einsum("bchw,h,w->bc", x, down.conj(), across.conj()) / (height * width)
            product = coefficient @ weight[row + modes - 1, column]
            wave = np.multiply.outer(waves(size[0], [row])[0], waves(size[1], [column])[0])
            # The mode (-row, -column) of a real function is the conjugate one: together twice the real part.
            out += (2 if column else 1) * np.multiply.outer(product, wave).real
    return torch.from_numpy(out)


class Series:
    """A real function on the unit square with chosen coefficients, and what the convolution makes of it."""

    def __init__(self, rows, columns, weight, channels=2):
        random = np.random.default_rng(3)
        self.rows, self.columns = np.arange(-rows, rows + 1), np.arange(columns + 1)
        shape = (2, channels, 2 * rows + 1, columns + 1)
        self.before = random.standard_normal(shape) + 1j * random.standard_normal(shape)
        # Column 0 holds each pair k, -k twice: conjugates, as the function is real.
        self.before[..., 0] = (self.before[..., 0] + self.before[:, :, ::-1, 0].conj()) / 2
        middle = weight.shape[0] // 2
        weight = weight.double().numpy()
        weight = (weight[..., 0] + 1j * weight[..., 1])[middle - rows : middle + rows + 1, : columns + 1]
        self.after = np.einsum("bcrm,rmcd->bdrm", self.before, weight)

    def sample(self, coefficients, size):
        down, across = waves(size[0], self.rows), waves(size[1], self.columns)
        twice = np.where(self.columns > 0, 2, 1)
        return torch.from_numpy(np.einsum("bcrm,rh,mw->bchw", coefficients * twice, down, across).real)


@EVERY
@pytest.mark.parametrize("size", [(12, 12), (9, 14), (8, 8), (7, 5), (2, 6), (1, 1), (1, 9), (6, 1)])
def test_it_is_the_definition_summed_directly(size, algorithm):
    x, weight = random_grid(size), random_weight(4)
    out = spectral_conv(x, weight, None, algorithm)
    torch.testing.assert_close(out, direct(x, weight, size), rtol=0, atol=1e-12)


@EVERY
@pytest.mark.parametrize("size", [(9, 14), (20, 11), (4, 4), (3, 30)])
def test_the_result_can_be_read_on_another_grid(size, algorithm):
    x, weight = random_grid((10, 9)), random_weight(4)
    out = spectral_conv(x, weight, size, algorithm)
    torch.testing.assert_close(out, direct(x, weight, size), rtol=0, atol=1e-12)


@EVERY
@pytest.mark.parametrize("size", SIZES)
def test_a_band_limited_function_gives_the_same_function_at_every_size(size, algorithm):
    weight = random_weight(16, dtype=torch.float32) / 30
    series = Series(15, 15, weight)
    x = series.sample(series.before, size).float()
    expected = series.sample(series.after, size)
    out = spectral_conv(x, weight, None, algorithm).double()
    torch.testing.assert_close(out / expected.std(), expected / expected.std(), rtol=0, atol=1e-5)


@EVERY
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (11, 24), (64, 64)])
def test_small_grids_use_the_modes_that_they_hold(size, algorithm):
    """A function of frequencies up to 3 is resolved from 7 cells on, however many modes there are weights for."""
    weight = random_weight(16)
    series = Series(3, 3, weight)
    out = spectral_conv(series.sample(series.before, size), weight, None, algorithm)
    torch.testing.assert_close(out, series.sample(series.after, size), rtol=0, atol=1e-11)


@EVERY
def test_the_nyquist_mode_is_left_out(algorithm):
    alternating = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)
    weight = random_weight(16)
    for x in (alternating[:, None].expand(8, 8), alternating.expand(8, 8)):
        out = spectral_conv(x.expand(1, 2, 8, 8), weight, None, algorithm)
        torch.testing.assert_close(out, torch.zeros_like(out), rtol=0, atol=1e-13)


def test_the_inverse_transform_is_given_the_spectrum_of_a_real_function(monkeypatch):
    """What libraries make of another one differs."""
    given = []
    inverse = torch.fft.irfft2

    def record(spectrum, **options):
        given.append(spectrum)
        return inverse(spectrum, **options)

    monkeypatch.setattr(torch.fft, "irfft2", record)
    spectral_conv(random_grid((12, 9)), random_weight(4), None, "fft")
    first = given[0][..., 0]  # rows 0 .. 11; row -k is row 12 - k
    torch.testing.assert_close(first, first.flip(2).roll(1, 2).conj())


@EVERY
@pytest.mark.parametrize("size", [(32, 32), (33, 50)])
def test_shifts_of_the_input_shift_the_output(size, algorithm):
    x, weight = random_grid(size, dtype=torch.float32), random_weight(8, dtype=torch.float32)
    out = spectral_conv(x, weight, None, algorithm)
    shifted = spectral_conv(x.roll((5, -3), (2, 3)), weight, None, algorithm)
    torch.testing.assert_close(shifted, out.roll((5, -3), (2, 3)), rtol=1e-5, atol=1e-5 * out.std().item())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    ("size", "out_size"), [((32, 32), None), ((33, 50), None), ((9, 6), None), ((20, 31), (41, 16))]
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_both_algorithms_agree_with_gradients(dtype, tolerance, size, out_size, memory_format):
    results = []
    for algorithm in ALGORITHMS:
        x = random_grid(size, dtype=dtype).to(memory_format=memory_format).requires_grad_()
        weight = random_weight(8, dtype=dtype).requires_grad_()
        out = spectral_conv(x, weight, out_size, algorithm)
        probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(4), dtype=dtype)
        results.append([out.detach(), *torch.autograd.grad((out * probe).sum(), (x, weight))])
    for one, other in zip(*results, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one / other.std(), other / other.std(), rtol=0, atol=tolerance)


@EVERY
def test_gradients_are_those_of_the_function(algorithm):
    x, weight = random_grid((5, 6)).requires_grad_(), random_weight(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: spectral_conv(x, w, None, algorithm), (x, weight))


@EVERY
def test_autocast_does_not_reach_the_transforms(algorithm):
    x, weight = random_grid((16, 16), dtype=torch.float32), random_weight(4, dtype=torch.float32)
    expected = spectral_conv(x, weight, None, algorithm)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spectral_conv(x, weight, None, algorithm), expected)
        half = spectral_conv(x.bfloat16(), weight, None, algorithm)
    assert half.dtype == torch.bfloat16
    wide = spectral_conv(x.bfloat16().float(), weight, None, algorithm)
    assert torch.equal(half, wide.bfloat16()), "rounded once, at the end"


def test_sampling_first_does_not_spoil_training_later():
    x, weight = random_grid((13, 17)), random_weight(4)
    with torch.inference_mode():
        spectral_conv(x, weight, None, "matrices")
    weight.requires_grad_()
    spectral_conv(x, weight, None, "matrices").sum().backward()
    assert weight.grad.abs().max() > 0


def test_auto_gives_the_same_numbers_where_either_is_faster():
    for size, modes in (((32, 32), 16), ((56, 60), 28)):
        x, weight = random_grid(size), random_weight(modes)
        torch.testing.assert_close(spectral_conv(x, weight), spectral_conv(x, weight, None, "fft"))


def test_bad_arguments_are_refused():
    x, weight = random_grid((8, 8)), random_weight(4)
    with pytest.raises(ValueError, match="unknown algorithm 'fast'"):
        spectral_conv(x, weight, None, "fast")
    for bad in (weight[1:], weight[..., :1], weight[:, :, :1], weight[0]):
        with pytest.raises(ValueError, match="want \\(2 M - 1, M, 2, D, 2\\)"):
            spectral_conv(x, bad)
    with pytest.raises(ValueError, match="modes=0"):
        SpectralConv2d(2, 2, 0)
    with pytest.raises(ValueError, match="kernel_size=4"):
        DualConv(2, 2, kernel_size=4, modes=2)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: SpectralConv2d(32, 48, 4),
        lambda: SpectralConv2d(32, 48, 4, factor_rank=24),
        lambda: DualConv(32, 48, modes=4),
        lambda: DualConv(32, 48, modes=0),
    ],
    ids=["spectral", "factorised", "dual", "taps"],
)
@pytest.mark.parametrize("small", [(7, 7), (7, 1)], ids=["all_modes", "column_frequency_0"])
def test_a_new_layer_keeps_the_variance_of_what_it_resolves(layer, small):
    """White over the modes that the layer has, read on a larger grid; the mean of many draws of the weights."""
    torch.manual_seed(0)
    identity = torch.eye(32)[None, None, :, :, None] * torch.tensor([1.0, 0.0])
    variances = []
    for _ in range(20):
        x = spectral_conv(torch.randn(4, 32, *small), identity.expand(7, 4, -1, -1, -1), (16, 21))
        # Zero padding takes a part of the taps' output at the border, most where columns are alike.
        out = layer()(x)[:, :, 1:-1, 1:-1]
        variances.append(out.var().item() / x[:, :, 1:-1, 1:-1].var().item())
    assert np.mean(variances) == pytest.approx(1.0, rel=0.1)


def test_factors_are_a_factorisation_of_the_weights():
    layer = SpectralConv2d(5, 6, 3, factor_rank=2).double()
    enter, leave = layer.enter.weight[:, :, 0, 0], layer.leave.weight[:, :, 0, 0]  # (2, 5), (6, 2)
    core = layer.weight.view(5, 3, 2, 2, 2)
    full = torch.einsum("rc,kmrsz,ds->kmcdz", enter, core, leave)
    x = random_grid((9, 8), channels=5)
    torch.testing.assert_close(layer(x), spectral_conv(x, full))
    assert sum(p.numel() for p in layer.parameters()) < sum(p.numel() for p in SpectralConv2d(5, 6, 3).parameters())


@pytest.mark.parametrize("factor_rank", [0, 3])
def test_a_silent_layer_can_wake_up(factor_rank):
    layer = DualConv(4, 5, modes=3, factor_rank=factor_rank, gain=0.0)
    out = layer(torch.randn(2, 4, 8, 8))
    assert out.abs().max() == 0
    (out * torch.randn(out.shape)).sum().backward()
    assert layer.spatial.weight.grad.abs().max() > 0
    assert layer.spectral.weight.grad.abs().max() > 0


def test_a_dual_convolution_is_taps_plus_modes():
    layer = DualConv(2, 3, modes=4).double()
    x = random_grid((9, 12))
    taps = F.conv2d(x, layer.spatial.weight, layer.spatial.bias, padding=1)
    weight = layer.spectral.weight.view(7, 4, 2, 3, 2)
    torch.testing.assert_close(layer(x), taps + direct(x, weight.detach(), (9, 12)))
    assert DualConv(2, 3, modes=0).spectral is None


def test_channels_last_memory_and_autocast_change_nothing_but_rounding():
    layer, x = DualConv(4, 4, modes=4), random_grid((12, 10), channels=4, dtype=torch.float32)
    expected = layer(x)
    moved = layer.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.02, atol=0.03)


def test_it_is_traced_whole_for_compilation_at_several_sizes():
    layer = DualConv(3, 4, modes=4, factor_rank=2)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for size in ((12, 10), (7, 9)):
        x = random_grid(size, channels=3, dtype=torch.float32)
        torch.testing.assert_close(compiled(x), layer(x))
