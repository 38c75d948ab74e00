"""Sources of latents: a Gaussian with their mean and covariance, and the latent diffusion model."""

import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.data.latents import Latents
from infdiff.evaluation.generated import ImageMaker
from infdiff.methods.sampling import SamplingOptions
from infdiff.methods.sizes import training_size
from infdiff.runs.folder import RunFolder
from infdiff.runs.latents import LatentGaussian, LatentModel, build_latent, fit_gaussian
from infdiff.runs.trained import TrainedModel
from infdiff.shipped import CONFIG_FOLDER
from infdiff.viewer.serve import painter_for, tiles_folder, zoom_options
from tests.runs.conftest import CPU, train_latent


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


def test_a_gaussian_is_fitted_to_the_first_images_and_their_flipped_copies():
    class Ramps:
        """Twenty images that are brighter on the right, and at higher places."""

        images = None
        labels = None

        def __len__(self):
            return 20

        def __getitem__(self, place):
            return torch.stack([torch.arange(4) + place] * 12).view(3, 4, 4).to(torch.uint8)

        def take(self, places):
            return torch.stack([self[int(place)] for place in places])

    def left_and_right(images):
        return torch.stack([images[..., 0].float().mean(dim=(1, 2)), images[..., -1].float().mean(dim=(1, 2))], dim=1)

    plain, both = (fit_gaussian(left_and_right, Ramps(), 10, CPU, flip=flip) for flip in (False, True))
    assert (plain.count, both.count) == (10, 20)
    torch.testing.assert_close(plain.mean, torch.tensor([4.5, 7.5]))
    torch.testing.assert_close(both.mean, torch.tensor([6.0, 6.0]))


@pytest.fixture
def model(generator):
    """A latent model with weights that do something."""
    config = load_config(CONFIG_FOLDER / "demo.yaml", ["model.z_dim=3", "latent.width=8", "latent.layers=2"])
    network, process = build_latent(config)
    for parameter in network.parameters():
        parameter.requires_grad_(False).add_(0.1 * torch.randn(parameter.shape, generator=generator))
    latents = Latents.of(torch.randn(50, 3, generator=generator) * 2 + 1, torch.zeros(0, 3))
    return LatentModel(network.eval(), process, latents, config, step=7)


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def test_each_latent_follows_its_own_generator(model):
    z = model.sample(seeds(0, 1, 2), 0.7)
    torch.testing.assert_close(model.sample(seeds(2), 0.7)[0], z[2])
    assert (z[0] - z[1]).abs().min() > 0
    torch.testing.assert_close(model.sample(seeds(5), 0.0)[0], model.latents.mean)


class ExactNoise(torch.nn.Module):
    """The noise to expect in states of normalised latents, if these are a standard Gaussian."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, x, t):
        return (1 - self.process.alpha_bar[t]).sqrt().float()[:, None] * x


def test_latents_have_the_distribution_of_the_encoders(model):
    z = replace(model, network=ExactNoise(model.process)).sample(seeds(*range(2000)))
    torch.testing.assert_close(z.mean(dim=0), model.latents.mean, rtol=0, atol=0.2)
    torch.testing.assert_close(z.std(dim=0), model.latents.std, rtol=0.1, atol=0)


def test_variety_goes_from_the_latent_itself_to_any(model):
    model = replace(model, network=ExactNoise(model.process))
    z = torch.tensor([[3.0, -1.0, 0.5]])
    near, far = (model.vary(z, seeds(0, 1), variety) for variety in (0.05, 1.0))
    assert torch.equal(model.vary(z, seeds(0, 1), 0.0), z.expand(2, -1))
    assert (near - z).norm() < (far - z).norm()
    # At 1 only as much is left of it as the last state of the process keeps.
    left = far - model.vary(-z, seeds(0, 1), 1.0)
    kept = float(model.process.alpha_bar[-1]) ** 0.5
    assert kept < 0.02
    torch.testing.assert_close(left, (2 * kept * z).expand(2, -1), rtol=0.1, atol=0.01)


def test_a_saved_model_is_found_in_another_folder(model, run, tmp_path):
    folder = RunFolder(run)
    model.save(folder, 2)
    again = LatentModel.load(folder, 2, CPU)
    assert (again.step, again.describe()) == (7, "the latent diffusion model (step 7)")
    assert torch.equal(again.sample(seeds(0)), model.sample(seeds(0)))
    assert len(again.latents.train) == 0, "the latents of training images stay where they are"


def test_samples_are_not_taken_for_those_of_another_latent_model(run):
    """A model that is trained anew may end at the same step."""
    maker = partial(ImageMaker, parent=run / "evaluation", seed=0)

    def made(*settings):
        train_latent(run, 2, *settings)
        trained = TrainedModel.load(run, CPU)
        options = SamplingOptions.of(trained.method, (16, 16), CPU, steps=1)
        return maker(trained, options=options).generated((16, 16), 1), trained.describe_latents()

    first, described = made()
    assert made()[0].folder == first.folder
    shutil.rmtree(RunFolder(run).latents(TrainedModel.load(run, CPU).step).path)
    other, described_again = made("latent.train.learning_rate=0.1")
    assert described == described_again
    assert other.folder != first.folder
    assert made("latent.train.learning_rate=0.1", "latent.sample_steps=3")[0].folder != other.folder


def test_nor_are_tiles_of_a_zoom(run):
    def folder(rate):
        train_latent(run, 2, f"latent.train.learning_rate={rate}")
        trained = TrainedModel.load(run, CPU)
        options = zoom_options(trained, steps=1)
        found = tiles_folder(painter_for(trained, options, training_size(trained.config)))
        shutil.rmtree(RunFolder(run).latents(trained.step).path)
        return found

    assert folder(0.1) == folder(0.1)
    assert folder(0.1) != folder(0.2)
