"""Missing pixels have no part in a loss, a gradient or a latent."""

import pytest
import torch

from infdiff.config.files import changed, load_config
from infdiff.data.upsampled import Upsampled
from infdiff.diffusion.edm import EDM
from infdiff.diffusion.mollified import MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier
from infdiff.images.pixels import valid_pixels
from infdiff.methods.method import build_modules, method_of
from infdiff.pipelines.generate import encode
from infdiff.points import gather
from infdiff.shipped import CONFIG_FOLDER
from infdiff.training.objectives import EDMObjective, MollifiedObjective
from tests.conftest import TINY, TINY_GRID
from tests.training.test_objectives import ImageRecorder, Recorder

SIZE = (16, 16)
FIELDS = {"data.channels": 2, "data.valid_pixels": {"16": 60}}
KINDS = {
    "points": [*TINY, "model.sharp=true", "train.latent_noise=0.1"],
    "stratified": [*TINY, "train.points=stratified"],
    "halton": [*TINY, "train.points=halton"],
    "all points": [*TINY, "train.subsample=1"],
    "edm": TINY_GRID,
    "edm, mollified": [*TINY_GRID, "edm.noise=mollified"],
}


def fields(share=0.6, batch=4):
    """Values (B, 2, H, W) and valid pixels (B, H, W), at least 60 of each image."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(batch, 2, *SIZE, generator=generator)
    valid = torch.rand(batch, *SIZE, generator=generator) < share
    assert valid.flatten(1).sum(dim=1).min() >= 60
    return values, valid


def loss_and_gradients(kind, values, valid, flip=False):
    config = changed(load_config(CONFIG_FOLDER / "demo.yaml", KINDS[kind]), {**FIELDS, "data.flip": flip})
    modules, random = build_modules(config), torch.Generator().manual_seed(0)
    for module in modules.values():
        module.eval()  # running statistics and dropout would differ from call to call
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=random)
    loss = method_of(config).objective().loss(modules, values, valid, torch.Generator().manual_seed(1))
    loss.backward()
    return loss.detach(), [p.grad for module in modules.values() for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_stands_in_holes_every_loss_and_gradient_is_the_same(kind):
    values, valid = fields()
    random = torch.Generator().manual_seed(5)
    loss, gradients = loss_and_gradients(kind, values, valid)
    assert loss.isfinite()
    assert len(gradients) > 10
    for junk in (torch.randn(values.shape, generator=random) * 1e6, torch.full_like(values, torch.nan)):
        other, others = loss_and_gradients(kind, torch.where(valid[:, None], values, junk), valid)
        assert torch.equal(loss, other)
        assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    # A valid value does matter.
    place = valid[0].nonzero()[20]
    values[0, :, place[0], place[1]] += 100
    assert kind in ("points", "stratified", "halton") or not torch.equal(
        loss, loss_and_gradients(kind, values, valid)[0]
    )


def recorded(images, **options):
    process = MollifiedDiffusion(Mollifier(1.0, SIZE), target="mollified_noise", data_std=0.5)
    points = {"points": lambda size, generator: 50, "kind": "uniform", "flip": False}
    objective = MollifiedObjective(process, **points | {"holes": True} | options)
    modules = {"denoiser": Recorder(), "encoder": Recorder()}
    loss = objective(modules, images, torch.Generator().manual_seed(0))
    return loss, modules, process


@pytest.mark.parametrize("kind", ["uniform", "stratified", "halton"])
def test_networks_see_valid_pixels_alone(kind):
    values, valid = fields()
    holed = torch.where(valid[:, None], values, torch.nan)
    loss, modules, _ = recorded(holed, kind=kind)
    assert loss.isfinite()
    for name in modules:
        x, ids, _ = modules[name].calls[0]
        assert ids.shape == (4, 50)
        assert valid.flatten(1).gather(1, ids).all()
        assert (ids.diff(dim=1) > 0).all()
        assert x.isfinite().all()
    x, ids, _ = modules["encoder"].calls[0]
    assert torch.equal(x, gather(values, ids))


def test_holes_are_flipped_with_their_image():
    images = torch.full((64, 1, *SIZE), torch.nan)
    images[..., :8] = 1.0
    _, modules, _ = recorded(images, flip=True)
    x, ids, _ = modules["encoder"].calls[0]
    assert (x == 1).all()
    left = (ids % 16 < 8).all(dim=1)
    assert (left | (ids % 16 >= 8).all(dim=1)).all()
    assert 10 < left.sum() < 54


def test_a_field_without_holes_is_an_image():
    """8-bit images, and the same values as a field: every draw and every bit of the loss is the same."""
    images = torch.randint(0, 256, (4, 3, *SIZE), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    as_field = images.float() / 127.5 - 1
    assert torch.equal(recorded(images, holes=False)[0], recorded(as_field, holes=False)[0])
    torch.testing.assert_close(recorded(as_field)[0], recorded(as_field, holes=False)[0])

    def edm(of, holes):
        return EDMObjective(EDM(), flip=False, holes=holes)(
            {"denoiser": ImageRecorder()}, of, torch.Generator().manual_seed(0)
        )

    assert torch.equal(edm(images, False), edm(as_field, False))
    torch.testing.assert_close(edm(as_field, True), edm(as_field, False))


def test_edm_costs_the_error_at_valid_pixels_whatever_their_number():
    """A constant of which less is known has the same expected loss: each image weighs alike."""
    valid = torch.ones(64, *SIZE, dtype=torch.bool)
    valid[::2, :, 3:] = False
    images = torch.where(valid[:, None], torch.full((64, 1, *SIZE), 0.7), torch.nan)
    network = ImageRecorder()
    process = EDM()
    seen = []

    def weighting(snr):
        seen.append(snr)
        return torch.ones_like(snr)

    loss = EDMObjective(process, flip=False, holes=True, weighting=weighting)(
        {"denoiser": network}, images, torch.Generator().manual_seed(0)
    )
    scaled, c_noise = network.calls[0]
    sigma = (4 * c_noise).exp()
    skip, out, scale, _ = (c.view(-1, 1, 1, 1) for c in process.preconditioning(sigma))
    # What the network saw in holes is 0 and noise; what it is held to there costs nothing.
    target = (0.7 - skip * scaled / scale) / out
    expected = torch.stack([target[i][:, valid[i]].square().mean() for i in range(64)]).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)


def test_latents_are_read_at_valid_pixels_and_do_not_depend_on_the_batch():
    values, valid = fields()
    holed = torch.where(valid[:, None], values, torch.nan)
    holed[3] = values[3]  # one without a hole
    calls = []

    class Encoder(Recorder):
        def forward(self, x, ids):
            calls.append((x, ids))
            return x.mean(dim=1)

    together = encode(Encoder(), holed, points=120, seed=1)
    known = valid_pixels(holed).flatten(1)
    for (x, ids), valid_here in zip(calls, known, strict=True):
        assert valid_here[ids[0]].all()
        assert ids.shape[1] == min(120, int(valid_here.sum()))
        assert x.isfinite().all()
    alone = torch.cat([encode(Encoder(), holed[i : i + 1], points=120, seed=1) for i in range(4)])
    assert torch.equal(together, alone)
    with pytest.raises(ValueError, match="every pixel is missing"):
        encode(Encoder(), torch.full((1, 2, 4, 4), torch.nan), points=3)


def test_upsampling_averages_what_is_known():
    class Examples:
        images = None
        labels = None

        def take(self, places):
            image = torch.full((1, 1, 4, 4), 3.0)
            image[0, 0, :2] = torch.nan
            return image

    out = Upsampled(Examples(), (8, 8)).take(torch.tensor([0]))[0, 0]
    assert torch.equal(out[4:], torch.full((4, 8), 3.0))
    assert out[:4].isnan().all()
