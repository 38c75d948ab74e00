"""Marginals and targets of the mollified process."""

import pytest
import torch

from infdiff.diffusion.mollified import TARGETS, MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier

SIZE = (16, 16)


def make(target="v", sigma=1.0, **options):
    return MollifiedDiffusion(Mollifier(sigma, SIZE), target=target, data_std=0.7, **options)


def test_state_has_the_marginals_of_equation_9(generator):
    process = make()
    image = torch.full((4000, 1, *SIZE), 0.3)
    t = torch.full((4000,), 400)
    noise = process.mollifier.noise(4000, 1, SIZE, [generator])
    state = process.state(process.mollifier(image), noise, t)
    bar = process.alpha_bar[400].item()
    inner = state[..., 5:-5, 5:-5]
    assert inner.mean().item() == pytest.approx(0.3 * bar**0.5, abs=2e-3)
    assert inner.var().item() == pytest.approx((1 - bar) * process.noise_std**2, rel=0.02)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("t", [1, 300, 700])
def test_the_exact_target_gives_back_the_mollified_image(target, t, generator):
    process = make(target)
    image = torch.rand(2, 3, *SIZE, generator=generator) * 2 - 1
    white, noise = process.mollifier.noise_pair(2, 3, SIZE, [generator])
    mollified = process.mollifier(image)
    times = torch.full((2,), t)
    state = process.state(mollified, noise, times)
    output = process.training_target(image, white, mollified, noise, times)
    torch.testing.assert_close(process.mollified_image(output, state, times), mollified, rtol=1e-3, atol=1e-3)


def test_unit_variance_of_input_and_v_target(generator):
    process = make("v")
    image = process.data_std * torch.randn(3000, 1, *SIZE, generator=generator)
    noise = process.mollifier.noise(3000, 1, SIZE, [generator])
    for t in (10, 500, 990):
        times = torch.full((3000,), t)
        inner = (..., slice(5, -5), slice(5, -5))
        state = process.network_input(process.state(image, noise, times), times)[inner]
        target = process.training_target(image, noise, image, noise, times)[inner]
        assert state.var().item() == pytest.approx(1, rel=0.03)
        assert target.var().item() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("target", TARGETS)
def test_an_unscaled_input_is_the_state_and_what_is_predicted_stays(target, generator):
    """A network that is told T x_0 predicts the target; the state that it sees is x_t itself, or that over its std."""
    image = torch.rand(2, 3, *SIZE, generator=generator) * 2 - 1
    for scaled in (True, False):
        process = make(target, scaled_input=scaled)
        mollified = process.mollifier(image)
        white, noise = process.mollifier.noise_pair(2, 3, SIZE, [generator])
        times = torch.full((2,), 400)
        state, seen = process.state(mollified, noise, times), []

        def network(x, t, process=process, white=white, noise=noise, seen=seen, mollified=mollified):
            seen.append(x)
            return process.training_target(image, white, mollified, noise, t)

        torch.testing.assert_close(process.denoiser(network)(state, 400), mollified, rtol=1e-3, atol=1e-3)
        bar = process.alpha_bar[400].item()
        std = (bar * 0.7**2 + (1 - bar) * process.noise_std**2) ** 0.5 if scaled else 1.0
        torch.testing.assert_close(seen[0], state / std)


def test_signal_over_noise_is_that_of_states(generator):
    process = make()
    image = process.data_std * torch.randn(3000, 1, *SIZE, generator=generator)
    noise = process.noise(3000, 1, SIZE, [generator])
    for t in (10, 500, 900):
        times = torch.full((3000,), t)
        signal = process.state(image, torch.zeros_like(noise), times)[..., 5:-5, 5:-5].var()
        rest = process.state(torch.zeros_like(image), noise, times)[..., 5:-5, 5:-5].var()
        assert process.snr(times[:1]).item() == pytest.approx((signal / rest).item(), rel=0.04)


def test_v_at_the_ends_is_the_noise_and_the_image(generator):
    process = make("v")
    image, noise = torch.randn(1, 1, *SIZE, generator=generator), torch.randn(1, 1, *SIZE, generator=generator)
    start = process.training_target(image, noise, image, noise, torch.tensor([0]))
    torch.testing.assert_close(start, noise / process.noise_std)
    end = process.training_target(image, noise, image, noise, torch.tensor([1000]))
    # alpha-bar is 2e-9 there: 1e-4 of the noise, at most 4 / 0.28, is left.
    torch.testing.assert_close(end, -image / process.data_std, rtol=0, atol=3e-3)


def test_estimates_are_clipped_to_the_range_of_images():
    process = make("image", sigma=0.0)
    denoise = process.denoiser(lambda x, t: torch.full_like(x, 9.0))
    assert denoise(torch.zeros(1, 1, *SIZE), 500).max() == 1
    assert process.denoiser(lambda x, t: torch.full_like(x, 9.0), clip=False)(torch.zeros(1, 1, *SIZE), 500).max() > 8


def test_the_last_estimate_is_sharp_and_all_others_are_mollified(generator):
    """An exact network with a second output: at `sharp_at` the denoiser returns x_0, elsewhere T x_0."""
    process = make()
    image = torch.rand(2, 3, *SIZE, generator=generator) * 2 - 1
    mollified, noise = process.mollifier(image), process.mollifier.noise(2, 3, SIZE, [generator])

    def network(x, t):
        target = process.training_target(image, noise, mollified, noise, t)
        return torch.cat([target, process.sharp_target(image, mollified)], dim=1)

    denoise = process.denoiser(network, sharp_at=40)
    for t, expected in ((40, image), (41, mollified), (39, mollified)):
        state = process.state(mollified, noise, torch.full((2,), t))
        torch.testing.assert_close(denoise(state, t), expected, rtol=1e-3, atol=1e-3)


def test_a_network_that_predicts_the_image_is_sharp_by_itself(generator):
    process = make("image")
    image = torch.rand(1, 3, *SIZE, generator=generator) * 2 - 1
    denoise = process.denoiser(lambda x, t: image, sharp_at=7)
    assert torch.equal(denoise(torch.zeros_like(image), 7), image)
    torch.testing.assert_close(denoise(torch.zeros_like(image), 8), process.mollifier(image))


def test_detail_weighs_as_much_as_there_is_signal():
    process = make()
    weight = process.sharp_weight(torch.tensor([1, 400, 1000]))
    snr = process.snr(torch.tensor([1, 400, 1000]))
    torch.testing.assert_close(weight, snr / (1 + snr))
    assert weight[0] > 0.99
    assert weight[2] < 1e-6


def test_unknown_targets_are_named():
    with pytest.raises(ValueError, match="velocity"):
        make("velocity")


def test_estimates_are_clipped_to_the_limits_of_their_channels():
    images = torch.tensor([-9.0, 9.0]).repeat(2, 1).view(1, 2, 1, 2)
    plain = MollifiedDiffusion(Mollifier(1.0, (8, 8)), target="image")
    assert plain.clipped(images).flatten().tolist() == [-1, 1, -1, 1]
    both = MollifiedDiffusion(Mollifier(1.0, (8, 8)), target="image", limits=[(-2, 3)])
    assert both.clipped(images).flatten().tolist() == [-2, 3, -2, 3]
    each = MollifiedDiffusion(Mollifier(1.0, (8, 8)), target="image", limits=[(-2, 3), (0, 5)])
    assert each.clipped(images).flatten().tolist() == [-2, 3, 0, 5]
    estimate = each.denoiser(lambda x, t: 100 * torch.ones_like(x), sharp_at=1)(images, 1)
    assert estimate[0, :, 0, 0].tolist() == [3, 5]
