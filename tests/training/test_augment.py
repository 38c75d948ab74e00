"""EDM's augmentation: each transformation against an oracle of its own, the labels, how often each is drawn."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from infdiff.config.files import load_config
from infdiff.diffusion.edm import EDM
from infdiff.errors import UserError
from infdiff.methods.method import build_modules, method_of
from infdiff.training import checkpoint
from infdiff.training.augment import LABELS, augment, draw_parameters, labels_of, transform
from infdiff.training.objectives import EDMObjective
from tests.conftest import TINY, TINY_EDM, TINY_GRID, assert_one_line_error

SIZE = (48, 64)
CENTRE = (np.array(SIZE) - 1) / 2


def parameters(**given):
    """One row of a_0 to a_7, 0 but for those given, as a2=0.5."""
    return torch.tensor([[given.get(f"a{i}", 0.0) for i in range(8)]], dtype=torch.float64)


def turned(degrees):
    """A rotation in (row, column): from the rows' axis to the columns'."""
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


# Parameters; by hand, what they do to offsets (row, column) from the centre, and the translation in pixels. Images turn
# against the hands of a clock.
MAPS = {
    "scaling": ({"a2": 1.5}, 2**0.3 * np.eye(2), (0, 0)),
    "smaller": ({"a2": -2.0}, 2**-0.4 * np.eye(2), (0, 0)),
    "rotation": ({"a3": math.pi / 6}, turned(30), (0, 0)),
    "stretch across": ({"a5": 1.0}, np.diag([2**-0.2, 2**0.2]), (0, 0)),
    "stretch down": ({"a4": math.pi / 2, "a5": 1.0}, np.diag([2**0.2, 2**-0.2]), (0, 0)),
    "translation": ({"a6": 0.3, "a7": -0.9}, np.eye(2), (-0.9 / 8 * SIZE[0], 0.3 / 8 * SIZE[1])),
    "all": (
        {"a0": 1.0, "a2": 0.5, "a3": math.pi / 9, "a4": math.pi / 2, "a5": 0.5, "a6": 0.2, "a7": 0.1},
        np.diag([2**0.1, 2**-0.1]) @ turned(20) @ (2**0.1 * np.diag([1.0, -1.0])),
        (0.1 / 8 * SIZE[0], 0.2 / 8 * SIZE[1]),
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_each_transformation_is_scipys_affine_transform(name):
    """Splines of order 5 with the same reflection at the edges; of a smooth image, so that interpolations agree."""
    given, linear, move = MAPS[name]
    rough = np.random.default_rng(0).standard_normal((2, *SIZE))
    image = np.stack([ndimage.gaussian_filter(channel, 4, mode="reflect") for channel in rough])
    image /= image.std()
    back = np.linalg.inv(linear)
    offset = CENTRE - back @ (CENTRE + np.array(move))
    expected = [ndimage.affine_transform(c, back, offset, order=5, mode="reflect") for c in image]
    found = transform(torch.from_numpy(image)[None], parameters(**given))[0].numpy()
    assert np.abs(found - expected).max() < 0.005
    assert np.abs(found - image).max() > 0.3


def test_what_needs_no_interpolation_is_exact():
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(transform(image, parameters(a0=1.0)), image.flip(3))
    assert torch.equal(transform(image, parameters(a1=1.0)), image.flip(2))
    assert torch.equal(transform(image, parameters()), image)
    quarter = transform(image, parameters(a3=math.pi / 2))
    torch.testing.assert_close(quarter, torch.rot90(image, 1, (2, 3)), rtol=0, atol=1e-9)
    moved = transform(image, parameters(a6=1.0, a7=0.5))  # 2 of 16 columns to the right, 1 row down, reflected
    padded = np.pad(image[0].numpy(), ((0, 0), (1, 0), (2, 0)), mode="symmetric")[:, :16, :16]
    torch.testing.assert_close(moved[0], torch.from_numpy(padded), rtol=0, atol=1e-9)


def test_labels_are_those_of_the_paper_and_zero_where_nothing_is_applied():
    values = parameters(a0=1.0, a1=1.0, a2=0.3, a3=0.4, a4=0.5, a5=-0.6, a6=0.7, a7=0.8)
    turn, stretch = (math.cos(0.4) - 1, math.sin(0.4)), (-0.6 * math.cos(0.5), -0.6 * math.sin(0.5))
    assert labels_of(values)[0].tolist() == pytest.approx([1, 1, 0.3, *turn, *stretch, 0.7, 0.8])
    images = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    changed, labels = augment(images, 0.12, torch.Generator().manual_seed(2))
    assert labels.shape == (400, LABELS)
    assert labels.dtype == torch.float32
    plain = (labels == 0).all(dim=1)
    same = (changed == images).flatten(1).all(dim=1)
    assert torch.equal(plain, same)
    assert 0.2 < plain.float().mean() < 0.4  # half of 0.88^5


def test_each_is_drawn_as_often_as_asked_and_by_itself():
    n, p = 40_000, 0.12
    a = draw_parameters(n, p, torch.Generator().manual_seed(0))
    drawn = (a != 0).double()
    rates = drawn.mean(dim=0)
    expected = torch.tensor([0.5, p / 2, p, p, p, p, p, p], dtype=torch.float64)
    assert ((rates - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt()).all()
    groups = drawn[:, [0, 1, 2, 3, 4, 6]]
    assert (torch.corrcoef(groups.T) - torch.eye(6)).abs().max() < 0.03
    assert torch.equal(drawn[:, 4], drawn[:, 5])
    assert torch.equal(drawn[:, 6], drawn[:, 7])
    for i in (2, 5, 6, 7):
        values = a[drawn[:, i] > 0, i]
        assert abs(values.mean()) < 0.08
        assert abs(values.std() - 1) < 0.05
    for i in (3, 4):
        values = a[drawn[:, i] > 0, i]
        assert values.abs().max() <= math.pi
        assert values.std().item() == pytest.approx(math.pi / math.sqrt(3), rel=0.03)


def test_autocast_does_not_touch_it():
    image, values = torch.rand(1, 3, 32, 32), parameters(a3=0.3).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = transform(image, values)
    assert torch.equal(inside, transform(image, values))


class Recorder(nn.Module):
    def __init__(self):
        super().__init__()
        self.labels = []

    def forward(self, x, c_noise, augmentation=None):
        self.labels.append(augmentation)
        return torch.zeros_like(x)


def test_the_network_is_told_in_training_and_only_there():
    images = torch.randint(0, 256, (64, 3, 8, 8), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)

    def loss(probability, network):
        objective = EDMObjective(EDM(), flip=False, augment=probability)
        return objective({"denoiser": network}, images, torch.Generator().manual_seed(0))

    trained, evaluated, plain = Recorder(), Recorder().eval(), Recorder()
    losses = [loss(0.5, trained), loss(0.5, evaluated), loss(0, plain)]
    (label,) = trained.labels
    assert label.shape == (64, LABELS)
    assert (label != 0).any()
    assert evaluated.labels == plain.labels == [None]
    assert torch.equal(losses[1], losses[2])
    assert not torch.equal(losses[0], losses[2])


def test_a_network_without_augmentation_is_what_it_was():
    plain, zero, augmented = (
        build_modules(load_config("demo", [*TINY_GRID, *more]))["denoiser"]
        for more in ([], ["data.augment=0"], ["data.augment=0.1"])
    )
    assert plain.state_dict().keys() == zero.state_dict().keys()
    assert all(torch.equal(plain.state_dict()[key], value) for key, value in zero.state_dict().items())
    new = {key: value for key, value in augmented.state_dict().items() if key not in plain.state_dict()}
    assert {key: tuple(value.shape) for key, value in new.items()} == {
        "conditioning.latent.weight": (16, LABELS),
        "conditioning.latent.bias": (16,),
    }


@pytest.mark.parametrize("kind", ["unet", "dfu"])
def test_no_label_is_a_label_of_zeros_and_others_matter(kind, generator):
    settings = {"unet": TINY_EDM, "dfu": TINY_GRID}[kind]
    network = build_modules(load_config("demo", [*settings, "data.augment=0.1"]))["denoiser"].eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    x, c_noise = torch.randn(2, 3, 16, 16, generator=generator), torch.zeros(2)
    label = torch.zeros(2, LABELS)
    assert torch.equal(network(x, c_noise), network(x, c_noise, label))
    label[1, 3] = 1.0
    changed = (network(x, c_noise) != network(x, c_noise, label)).flatten(1).any(dim=1)
    assert changed.tolist() == [False, True]


def test_training_resumes_bit_for_bit_and_samples(command, tmp_path):
    settings = [*TINY_GRID, "data.augment=0.5", "data.resolutions={8: 1, 16: 1}", "train.log_every=1"]
    for folder, steps in (("parts", 2), ("parts", 5), ("whole", 5)):
        result = command("train", "--out", folder, "--steps", steps, *settings)
        assert result.returncode == 0, result.stderr
    for group in ("denoiser", "ema_denoiser"):
        a, b = (checkpoint.load_tensors(tmp_path / f / "checkpoints", 5, group) for f in ("parts", "whole"))
        assert all(torch.equal(a[key], b[key]) for key in a)
    logs = [(tmp_path / f / "log.jsonl").read_text().splitlines() for f in ("parts", "whole")]
    losses = [[r["loss"] for r in map(json.loads, lines) if "loss" in r] for lines in logs]
    assert losses[0] == losses[1]
    result = command("sample", "--run", "whole", "--res", 24, "--n", 1, "--out", "o", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    plain = ["--finetune", "whole", "--out", "t", "--steps", 1, *TINY_GRID, "data.resolutions={8: 1, 16: 1}"]
    refused = command("train", *plain, "finetune.size=24")
    assert_one_line_error(refused, "another architecture", "data.augment: 0.5 -> 0")
    assert command("train", *plain, "finetune.size=24", "data.augment=0.2").returncode == 0


def test_points_are_not_augmented():
    with pytest.raises(UserError, match=r"data\.augment: goes with method: edm") as error:
        load_config("demo", [*TINY, "data.augment=0.12"])
    assert "\n" not in str(error.value)


def test_a_loss_at_one_noise_is_of_images_as_they_are():
    method = method_of(load_config("demo", [*TINY_GRID, "data.augment=0.5"]))
    network = Recorder()
    images = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    method.objective_at(1.0, 1)({"denoiser": network}, images, torch.Generator().manual_seed(0))
    assert network.labels == [None]
