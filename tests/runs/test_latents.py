"""The Gaussian of the latents has their mean and covariance, and its samples theirs."""

import pytest
import torch

from infdiff.runs.folder import RunFolder
from infdiff.runs.latents import LatentGaussian


@pytest.mark.parametrize("count", [5, 400])
def test_mean_and_covariance_are_those_of_the_latents(count, generator):
    latents = torch.randn(count, 6, generator=generator, dtype=torch.float64) @ torch.randn(
        6, 6, generator=generator, dtype=torch.float64
    )
    gaussian = LatentGaussian.fit(latents)
    torch.testing.assert_close(gaussian.mean, latents.mean(dim=0))
    torch.testing.assert_close(gaussian.factor.mT @ gaussian.factor, torch.cov(latents.mT))
    assert gaussian.factor.shape[0] <= max(6, count)


def test_samples_follow_it_and_their_own_generator(tmp_path, generator):
    gaussian = LatentGaussian.fit(torch.randn(50, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.1]) + 1)
    gaussian.save(RunFolder(tmp_path), 3)
    loaded = LatentGaussian.load(RunFolder(tmp_path), 3)
    generators = [torch.Generator().manual_seed(i) for i in range(4000)]
    z = loaded.sample(generators)
    torch.testing.assert_close(torch.cov(z.mT), gaussian.factor.mT @ gaussian.factor, rtol=0.1, atol=0.05)
    torch.testing.assert_close(loaded.sample([torch.Generator().manual_seed(7)])[0], z[7])
    assert loaded.count == 50


def test_truncation_scales_the_spread_about_the_mean(generator):
    gaussian = LatentGaussian.fit(torch.randn(50, 3, generator=generator) + 2)

    def draw(truncation):
        return gaussian.sample([torch.Generator().manual_seed(1)], truncation)[0] - gaussian.mean

    assert draw(0.0).abs().max() == 0
    torch.testing.assert_close(draw(0.5), draw(1.0) / 2)
