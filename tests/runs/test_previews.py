"""Images made during training."""

import numpy as np
import torch
from PIL import Image

from infdiff.config.files import load_config
from infdiff.images.pixels import from_uint8
from infdiff.methods.method import build_modules
from infdiff.methods.sizes import point_count
from infdiff.runs.data import build_data
from infdiff.runs.previews import Previews
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY
from tests.runs.conftest import CPU


def previews(folder, config, draw):
    data, points = build_data(config, CPU), point_count(config)
    images = {"train": data.train, "validation": data.validation}
    made = Previews(draw, **images, points=points, folder=folder, device=CPU, seed=0, truncation=1.0)
    made(3, {name: module.eval() for name, module in build_modules(config).items()})
    return data


def rows(path):
    """Of a sheet of 16x16 images with gaps of 2 pixels."""
    with Image.open(path) as sheet:
        pixels = torch.from_numpy(np.array(sheet)).permute(2, 0, 1)
    assert pixels.shape[2] == 8 * 18 - 2
    return [pixels[:, top : top + 16] for top in range(0, pixels.shape[1], 18)]


def side_by_side(images):
    """Of up to eight images, white for those that are missing."""
    row = torch.full((3, 16, 8 * 18 - 2), 255, dtype=torch.uint8)
    for number, image in enumerate(images):
        row[:, :, 18 * number : 18 * number + 16] = image
    return row


def test_originals_stand_above_their_reconstructions(tmp_path):
    """The stand-in for a sampler draws what its latents say: their first number, in grey."""

    def draw(denoiser, z, indices):
        return z[:, 0].tanh().view(-1, 1, 1, 1).expand(-1, 3, 16, 16)

    config = load_config(CONFIG_FOLDER / "demo.yaml", TINY)
    data = previews(tmp_path, config, draw)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["reconstructions-00000003.png", "samples-00000003.png"]
    train, again, validation, reconstructed = rows(tmp_path / "reconstructions-00000003.png")
    assert torch.equal(train, side_by_side(data.train.take(torch.arange(8))))
    held_out = data.validation.take(torch.arange(len(data.validation)))
    assert len(held_out) == 6
    assert torch.equal(validation, side_by_side(held_out))
    for row, count in ((again, 8), (reconstructed, 6)):
        greys = [row[:, :, 18 * i : 18 * i + 16].unique() for i in range(8)]
        assert all(len(grey) == 1 for grey in greys)
        assert [int(grey) == 255 for grey in greys] == [i >= count for i in range(8)]


def test_without_an_encoder_there_are_samples_alone(tmp_path):
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)

    def draw(denoiser, z, indices):
        assert z is None
        return from_uint8(images)[list(indices)]

    previews(tmp_path, load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "model.z_dim=0"]), draw)
    assert [p.name for p in tmp_path.iterdir()] == ["samples-00000003.png"]
    (row,) = rows(tmp_path / "samples-00000003.png")
    assert torch.equal(row, side_by_side(images))
