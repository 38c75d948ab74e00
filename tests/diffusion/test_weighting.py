"""Loss weights: what they make of an error of the image, for every target."""

import pytest
import torch

from infdiff.diffusion.edm import EDM
from infdiff.diffusion.mollified import TARGETS, MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.weighting import WEIGHTINGS, min_snr, uniform

SNR = torch.logspace(-6, 6, 25, dtype=torch.float64)


def test_uniform_is_one_at_all_times():
    assert torch.equal(uniform(SNR), torch.ones_like(SNR))


@pytest.mark.parametrize(
    ("target", "published"),
    [
        ("image", SNR.clamp(max=5)),
        ("noise", (5 / SNR).clamp(max=1)),
        ("mollified_noise", (5 / SNR).clamp(max=1)),
        ("v", SNR.clamp(max=5) / (SNR + 1)),
    ],
)
def test_min_snr_is_the_published_weight(target, published):
    torch.testing.assert_close(min_snr(target)(SNR), published)
    torch.testing.assert_close(
        min_snr(target, gamma=1e9)(SNR) / min_snr("image", gamma=1e9)(SNR), min_snr(target)(SNR) / min_snr("image")(SNR)
    )


@pytest.mark.parametrize("target", TARGETS)
def test_min_snr_weighs_errors_of_the_image_alike_whatever_is_predicted(target):
    """Without a mollifier, an error of the image costs min(SNR, 5) times its square, up to one factor a target."""
    process = MollifiedDiffusion(Mollifier(0.0, (2, 2)), target=target, data_std=0.5)
    t = torch.tensor([50, 400, 900])
    x = torch.zeros(3, 1, 2, 2)
    image, error = torch.zeros_like(x), torch.full_like(x, 0.01)
    coefficients = process.schedule.coefficients(t, x)

    def target_of(image):
        noise = (x - coefficients[0] * image) / coefficients[1]
        return process.training_target(image, noise, image, noise, t)

    change = (target_of(image + error) - target_of(image)).square().mean(dim=(1, 2, 3))
    weighted = min_snr(target)(process.snr(t)) * change
    expected = process.snr(t).clamp(max=5) * (0.01 / 0.5) ** 2
    ratio = weighted / expected
    torch.testing.assert_close(ratio, ratio[:1].expand(3), rtol=1e-3, atol=0)


def test_the_target_of_edm_is_a_velocity():
    """Its lambda over the error of the image is that of v: 1 + SNR, in units of the image's variance."""
    process, sigma = EDM(sigma_data=0.3), torch.logspace(-3, 2, 11, dtype=torch.float64)
    snr = process.snr(sigma)
    torch.testing.assert_close(process.loss_weight(sigma) * 0.3**2 * min_snr("v")(snr), snr.clamp(max=5))


def test_weightings_have_names():
    assert {name: of("v")(SNR).shape for name, of in WEIGHTINGS.items()} == dict.fromkeys(WEIGHTINGS, SNR.shape)
    with pytest.raises(ValueError, match="velocity"):
        WEIGHTINGS["min_snr"]("velocity")
