"""Images made during training."""

import numpy as np
import torch
from PIL import Image

from infdiff import processes
from infdiff.config.files import load_config
from infdiff.images.pixels import from_uint8
from infdiff.methods.method import build_modules
from infdiff.methods.sizes import images_a_step, point_count
from infdiff.processes import Place
from infdiff.runs.data import build_data
from infdiff.runs.previews import Previews, Sampling
from infdiff.runs.training import build_trainer, quick_sampling
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY, TINY_GRID
from tests.runs.conftest import CPU


def previews(folder, config, draw, count=8, on_progress=lambda done, total: None):
    data, modules = build_data(config, CPU), build_modules(config)
    made = Previews(
        Sampling(draw, evaluations=1, batch=10),
        train=data.train,
        validation=data.validation,
        points=point_count(config),
        folder=folder,
        device=CPU,
        seed=0,
        truncation=1.0,
        encodes="encoder" in modules,
        images_a_step=4,
    )
    made(3, {name: module.eval() for name, module in modules.items()}, count, on_progress)
    return data


def read(path):
    with Image.open(path) as sheet:
        return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


def rows(path):
    """Of a sheet of 16x16 images with gaps of 2 pixels."""
    pixels = read(path)
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

    drawn, seen = [], []

    def draw(denoiser, z, indices, on_step):
        drawn.append(list(indices))
        on_step()
        return z[:, 0].tanh().view(-1, 1, 1, 1).expand(-1, 3, 16, 16)

    config = load_config(CONFIG_FOLDER / "demo.yaml", TINY)
    data = previews(tmp_path, config, draw, on_progress=lambda done, total: seen.append((done, total)))
    # Samples and both reconstructions in as few batches as there can be, with the same noise in a column.
    assert [i for batch in drawn for i in batch] == [*range(8), *range(8), *range(6)]
    assert [len(batch) for batch in drawn] == [10, 10, 2]
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
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


def test_processes_share_the_images(tmp_path, monkeypatch):
    """Of two processes the second draws the second half, gets the first half, and writes nothing."""
    drawn = []

    def draw(denoiser, z, indices, on_step):
        assert processes.joined() == processes.ALONE, "it draws by itself"
        drawn.extend(indices)
        return torch.zeros(len(indices), 3, 16, 16)

    def sent(values, owner, device):
        assert (values is None) == (owner == 0)
        return torch.zeros(4, 3, 16, 16)

    monkeypatch.setattr(processes, "sent", sent)
    monkeypatch.setattr(processes, "joined", lambda: processes.ALONE if processes._apart else Place(1, 2))
    previews(tmp_path, load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "model.z_dim=0"]), draw)
    assert drawn == [4, 5, 6, 7]
    assert list(tmp_path.iterdir()) == []


def test_without_an_encoder_there_are_samples_alone(tmp_path):
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)

    def draw(denoiser, z, indices, on_step):
        assert z is None
        return from_uint8(images)[list(indices)]

    previews(tmp_path, load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "model.z_dim=0"]), draw)
    assert [p.name for p in tmp_path.iterdir()] == ["samples-00000003.png"]
    (row,) = rows(tmp_path / "samples-00000003.png")
    assert torch.equal(row, side_by_side(images))


def test_fewer_columns_show_the_first_images(tmp_path):
    """Two of the eight, with the same noise; the white columns of missing images go, too."""

    def draw(denoiser, z, indices, on_step):
        return z[:, 0].tanh().view(-1, 1, 1, 1).expand(-1, 3, 16, 16) + torch.tensor(indices).view(-1, 1, 1, 1) / 8

    config = load_config(CONFIG_FOLDER / "demo.yaml", TINY)
    for count in (8, 2):
        (tmp_path / str(count)).mkdir()
        previews(tmp_path / str(count), config, draw, count)
    for kind in ("samples", "reconstructions"):
        few, all_of_them = (read(tmp_path / count / f"{kind}-00000003.png") for count in "28")
        assert few.shape[2] == 2 * 18 - 2
        assert torch.equal(few, all_of_them[:, :, : few.shape[2]])


def test_a_preview_takes_few_evaluations_whatever_the_runs_own_sampler():
    slow = load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "sample.sampler=ddpm", "sample.steps=500"])
    assert quick_sampling(slow, CPU).evaluations == 10
    assert quick_sampling(load_config(CONFIG_FOLDER / "demo.yaml", TINY_GRID), CPU).evaluations == 19
    short = [*TINY, "diffusion.steps=4", "sample.steps=4"]
    assert quick_sampling(load_config(CONFIG_FOLDER / "demo.yaml", short), CPU).evaluations == 4


def test_images_of_a_step_count_as_their_part_of_the_training_sizes_pixels():
    sizes = ["data.resolutions={8: 0.5, 16: 0.5}", "data.batch_sizes={8: 6}", "train.accumulate=2"]
    # Half of the steps have 2 x 6 quarters of an image, half of them 2 x 4 images.
    assert images_a_step(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY_GRID, *sizes])) == 0.5 * 3 + 0.5 * 8


def test_a_preview_is_worth_the_images_that_go_through_the_network(tmp_path):
    """10 evaluations of 3 rows and the encoder's 64 images, in halves of a step of 4 images; 19 of one row."""
    for overrides, count, halves in ((TINY, 8, 240 + 32), (TINY, 1, 30 + 32), (TINY_GRID, 8, 152)):
        config = load_config(CONFIG_FOLDER / "demo.yaml", overrides)
        trainer = build_trainer(config, build_data(config, CPU), tmp_path, CPU)
        assert trainer.preview.worth(count) == halves / (2 * 4)
