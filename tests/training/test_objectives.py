"""The objectives: what a network sees, what its errors cost, and their weights."""

import math

import pytest
import torch
from torch import nn

from infdiff.diffusion.edm import EDM
from infdiff.diffusion.latent_processes import LatentDDPM
from infdiff.diffusion.mollified import TARGETS, MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier
from infdiff.points import PointBatch, draw_points, gather
from infdiff.training.objectives import EDMObjective, LatentObjective, MollifiedObjective

SIZE = (12, 12)


class Recorder(nn.Module):
    """Stands in for both networks and remembers its inputs."""

    def __init__(self, answer=0.0, outputs=1):
        super().__init__()
        self.calls, self.answer, self.outputs = [], answer, outputs

    def geometry(self, ids, size):
        return ids

    def forward(self, x, ids, *condition):
        self.calls.append((x, ids, condition))
        return torch.full_like(x, self.answer).repeat(1, 1, self.outputs)


def run(seed=0, target="mollified_noise", encoder=True, flip=False, images=None, **options):
    process = MollifiedDiffusion(Mollifier(1.0, SIZE), target=target, data_std=0.5)
    options = {"points": lambda size, generator: size[0] * size[1] // 4, "kind": "uniform", "flip": flip} | options
    objective = MollifiedObjective(process, **options)
    modules = {"denoiser": Recorder(outputs=2 if options.get("sharp_weight") else 1)} | (
        {"encoder": Recorder()} if encoder else {}
    )
    if images is None:
        images = torch.randint(0, 256, (5, 3, *SIZE), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)
    loss = objective(modules, images, torch.Generator().manual_seed(seed))
    return loss, modules, images, process


def test_the_draws_are_the_generators_alone():
    assert torch.equal(run(3)[0], run(3)[0])
    assert not torch.equal(run(3)[0], run(4)[0])


def test_images_of_another_size_are_points_of_their_own_grid():
    """A quarter of the pixels of each, the mollifier by the resolution law."""
    large = torch.randint(0, 256, (5, 3, 24, 36), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)
    _, modules, _, _ = run(images=large)
    x, ids, _ = modules["denoiser"].calls[0]
    assert ids.shape == (5, 24 * 36 // 4)
    assert ids.max() > 12 * 36
    assert x.std(dim=(1, 2)).mean().item() == pytest.approx(1, abs=0.3)
    clean, seen, _ = modules["encoder"].calls[0]
    torch.testing.assert_close(clean, gather(large / 127.5 - 1, seen))


def test_the_encoder_sees_a_clean_subset_of_its_own():
    _, modules, images, _ = run()
    (x, ids, _), (_, other, _) = modules["encoder"].calls[0], modules["denoiser"].calls[0]
    torch.testing.assert_close(x, gather(images / 127.5 - 1, ids))
    assert not torch.equal(ids, other)


def test_predicting_zero_costs_the_variance_of_the_mollified_noise():
    losses = torch.stack([run(seed)[0] for seed in range(60)])
    process = run()[3]
    # Reflecting boundaries raise the variance near the border of a 12-pixel image.
    variance = process.mollifier.noise(500, 3, SIZE, [torch.Generator().manual_seed(0)]).var()
    torch.testing.assert_close(losses.mean(), variance, rtol=0.05, atol=0)


def at_points(count=36, batch=5, encoder=True):
    """A batch of grey images at random points, whose T x_0 is 0.25."""
    generator = torch.Generator().manual_seed(2)
    ids, other = (draw_points(batch, count, SIZE, generator) for _ in range(2))
    values = torch.full((batch, count, 3), 102, dtype=torch.uint8)  # -0.2
    other, seen = (other, values + 51) if encoder else (other[:, :0], values[:, :0])  # 0.2
    return PointBatch(SIZE, ids, values, torch.full((batch, count, 3), 0.25), other, seen)


def test_points_drawn_with_the_batch_are_those_that_are_denoised():
    batch = at_points()
    loss, modules, _, process = run(images=batch)
    (x, ids, (t, _)), (clean, seen, _) = modules["denoiser"].calls[0], modules["encoder"].calls[0]
    assert torch.equal(ids, batch.ids)
    assert torch.equal(seen, batch.encoder_ids)
    torch.testing.assert_close(clean, torch.full_like(clean, 0.2))
    # The state and the target hold the same noise: x_t = a T x_0 + s T xi.
    signal, noise = process.schedule.coefficients(t, x)
    state = x * process._scale(x, t)
    torch.testing.assert_close(loss, ((state - signal * 0.25) / noise).square().mean(), rtol=1e-4, atol=1e-5)
    assert run(images=at_points(encoder=False), encoder=False)[1]["denoiser"].calls


def test_noise_at_points_has_the_variance_of_the_field():
    losses = torch.stack([run(seed, images=at_points())[0] for seed in range(60)])
    variance = run()[3].mollifier.noise(500, 3, SIZE, [torch.Generator().manual_seed(0)]).var()
    torch.testing.assert_close(losses.mean(), variance, rtol=0.05, atol=0)
    assert torch.equal(run(3, images=at_points())[0], losses[3])
    assert not torch.equal(losses[3], losses[4])


@pytest.mark.parametrize("target", ["v", "image"])
def test_other_targets_are_taken_at_the_points(target):
    batch = at_points()
    loss, modules, _, process = run(images=batch, target=target)
    x, _, (t, _) = modules["denoiser"].calls[0]
    expected = torch.full_like(x, -0.2)
    if target == "v":
        cos, sin = process._angle(x, t)
        # From x = cos T x_0 / data_std + sin T xi / noise_std.
        noise = (x - cos * 0.25 / process.data_std) / sin
        expected = cos * noise - sin * 0.25 / process.data_std
    torch.testing.assert_close(loss, expected.square().mean(), rtol=1e-3, atol=1e-4)


def test_the_sharp_output_learns_what_T_took_at_the_points():
    plain, sharp = (run(images=at_points(), sharp_weight=weight)[0] for weight in (1e-9, 1.0))
    _, modules, _, process = run(images=at_points(), sharp_weight=1.0)
    t = modules["denoiser"].calls[0][2][0]
    expected = (process.sharp_weight(t) * ((-0.2 - 0.25) / process.data_std) ** 2).mean()
    torch.testing.assert_close(sharp - plain, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_errors_weigh_alike_unless_told_otherwise(target):
    plain, ones = (run(target=target, **options)[0] for options in ({}, {"weighting": torch.ones_like}))
    assert torch.equal(plain, ones)


def test_each_image_has_the_weight_of_its_time():
    """A weighting that leaves one image leaves its error, divided by their number."""
    process = run()[3]

    def error(of):
        def only(snr):
            seen.append(snr)
            return (torch.arange(5) == of).float()

        return run(weighting=only)[0]

    seen = []
    torch.testing.assert_close(sum(error(of) for of in range(5)), run()[0])
    assert error(0) != error(1)
    t = run()[1]["denoiser"].calls[0][2][0]
    assert torch.equal(seen[0], process.snr(t))


def test_the_second_output_costs_what_the_mollifier_takes_away_by_how_much_signal_there_is():
    """With zeros predicted: weight * mean of cos^2 times the detail squared, in units of data_std, at the points."""
    plain, _, images, process = run()
    total, modules, _, _ = run(sharp_weight=0.3)
    _, ids, (t, _) = modules["denoiser"].calls[0]
    x0 = images / 127.5 - 1
    detail = gather(x0 - process.mollifier(x0), ids) / 0.5
    bar = process.alpha_bar[t]
    signal, noise = 0.25 * bar, (1 - bar) * process.noise_std**2
    weight = signal / (signal + noise)
    expected = plain + 0.3 * (weight[:, None, None] * detail.square()).mean()
    torch.testing.assert_close(total, expected)
    assert total > 1.01 * plain


def test_times_are_drawn_as_told():
    _, modules, _, _ = run(times=lambda batch, generator: torch.arange(1, batch + 1))
    assert modules["denoiser"].calls[0][2][0].tolist() == [1, 2, 3, 4, 5]


def test_the_number_of_points_may_depend_on_the_step():
    """Both subsets of a step have it, and the seed of the step decides."""

    def points(size, seed):
        return 10 + seed

    for seed in (0, 5):
        _, modules, _, _ = run(seed, points=points)
        assert {modules[name].calls[0][1].shape[1] for name in modules} == {10 + seed}


def test_the_latent_model_is_told_the_noise_apart():
    """Noise predicted as 0 costs its mean absolute, and half of that with weights of one half."""
    latents = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(5))

    def loss(**options):
        objective = LatentObjective(LatentDDPM(), **options)
        network = nn.Module()
        network.forward = lambda x, t: torch.zeros_like(x)
        return objective({"latent": network}, latents, torch.Generator().manual_seed(0)).item()

    assert loss() == pytest.approx((2 / math.pi) ** 0.5, rel=0.01)
    assert loss(weighting=lambda snr: torch.full_like(snr, 0.5)) == pytest.approx(loss() / 2)


def test_without_an_autoencoder_there_is_no_latent():
    _, modules, _, _ = run(encoder=False)
    assert modules["denoiser"].calls[0][2][1] is None


def test_latents_carry_noise_when_asked():
    def latent(**options):
        return run(**options)[1]["denoiser"].calls[0][2][1]

    assert latent().abs().max() == 0, "the stand-in encoder gives zeros"
    assert abs(latent(latent_noise=0.4).std() - 0.4) < 0.05


def test_flips_reverse_the_columns():
    images = torch.zeros(64, 3, *SIZE, dtype=torch.uint8)
    images[..., 0] = 255
    _, modules, _, _ = run(flip=True, images=images)
    x, ids, _ = modules["encoder"].calls[0]
    column = ids % SIZE[1]
    bright = x[..., 0] > 0
    left = (bright & (column == 0)).any(dim=1)
    right = (bright & (column == SIZE[1] - 1)).any(dim=1)
    assert not (left & right).any()
    assert left.sum() > 10
    assert right.sum() > 10


class ImageRecorder(nn.Module):
    """Stands in for the network, remembers its inputs and answers with zeros."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, c_noise):
        self.calls.append((x, c_noise))
        return torch.zeros_like(x)


def images_of(size=(12, 12), batch=5):
    return torch.randint(0, 256, (batch, 3, *size), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)


def run_edm(seed=0, of=None, flip=False, network=None, **options):
    network = ImageRecorder() if network is None else network
    of = images_of() if of is None else of
    objective = EDMObjective(EDM(**options), flip=flip)
    return objective({"denoiser": network}, of, torch.Generator().manual_seed(seed)), network


def test_the_draws_of_edm_are_the_generators_alone():
    assert torch.equal(run_edm(3)[0], run_edm(3)[0])
    assert not torch.equal(run_edm(3)[0], run_edm(4)[0])


@pytest.mark.parametrize("size", [(12, 12), (9, 20), (32, 32)])
def test_a_network_of_zeros_costs_the_variance_of_its_target(size):
    """That is 1, at every noise level and size, when sigma_data is that of the images: here 2 / sqrt(12)."""
    losses = torch.stack([run_edm(seed, images_of(size, 16), sigma_data=3**-0.5)[0] for seed in range(30)])
    assert losses.mean().item() == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("mollifier", [None, Mollifier(1.0, (12, 12))])
def test_the_loss_is_that_of_the_target_in_units_of_the_network(mollifier):
    """mean |F - (y - c_skip x) / c_out|^2: what the weighted error of D is, worked out from what the network saw."""
    process = EDM()

    class Wavy(ImageRecorder):
        def forward(self, x, c_noise):
            super().forward(x, c_noise)
            return torch.sin(3 * x)

    loss, network = run_edm(network=Wavy(), mollifier=mollifier)
    scaled, c_noise = network.calls[0]
    sigma = (4 * c_noise).exp()
    skip, out, scale, _ = (c.view(-1, 1, 1, 1) for c in process.preconditioning(sigma))
    clean = images_of() / 127.5 - 1
    target = ((clean if mollifier is None else mollifier(clean)) - skip * scaled / scale) / out
    torch.testing.assert_close(loss, (torch.sin(3 * scaled) - target).square().mean(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("mollified", [False, True])
def test_the_network_sees_images_of_variance_1_at_every_size(mollified):
    black = torch.zeros(64, 3, 16, 24, dtype=torch.uint8)  # y = -1 everywhere, also after T
    mollifier = Mollifier(1.0, (8, 12)) if mollified else None
    _, network = run_edm(of=black, mollifier=mollifier)
    scaled, c_noise = network.calls[0]
    sigma = (4 * c_noise).exp().view(-1, 1, 1, 1)
    noise = (scaled * (sigma**2 + 0.25).sqrt() + 1) / sigma
    assert noise[..., 4:-4, 4:-4].std().item() == pytest.approx(1.0, rel=0.05)
    alike = (noise[..., 1:] * noise[..., :-1]).mean().item()
    assert (alike > 0.8) == mollified


def test_flips_of_edm_reverse_the_columns():
    one_side = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    one_side[..., :4] = 255
    _, network = run_edm(of=one_side, flip=True)
    scaled, c_noise = network.calls[0]
    low = (4 * c_noise).exp() < 0.5
    left = scaled[low][..., :4].mean(dim=(1, 2, 3)) > scaled[low][..., 4:].mean(dim=(1, 2, 3))
    assert 0.25 < left.float().mean() < 0.75
    _, network = run_edm(of=one_side)
    scaled, c_noise = network.calls[0]
    low = (4 * c_noise).exp() < 0.5
    assert (scaled[low][..., :4].mean(dim=(1, 2, 3)) > scaled[low][..., 4:].mean(dim=(1, 2, 3))).all()


def test_a_weighting_comes_on_top_of_lambda():
    def loss(weighting):
        objective = EDMObjective(EDM(), flip=False, weighting=weighting)
        return objective({"denoiser": ImageRecorder()}, images_of(), torch.Generator().manual_seed(0))

    assert torch.equal(loss(torch.ones_like), run_edm()[0])
    torch.testing.assert_close(loss(lambda snr: 3 * torch.ones_like(snr)), 3 * run_edm()[0])
    seen = []
    loss(lambda snr: seen.append(snr) or torch.ones_like(snr))
    c_noise = run_edm()[1].calls[0][1]
    torch.testing.assert_close(seen[0], (0.5 / (4 * c_noise).exp()) ** 2)


def test_a_network_can_learn_from_edm():
    """One constant image: the best F is known up to noise, and a linear layer of c_noise comes near it."""
    torch.manual_seed(0)

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.taps = nn.Conv2d(4, 3, 1)

        def forward(self, x, c_noise):
            level = c_noise.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
            return self.taps(torch.cat([x, level], dim=1))

    network, generator = Linear(), torch.Generator().manual_seed(0)
    objective = EDMObjective(EDM(), flip=False)
    picture = torch.full((16, 3, 6, 6), 200, dtype=torch.uint8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    losses = []
    for _ in range(200):
        loss = objective({"denoiser": network}, picture, generator)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
