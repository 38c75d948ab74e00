"""`infdiff.load(...).restore`: measurements that it follows, and those that cannot be compared."""

import runpy
import sys

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import infdiff
from infdiff.diffusion.measurements import Mask, Reduction
from infdiff.errors import OptionError, UserError
from tests.conftest import ROOT, pixels

SIZE = (16, 24)
OPTIONS = {"steps": 3, "output": "tensor"}


@pytest.fixture
def model(run):
    return infdiff.load(run, device="cpu")


@pytest.fixture
def image(generator):
    return F.interpolate(torch.rand(1, 3, 4, 6, generator=generator) * 1.2 - 0.6, SIZE, mode="bilinear")


def in_range(pixels):
    return pixels.float() / 127.5 - 1


def blur(images):
    return F.avg_pool2d(images, 3, stride=1)


@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("operator", [Reduction(SIZE, (8, 8)), Mask(torch.eye(16, 24) == 0)], ids=["reduction", "mask"])
def test_a_projection_has_the_measurement_that_was_made(operator, iterations, model, image):
    made = model.restore(operator(image), operator, SIZE, n=2, iterations=iterations, **OPTIONS)
    assert made.shape == (2, 3, *SIZE)
    # Rounding to 256 values, and clipping.
    assert (operator(in_range(made)) - operator(image)).abs().mean() < 0.01
    alone = model.restore(operator(image), operator, SIZE, n=1, iterations=iterations, **OPTIONS)
    assert (made[:1].int() - alone.int()).abs().max() <= 1
    assert (made[0] != made[1]).any()


def test_gradients_follow_any_operator(model, image):
    free = model.restore(blur(image), blur, SIZE, weight=0.0, **OPTIONS)
    for operator in (blur, lambda x: blur(x).tanh()):
        guided = model.restore(operator(image), operator, SIZE, iterations=2, **OPTIONS)
        errors = [(operator(in_range(x)) - operator(image)).square().mean() for x in (guided, free)]
        assert errors[0] < 0.6 * errors[1]


def test_tiles_are_the_whole_image(model, image):
    operator = Reduction(SIZE, (8, 8))
    whole, tiled = (model.restore(operator(image), operator, SIZE, tile=tile, **OPTIONS) for tile in ("off", 5))
    assert (whole.int() - tiled.int()).abs().max() <= 1


def test_projection_never_differentiates(model, image, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("differentiated")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    operator = Reduction(SIZE, (8, 8))
    model.restore(operator(image), operator, SIZE, iterations=2, **OPTIONS)
    with pytest.raises(AssertionError, match="differentiated"):
        model.restore(operator(image), operator, SIZE, guidance="gradient", **OPTIONS)


def test_the_physics_of_deepinv(model, image):
    class Physics:
        """With its names: called, it adds noise."""

        def A(self, x):
            return x[..., ::2]

        def A_dagger(self, y):
            return torch.stack([y, torch.zeros_like(y)], -1).flatten(-2)

        def __call__(self, x):
            return self.A(x) + torch.randn(x.shape)[..., ::2]

    physics = Physics()
    made = model.restore(physics.A(image), physics, SIZE, **OPTIONS)
    assert (in_range(made)[..., ::2] - image[..., ::2]).abs().max() < 0.01
    seen = model.restore(physics.A(image), physics.A, SIZE, pseudo_inverse=physics.A_dagger, **OPTIONS)
    assert torch.equal(made, seen)


def test_the_physics_of_deepinv_itself(model, image):
    physics = pytest.importorskip("deepinv.physics", exc_type=ImportError)  # it imports torchvision
    shape = (3, *SIZE)
    kernel = physics.blur.gaussian_blur(sigma=(1.0, 1.0))
    for operator in (
        physics.Inpainting(shape, mask=0.5),
        physics.Downsampling(img_size=shape, factor=2, filter="bicubic", padding="circular"),
        physics.BlurFFT(img_size=shape, filter=kernel),
        physics.Blur(filter=kernel, padding="circular"),  # by gradients: its A_dagger is off by 1 %
    ):
        measured = operator.A(image)
        made, free = (model.restore(measured, operator, SIZE, weight=w, **OPTIONS) for w in (1.0, 0.0))
        errors = [(operator.A(in_range(x)) - measured).square().mean() for x in (made, free)]
        assert errors[0] < 0.6 * errors[1]


def test_an_operators_own_inverse_that_is_none_is_left_alone(model, image):
    """As that of deepinv's blur with borders, which is iterated and stops early."""

    class Physics:
        A = staticmethod(blur)

        def __init__(self, inverse):
            self.A_dagger = inverse

        def __call__(self, x):
            return self.A(x)

    def fails(y):
        raise NotImplementedError

    wanted = model.restore(blur(image), blur, SIZE, **OPTIONS)
    for inverse in (lambda y: y * 0.9, lambda y: y[..., :4], fails):
        assert torch.equal(model.restore(blur(image), Physics(inverse), SIZE, **OPTIONS), wanted)
        with pytest.raises(OptionError, match="A_dagger"):
            model.restore(blur(image), Physics(inverse), SIZE, guidance="projection", **OPTIONS)


def test_noise_is_not_followed(model, image, generator):
    """What is said to be noisy is kept less closely; how much less, the posterior law says."""
    operator = Mask(torch.ones(SIZE, dtype=torch.bool))
    noisy = image + 0.5 * torch.randn(image.shape, generator=generator)
    trusting, knowing = (model.restore(noisy, operator, SIZE, noise=noise, **OPTIONS) for noise in (0.0, 0.5))
    distances = [(in_range(x) - noisy).square().mean() for x in (trusting, knowing)]
    assert distances[1] > 2 * distances[0]


def test_the_example(run, tmp_path, monkeypatch):
    Image.new("RGB", (20, 16), (90, 140, 200)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["restore.py", str(run), "photo.png"])
    runpy.run_path(str(ROOT / "examples" / "restore.py"), run_name="__main__")
    assert pixels(tmp_path / "restored1.png").shape == (16, 16, 3)


def test_what_cannot_be_compared_is_one_line(model, image):
    reduction = Reduction(SIZE, (8, 8))
    small = reduction(image)
    bad = small.clone()
    bad[0, 0, 0, 0] = torch.nan
    inverse = {"pseudo_inverse": reduction.A_dagger}
    for call, message in (
        (lambda: model.restore(small[..., :4], reduction, SIZE), r"operator: makes \(3, 8, 8\).*\(3, 8, 4\)"),
        (lambda: model.restore(small.half(), reduction, SIZE), "operator: makes torch.float32.*torch.float16"),
        (lambda: model.restore(small.int(), reduction, SIZE), "measured: torch.int32: want floating-point"),
        (lambda: model.restore(bad, reduction, SIZE), "measured: 1 of 192 values are not finite"),
        (lambda: model.restore("a", reduction, SIZE), "measured: str"),
        (lambda: model.restore(small, "a", SIZE), "operator: str cannot be called"),
        (lambda: model.restore(small, lambda x: x.log(), SIZE), "operator: makes values that are not finite"),
        (lambda: model.restore(small, lambda x: x @ x, SIZE), "operator: fails on"),
        (lambda: model.restore(small, lambda x: None, SIZE), "operator: makes NoneType"),
        (lambda: model.restore(small, reduction, SIZE, noise=-1), "noise: -1"),
        (lambda: model.restore(small, reduction, SIZE, iterations=-1), "iterations: -1"),
        (lambda: model.restore(small, reduction, SIZE, guidance="magic"), "guidance: magic"),
        (lambda: model.restore(small, reduction.__call__, SIZE, guidance="projection"), "wants a pseudo_inverse"),
        (lambda: model.restore(small, reduction.__call__, SIZE, tile=4), "tile: 4: goes with guidance projection"),
        (lambda: model.restore(small, reduction, SIZE, pseudo_inverse=lambda y: y), "pseudo_inverse: makes"),
        (
            lambda: model.restore(small, reduction, SIZE, pseudo_inverse=lambda y: 2 * reduction.A_dagger(y)),
            "off by 100%",
        ),
        (lambda: model.restore(small, lambda x: reduction(x) + 1, SIZE, **inverse), "off by|linear"),
        (lambda: model.restore(small, lambda x: reduction(x).detach(), SIZE), "no gradient"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
