"""DFU as ∞-Diff's grid network: its grid may follow the image, the encoder's stays."""

import math

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.coordinates import cell_centres
from infdiff.errors import UserError
from infdiff.methods.checks import check_config
from infdiff.methods.method import build_modules
from infdiff.models import DFU
from infdiff.nn.resample import BilinearDownsample
from infdiff.points import all_points
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY

SCALED = [*TINY, "model.grid.kind=dfu", "model.grid.modes=3", "model.scale_grid=true"]


def built(*settings):
    config = load_config(CONFIG_FOLDER / "demo.yaml", [*SCALED, *settings])
    check_config(config)
    modules = build_modules(config)
    generator = torch.Generator().manual_seed(1)
    for module in modules.values():
        module.double().eval()
        for parameter in module.parameters():
            # Zero initialisation would hide mistakes.
            parameter.requires_grad_(False).add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return modules


def run(model, image, z):
    size = tuple(image.shape[2:])
    out = model(image.flatten(2).mT, model.geometry(all_points(1, size), size), torch.tensor([500]), z)
    return out.mT.unflatten(2, size)


def wave(size):
    rows, columns = (2 * math.pi * cell_centres(n) for n in size)
    return torch.stack(
        [
            rows.cos()[:, None] * columns.sin(),
            rows.sin()[:, None] + columns.cos(),
            columns.sin() ** 2 + rows[:, None] * 0,
        ]
    )[None]


@pytest.mark.parametrize(
    ("size", "grid"),
    [((16, 16), (8, 8)), ((32, 32), (16, 16)), ((48, 20), (24, 10)), ((9, 16), (4, 8)), ((1, 1), (1, 1))],
)
def test_the_grid_is_as_much_larger_as_the_image(size, grid, generator):
    modules = built()
    seen = []
    modules["denoiser"].grid_network.register_forward_hook(lambda module, inputs, out: seen.append(out.shape[2:]))
    modules["encoder"].trunk.register_forward_hook(lambda module, inputs, out: seen.append(out[1][0].shape[2:]))
    image, z = torch.randn(1, 3, *size, dtype=torch.float64, generator=generator), torch.zeros(1, 8).double()
    assert run(modules["denoiser"], image, z).isfinite().all()
    modules["encoder"](image.flatten(2).mT, modules["encoder"].geometry(all_points(1, size), size))
    assert seen == [grid, (8, 8)]


def test_a_grid_of_one_size_is_the_default(generator):
    modules = built("model.scale_grid=false")
    seen = []
    modules["denoiser"].grid_network.register_forward_hook(
        lambda module, inputs, out: seen.append(tuple(out.shape[2:]))
    )
    run(
        modules["denoiser"],
        torch.randn(1, 3, 32, 48, dtype=torch.float64, generator=generator),
        torch.zeros(1, 8).double(),
    )
    assert seen == [(8, 8)]


def test_with_taps_of_one_cell_the_whole_network_is_one_function_at_every_size():
    """Kernels on points keep their physical size, spectral ones are functions, and the grid grows with the image."""
    model = built("model.grid.kernel_size=1")["denoiser"]
    z = torch.linspace(-1, 1, 8).double()[None]

    def change(n):
        small = run(model, wave((n, n)), z)
        return ((BilinearDownsample()(run(model, wave((2 * n, 2 * n)), z)) - small).abs().mean() / small.std()).item()

    assert change(64) < 0.6 * change(32)
    assert change(64) < 0.05


def test_latents_reach_the_deepest_grid_and_the_encoder_is_of_dual_convolutions():
    modules = built()
    network = modules["denoiser"].grid_network
    assert isinstance(network, DFU)
    assert network.layout is not None
    names = {name.split(".")[-1] for name, _ in modules["encoder"].trunk.named_modules()}
    assert "spectral" in names
    image = wave((16, 16))
    assert not torch.allclose(*(run(modules["denoiser"], image, torch.full((1, 8), v).double()) for v in (0.0, 1.0)))


def test_modes_are_those_of_the_largest_grid_in_training():
    def modes(*settings):
        modules = built("model.grid.modes=16", *settings)
        return [
            modules["denoiser"].grid_network.down.levels[0][0].conv_in.spectral.modes,
            modules["encoder"].trunk.levels[0][0].conv_in.spectral.modes,
        ]

    assert modes() == [4, 4]
    assert modes("data.resolutions={16: 1, 32: 1}") == [8, 4]
    assert modes("data.resolutions={16: 1, 32: 1}", "model.scale_grid=false") == [4, 4]


def test_a_grid_network_that_knows_its_size_cannot_follow():
    with pytest.raises(UserError, match=r"model\.scale_grid"):
        check_config(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, "model.scale_grid=true"]))
