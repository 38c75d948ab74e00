"""Where networks run in bfloat16, and what is computed in which format."""

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.methods.method import build_modules
from infdiff.points import draw_points
from infdiff.precision import has_fast_bfloat16, number_formats, with_bfloat16_weights, without_autocast
from infdiff.training.settings import OptimiserSettings
from tests.conftest import TINY, TINY_EDM, TINY_GRID


@pytest.mark.parametrize(("amx", "fast"), [(True, True), (False, False)])
def test_cpus_are_fast_with_matrix_units_alone(amx, fast, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is fast
    assert has_fast_bfloat16(torch.device("cuda"))


def test_autocast_is_off_inside():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with without_autocast(x.device):
            assert (x @ x).dtype == torch.float32
    with without_autocast(torch.device("meta")):
        pass


CUDA = torch.device("cuda")


def cuda_formats():
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark


def test_products_on_cuda_are_not_rounded_to_tf32_and_convolutions_may_be():
    before = cuda_formats()
    with number_formats(CUDA, bfloat16=False, static=True):
        assert cuda_formats() == ("highest", True, True)
        with number_formats(CUDA, bfloat16=False):
            assert cuda_formats() == ("highest", True, False)
    assert cuda_formats() == before


def test_what_a_program_had_set_comes_back(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    torch.set_float32_matmul_precision("high")
    try:
        with number_formats(CUDA, bfloat16=False, static=True):
            assert cuda_formats() == ("highest", True, False), "the fastest algorithm is not always the same"
        assert torch.get_float32_matmul_precision() == "high"
        with number_formats(torch.device("cpu"), bfloat16=True, static=True):
            assert torch.get_float32_matmul_precision() == "high", "on a CPU nothing is touched"
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("bfloat16", [True, False])
def test_samples_are_in_bfloat16_on_cuda_as_training_is(bfloat16):
    settings = OptimiserSettings(bfloat16=bfloat16)
    assert settings.samples_in_bfloat16(CUDA) is bfloat16
    assert not settings.samples_in_bfloat16(torch.device("cpu"))


NETWORKS = {
    "points": TINY,
    "every option": [*TINY, "model.sharp=true", "model.gated_input=true", "model.separate_latent=true"],
    "nonlinear": [*TINY, "model.nonlinear_kernel=true", "model.depthwise=false"],
    "dfu inside": [*TINY, "model.grid={kind: dfu, modes: 3, channels: 8, multipliers: [1, 2], blocks: 1}"],
    "points alone": [*TINY, "model.grid={kind: sparse, channels: 8, multipliers: [1, 2], blocks: 1}"],
    "unet": [*TINY_EDM, "model.grid.attention_sizes=[8]"],
    "dfu": [*TINY_GRID, "data.augment=0.1"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_cast_once_are_what_autocast_makes_of_them(name, generator):
    """To the last bit, on all pixels at the training size and beyond it."""
    config = load_config("demo", NETWORKS[name])
    network = build_modules(config)["denoiser"].eval().requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    copied = with_bfloat16_weights(network)
    cast = [key for key, value in copied.state_dict().items() if value.dtype == torch.bfloat16]
    assert len(cast) > len(network.state_dict()) / 4
    assert not any("norm.norm" in key or "conditioning" in key for key in cast)
    assert all(value.dtype == torch.float32 for value in network.state_dict().values())
    for size in ((16, 16), (24, 32)):
        images, t = torch.randn(2, 3, *size, generator=generator), torch.tensor([3.0, 700.0])
        z = torch.randn(2, config.latent_dim, generator=generator) if config.latent_dim else None
        outputs = []
        for model in (network, copied):
            with torch.autocast("cpu", torch.bfloat16):
                if config.method == "edm":
                    outputs.append(model(images, t))
                else:
                    ids = draw_points(2, size[0] * size[1], size, generator)
                    outputs.append(model(images.flatten(2).mT, model.geometry(ids, size), t, z))
        assert torch.equal(*outputs)
        assert outputs[0].float().std() > 0.01
