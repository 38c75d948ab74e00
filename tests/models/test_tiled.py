"""The denoiser tile by tile is the denoiser on all pixels at once."""

from dataclasses import replace

import pytest
import torch

from infdiff import ops
from infdiff.config.files import load_config
from infdiff.memory import mapped_empty
from infdiff.methods.method import build_modules
from infdiff.models import denoise_tiled, held_tiles
from infdiff.points import all_points
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import ROOT, TINY
from tests.together import finish, start


def denoiser(*settings):
    model = build_modules(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, *settings]))["denoiser"].double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        # Zero initialisation would hide mistakes.
        parameter.requires_grad_(False).add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(size, generator):
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator)
    return x, torch.tensor([3, 900]), torch.randn(2, 8, dtype=torch.float64, generator=generator)


def at_once(model, x, t, z):
    size = tuple(x.shape[2:])
    geometry = model.geometry(all_points(len(x), size), size)
    # The normalisers in float64, as tiles have them.
    points = ops.Points.of(geometry.points.ids, size, model.kernel_size, geometry.points.scale, torch.float64)
    geometry = replace(geometry, points=points, depthwise_points=points)
    return model(x.flatten(2).mT, geometry, t, z).mT.unflatten(2, size)


KINDS = {
    "one block": ("model.blocks=1", "model.kernel_size=3"),
    "three blocks": ("model.blocks=3", "model.kernel_size=7"),
    "regular taps": ("model.blocks=2", "model.kernel_size=5", "model.depthwise=false"),
    "nonlinear kernel": ("model.blocks=1", "model.kernel_size=5", "model.nonlinear_kernel=true"),
    "grid that follows the image": ("model.grid.kind=dfu", "model.grid.modes=3", "model.scale_grid=true"),
    "second output, gate and sketch": (
        "model.sharp=true",
        "model.gated_input=true",
        "model.sketch_side=3",
        "model.initial_taps=smooth",
    ),
    "as published": (
        "model.separate_latent=true",
        "model.positions=false",
        "model.layout=false",
        "model.gated_input=true",
    ),
}
SIZES, ROWS = [(16, 16), (64, 16), (33, 20), (20, 24)], [1, 5, 16, 23, 1000]


def some_tiles():
    """The product of settings, rows and sizes; long are those without which every two of them meet."""
    for i, (name, settings) in enumerate(KINDS.items()):
        for j, rows in enumerate(ROWS):
            for k, size in enumerate(SIZES):
                marks = () if k == (i + j) % len(SIZES) else pytest.mark.long
                yield pytest.param(settings, rows, size, marks=marks, id=f"{name}-{rows}-{size[0]}x{size[1]}")


@pytest.mark.parametrize(("settings", "rows", "size"), list(some_tiles()))
def test_tiles_equal_all_at_once(settings, rows, size, generator):
    model = denoiser(*settings)
    given = inputs(size, generator)
    expected = at_once(model, *given)
    actual = denoise_tiled(model, *given, tile_rows=rows)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.long)])
def test_processes_that_share_an_image_have_what_one_has(count, tmp_path):
    codes, outputs = finish(start(count, [ROOT / "tests/models/denoise_together.py"], tmp_path))
    assert codes == [0] * count, outputs
    assert all(float(printed) < 1e-12 for printed, _ in outputs)


def test_memory_does_not_grow_with_the_height(monkeypatch, generator):
    """A block's rows, and the tiles under way or waiting on skip connections, for kernels of the same pixels."""
    taken = []

    def allocate(like, *shape):
        taken.append(shape)
        return mapped_empty(like, *shape)

    monkeypatch.setattr("infdiff.models.tiled.mapped_empty", allocate)
    model = denoiser("model.blocks=2", "model.kernel_size=3")
    found = []
    for height in (32, 128):
        model.base = (height, 16)
        taken.clear()
        denoise_tiled(model, *inputs((height, 16), generator), tile_rows=4)
        found.append([shape[1] for shape in taken])
    assert found[0] == found[1]
    buffers, tiles = ([rows for rows in found[0] if (rows > 4) is large] for large in (True, False))
    assert buffers == [3 * 4] * 4  # of four blocks: a tile and one on either side
    assert len(tiles) <= 5  # and the first tile, with which the pool begins
    assert sum(found[0]) + 4 == 4 * held_tiles(2)
