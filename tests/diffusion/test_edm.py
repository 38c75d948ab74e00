"""EDM: preconditioning and the loss weight from their principles, noise and its levels in training."""

import math

import pytest
import torch

from infdiff.diffusion.edm import EDM
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.samplers import heun
from infdiff.diffusion.schedules import sigma_steps

SIGMAS = torch.logspace(-3, 2, 11, dtype=torch.float64)


@pytest.mark.parametrize("options", [{"sigma_data": 0.0}, {"P_std": -1.0}])
def test_bad_standard_deviations_are_refused(options):
    with pytest.raises(ValueError, match="positive standard deviations"):
        EDM(**options)


@pytest.mark.parametrize("sigma_data", [0.5, 0.2])
def test_preconditioning_follows_from_its_principles(sigma_data):
    """EDM appendix B.6: the input has variance 1, c_skip is the best linear estimate, the target has variance 1."""
    skip, out, scale, noise = EDM(sigma_data=sigma_data).preconditioning(SIGMAS)
    total = SIGMAS**2 + sigma_data**2
    one = torch.ones_like(SIGMAS)
    torch.testing.assert_close(scale**2 * total, one)
    torch.testing.assert_close(skip, sigma_data**2 / total)  # covariance of y and x over the variance of x
    remaining = (1 - skip) ** 2 * sigma_data**2 + skip**2 * SIGMAS**2  # variance of y - c_skip x
    torch.testing.assert_close(remaining / out**2, one)
    torch.testing.assert_close((4 * noise).exp(), SIGMAS)


def test_the_loss_weight_makes_errors_of_the_network_count_alike():
    process = EDM(sigma_data=0.3)
    out = process.preconditioning(SIGMAS).c_out
    torch.testing.assert_close(process.loss_weight(SIGMAS) * out**2, torch.ones_like(SIGMAS))


def test_signal_over_noise_is_that_of_states(generator):
    process, sigma = EDM(sigma_data=0.3), torch.tensor([0.1, 2.0])
    clean = 0.3 * torch.randn(2, 1, 200, 200, generator=generator)
    noise = torch.randn(2, 1, 200, 200, generator=generator)
    left = process.state(clean, noise, sigma) - clean
    measured = clean.var(dim=(1, 2, 3)) / left.var(dim=(1, 2, 3))
    torch.testing.assert_close(process.snr(sigma), measured, rtol=0.03, atol=0)


def test_limits_of_the_denoiser(generator):
    x = torch.randn(1, 3, 4, 5, generator=generator, dtype=torch.float64)
    answer = torch.randn(1, 3, 4, 5, generator=generator, dtype=torch.float64)
    inputs = []

    def network(scaled, c_noise):
        inputs.append((scaled, c_noise))
        return answer

    denoise = EDM(sigma_data=0.4).denoiser(network)
    torch.testing.assert_close(denoise(x, 1e-9), x, rtol=0, atol=1e-8)
    torch.testing.assert_close(inputs[-1][0], x / 0.4)
    torch.testing.assert_close(denoise(1e9 * x, 1e9), 0.4 * answer, rtol=0, atol=1e-8)
    torch.testing.assert_close(inputs[-1][0], x)
    torch.testing.assert_close(inputs[-1][1], torch.full((1,), math.log(1e9) / 4, dtype=torch.float64))


def test_each_image_has_its_own_noise_level(generator):
    process, x = EDM(), torch.randn(2, 3, 4, 4, generator=generator)
    sigma = torch.tensor([0.1, 3.0])

    def network(scaled, c_noise):
        return torch.sin(scaled + c_noise.view(-1, 1, 1, 1))

    both = process.denoise(network, x, sigma)
    for i in range(2):
        torch.testing.assert_close(process.denoiser(network)(x[i : i + 1], sigma[i].item()), both[i : i + 1])
    half = process.denoise(lambda scaled, c_noise: network(scaled, c_noise).bfloat16(), x, sigma)
    assert half.dtype == torch.float32


def test_a_perfect_network_on_gaussian_images_gives_samples_of_their_law():
    """The whole chain: preconditioning around F, and Heun's method, for independent pixels of variance sigma_data^2."""
    process = EDM(sigma_data=0.3)
    start = process.noise(500, 3, (8, 8), [torch.Generator().manual_seed(0)])
    out = heun(
        process.denoiser(lambda scaled, c_noise: torch.zeros_like(scaled)), start, sigma_steps(128), noise=lambda: start
    )
    assert out.std().item() == pytest.approx(0.3, rel=0.01)


def test_training_levels_are_log_normal():
    log = EDM(P_mean=-1.0, P_std=0.7).draw_sigma(40_000, torch.Generator().manual_seed(0)).log()
    assert log.mean().item() == pytest.approx(-1.0, abs=0.02)
    assert log.std().item() == pytest.approx(0.7, abs=0.02)
    default = EDM().draw_sigma(40_000, torch.Generator().manual_seed(0)).log()
    assert (default.mean().item(), default.std().item()) == (
        pytest.approx(-1.2, abs=0.03),
        pytest.approx(1.2, abs=0.03),
    )


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (32, 16), (64, 64)])
@pytest.mark.parametrize("mollified", [False, True])
def test_noise_has_variance_1_at_every_size(size, mollified):
    process = EDM(mollifier=Mollifier(1.0, (16, 16)) if mollified else None)
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    noise = process.noise(400, 1, size, generators)
    # Away from the border: reflecting boundaries raise the variance there.
    inner = noise[..., size[0] // 4 : -(size[0] // 4), size[1] // 4 : -(size[1] // 4)]
    assert inner.var().item() == pytest.approx(1.0, rel=0.05)
    neighbours = (inner[..., 1:] * inner[..., :-1]).mean().item()
    # T twice: the correlation of points d base pixels apart is exp(-d^2 / 4).
    expected = math.exp(-((16 / size[1]) ** 2) / 4) if mollified else 0.0
    assert neighbours == pytest.approx(expected, abs=0.06)


def test_images_are_mollified_where_noise_is(generator):
    image = torch.randn(2, 3, 16, 16, generator=generator)
    mollifier = Mollifier(1.0, (16, 16))
    assert torch.equal(EDM(mollifier=mollifier).clean(image), mollifier(image))
    assert torch.equal(EDM().clean(image), image)


def test_an_images_noise_is_its_generators_alone():
    process = EDM()

    def noise(seeds):
        return process.noise(len(seeds), 3, (4, 6), [torch.Generator().manual_seed(seed) for seed in seeds])

    assert torch.equal(noise([5, 6, 7])[1:], noise([6, 7]))
