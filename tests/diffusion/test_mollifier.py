"""T against scipy, its inverse, and the resolution law."""

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter

from infdiff.diffusion import mollifier as module
from infdiff.diffusion.mollifier import Mollifier


@pytest.fixture
def in_bands(monkeypatch):
    """Images of any size are blurred as those of more than a thousand pixels are: in bands of lines."""
    monkeypatch.setattr(module, "_LARGEST_MATRIX", 0)
    monkeypatch.setattr(module, "_BAND", 5)
    module._bands.cache_clear()
    yield
    module._bands.cache_clear()


@pytest.mark.parametrize("size", [(64, 64), (7, 33), (1, 5), (1, 1), (96, 40), (33, 64)])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.7])
@pytest.mark.parametrize("way", ["matrices", "bands"])
def test_T_is_scipys_gaussian_filter_with_reflecting_boundaries(size, sigma, way, generator, request):
    if way == "bands":
        request.getfixturevalue("in_bands")
    image = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator)
    mollifier = Mollifier(sigma, (32, 32))
    std = mollifier.std(size)
    expected = gaussian_filter(image.numpy(), (0, 0, *std), mode="reflect")
    torch.testing.assert_close(mollifier(image), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_each_axis_scales_by_itself():
    assert Mollifier(1.5, (32, 64)).std((64, 64)) == (3.0, 1.5)


def test_no_width_is_the_identity(generator):
    image = torch.randn(1, 1, 9, 8, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(Mollifier(0.0, (9, 8))(image), image)


def test_T_keeps_single_precision_and_half(generator):
    image = torch.randn(1, 1, 16, 16, generator=generator)
    mollifier = Mollifier(1.0, (16, 16))
    exact = mollifier(image.double())
    torch.testing.assert_close(mollifier(image).double(), exact, rtol=1e-5, atol=1e-6)
    assert mollifier(image.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_bands_and_matrices_agree(sigma, generator, request):
    mollifier = Mollifier(sigma, (16, 24))
    image = torch.randn(2, 3, 32, 24, dtype=torch.float64, generator=generator)

    def results():
        noise = mollifier.noise_pair(2, 1, (16, 12), [torch.Generator().manual_seed(3)])
        return [mollifier(image), mollifier.twice(image), *noise]

    by_matrices = results()
    request.getfixturevalue("in_bands")
    for matrices, bands in zip(by_matrices, results(), strict=True):
        torch.testing.assert_close(matrices, bands, rtol=1e-5, atol=1e-5)
    for matrices, bands in zip(by_matrices[:2], results()[:2], strict=True):
        torch.testing.assert_close(matrices, bands, rtol=1e-12, atol=1e-12)


def test_no_width_is_the_identity_in_bands_too(generator, in_bands):
    image = torch.randn(1, 2, 9, 8, generator=generator)
    blurred = Mollifier(0.0, (9, 8))(image)
    assert torch.equal(blurred, image)
    assert blurred.data_ptr() != image.data_ptr()


def test_bands_of_tensors_without_values_have_shapes(in_bands):
    """Counts of FLOP and memory run on them."""
    assert Mollifier(0.3, (8, 8))(torch.empty(2, 3, 16, 12, device="meta")).shape == (2, 3, 16, 12)


def test_gradients_through_bands_are_T_of_gradients(generator, in_bands):
    """T is symmetric."""
    mollifier = Mollifier(1.3, (16, 24))
    image = torch.randn(2, 3, 16, 24, dtype=torch.float64, generator=generator, requires_grad=True)
    blurred = mollifier(image)
    blurred.square().sum().backward()
    torch.testing.assert_close(image.grad, 2 * mollifier(blurred.detach()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0])
def test_noise_of_large_images_is_drawn_by_planes_and_the_same(seeds, sigma, in_bands, monkeypatch):
    mollifier = Mollifier(sigma, (16, 12))
    at_once = mollifier.noise_pair(2, 3, (16, 12), [torch.Generator().manual_seed(seed) for seed in seeds])[1]
    drawn, pair = [], mollifier.noise_pair
    monkeypatch.setattr(mollifier, "noise_pair", lambda *a, **k: drawn.append(a[:2]) or pair(*a, **k))
    assert torch.equal(
        mollifier.noise(2, 3, (16, 12), [torch.Generator().manual_seed(seed) for seed in seeds]), at_once
    )
    assert drawn == [(1, 1)] * 6


def test_autocast_does_not_round_T(generator):
    image = torch.randn(1, 3, 16, 16, generator=generator)
    mollifier = Mollifier(1.0, (16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        inside = mollifier(image)
    assert torch.equal(inside, mollifier(image))


def test_wiener_inverse_undoes_T_where_the_signal_is_strong():
    # A low mode passes T with gain g close to 1: g / (g^2 + epsilon^2) * g is close to 1.
    size = (64, 64)
    x = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    image = torch.cos(3 * math.pi * x)[:, None] * torch.cos(2 * math.pi * x)
    mollifier = Mollifier(2.0, size)
    back = mollifier.wiener_inverse(mollifier(image), epsilon=0.01)
    torch.testing.assert_close(back, image, rtol=0, atol=2e-4)


def test_wiener_inverse_is_the_formula_on_every_mode(generator):
    size, epsilon = (8, 6), 0.2
    image = torch.randn(*size, dtype=torch.float64, generator=generator)
    mollifier = Mollifier(1.3, size)

    def modes(n):
        k = torch.arange(n, dtype=torch.float64)
        basis = torch.cos(math.pi * k[:, None] * (torch.arange(n, dtype=torch.float64) + 0.5) / n)
        return basis / basis.norm(dim=1, keepdim=True)

    rows, columns = modes(size[0]), modes(size[1])
    # The gain of T on each mode, read off T itself.
    gain = torch.stack(
        [torch.stack([(mollifier(torch.outer(r, c)) * torch.outer(r, c)).sum() for c in columns]) for r in rows]
    )
    spectrum = rows @ image @ columns.mT * gain / (gain**2 + epsilon**2)
    torch.testing.assert_close(mollifier.wiener_inverse(image, epsilon), rows.mT @ spectrum @ columns)


def test_wiener_inverse_stays_bounded():
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    # g / (g^2 + epsilon^2) is at most 1 / (2 epsilon).
    assert Mollifier(3.0, (64, 64)).wiener_inverse(noise, 0.1).norm() <= 5.001 * noise.norm()


def test_wiener_inverse_needs_a_positive_epsilon():
    with pytest.raises(ValueError, match="epsilon"):
        Mollifier(1.0, (8, 8)).wiener_inverse(torch.zeros(1, 1, 8, 8), 0.0)


BASE, SIGMA = 64, 1.0


@pytest.fixture(scope="module", params=[0.5, 1, 2, 4])
def drawn(request):
    """A factor of the base resolution, and T xi there."""
    factor = request.param
    generator, size = torch.Generator().manual_seed(3), (int(BASE * factor),) * 2
    return factor, Mollifier(SIGMA, (BASE, BASE)).noise(int(256 / max(1, factor) ** 1.3) + 8, 3, size, [generator])


def covariance(factor, noise, lag):
    """Mean product of T xi at two places `lag` base pixels apart, away from the border."""
    border, shift = math.ceil(4 * factor), round(lag * factor)
    inner = noise[..., border:-border, border:-border]
    shifted = inner[..., shift:] * inner[..., : inner.shape[-1] - shift]
    return shifted.mean().item()


@pytest.mark.parametrize("lag", [0, 2])
def test_resolution_law_of_mollified_noise(drawn, lag):
    # T xi is the convolution of white noise with a Gaussian: covariance exp(-d^2 / (4 sigma^2)) / (4 pi sigma^2).
    variance = 1 / (4 * math.pi * SIGMA**2)
    expected = variance * math.exp(-(lag**2) / (4 * SIGMA**2))
    assert covariance(*drawn, lag) == pytest.approx(expected, abs=0.02 * variance)


def test_resolution_law_on_each_axis_of_a_non_square_size():
    mollifier = Mollifier(1.0, (32, 32))
    noise = mollifier.noise(400, 3, (32, 96), [torch.Generator().manual_seed(0)])
    inner = noise[..., 5:-5, 15:-15]
    variance = 1 / (4 * math.pi)
    assert inner.var().item() == pytest.approx(variance, rel=0.02)
    down = (inner[..., 2:, :] * inner[..., :-2, :]).mean().item()
    across = (inner[..., 6:] * inner[..., :-6]).mean().item()
    assert down == pytest.approx(variance * math.exp(-1), abs=0.02 * variance)
    assert across == pytest.approx(variance * math.exp(-1), abs=0.02 * variance)


def test_noise_of_an_image_is_its_generators_alone():
    mollifier = Mollifier(1.0, (16, 16))
    alone = mollifier.noise(1, 3, (16, 16), [torch.Generator().manual_seed(5)])
    pair = mollifier.noise(2, 3, (16, 16), [torch.Generator().manual_seed(s) for s in (4, 5)])
    torch.testing.assert_close(pair[1:], alone, rtol=0, atol=1e-6)


def test_pair_of_noises_belongs_together(generator):
    white, mollified = Mollifier(1.0, (32, 32)).noise_pair(1, 1, (32, 32), [generator])
    torch.testing.assert_close(Mollifier(1.0, (32, 32))(white), mollified)
