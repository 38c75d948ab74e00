"""DFU: any size, one function at every size, what belongs to which part, the published settings."""

import math

import pytest
import torch

from infdiff.coordinates import cell_centres
from infdiff.models import DFU, GridDenoiser
from infdiff.nn.resample import BilinearDownsample
from infdiff.nn.spectral_conv import DualConv

SMALL = {
    "in_channels": 3,
    "out_channels": 3,
    "channels": 4,
    "multipliers": (1, 2, 2, 2),
    "blocks": 2,
    "modes": 8,
    "condition_dim": 6,
}


def network(**options):
    """Zero initialisation would hide mistakes."""
    torch.manual_seed(0)
    model = DFU(**SMALL | options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch(size, generator, channels=3):
    x = torch.randn(2, channels, *size, dtype=torch.float64, generator=generator)
    return x, torch.randn(2, 6, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("size", [(80, 80), (48, 48), (33, 50), (9, 5), (1, 1)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"modes": 0},
        {"kernel_size": 1},
        {"factor_rank": 2, "attention_levels": (2, 3), "layout": True},
        {"multipliers": (1,)},
    ],
    ids=["dfu", "multires", "fno", "options", "one_level"],
)
def test_any_size_is_kept_at_every_level(size, options, generator):
    model = network(**options)
    sides = []
    for stage in model.down.levels:
        stage[0].register_forward_hook(lambda module, inputs, out: sides.append(out.shape[2:]))
    x, condition = batch(size, generator)
    out = model(x, condition)
    assert out.shape == x.shape
    assert out.isfinite().all()
    assert sides == [tuple(math.ceil(n / 2**level) for n in size) for level in range(len(model.levels))]
    assert model(x).shape == x.shape, "without a condition"


def test_all_but_the_spatial_taps_is_one_function_at_every_size():
    """With taps of one cell, twice the size divides the change of the output by four: second order. 3x3 taps do not."""

    def change(n, **options):
        model, condition = network(multipliers=(1, 2), **options), torch.ones(1, 6, dtype=torch.float64)

        def run(n):
            wave = torch.cos(2 * math.pi * cell_centres(n))[:, None] * torch.sin(2 * math.pi * cell_centres(n))
            return model(torch.stack([wave, 0.5 * wave.mT, wave.square()])[None], condition)

        small = run(n)
        return ((BilinearDownsample()(run(2 * n)) - small).abs().mean() / small.std()).item()

    with torch.no_grad():
        assert change(64, kernel_size=1) < 0.02
        assert change(64, kernel_size=1) < 0.3 * change(32, kernel_size=1)
        assert change(64, kernel_size=3) > 0.6 * change(32, kernel_size=3)


def test_modes_are_halved_at_each_level_and_never_vanish():
    model = DFU(**SMALL | {"modes": 4, "multipliers": (1, 1, 1, 1)})
    modes = [stage[0].conv_in.spectral.modes for stage in model.down.levels]
    assert modes == [4, 2, 1, 1]
    assert [stage[0].conv_in.spectral.modes for stage in model.levels] == modes[::-1]
    assert model.middle[0].conv_out.spectral.modes == 1


def test_attention_is_where_it_was_asked_for():
    model = DFU(**SMALL, attention_levels=(1,))
    names = [name for name, _ in model.named_parameters() if "attention.qkv.weight" in name]
    where = [("down.levels.1.", 2), ("middle.0.", 1), ("levels.2.", 2)]
    assert [sum(name.startswith(prefix) for name in names) for prefix, _ in where] == [count for _, count in where]
    assert len(names) == 5
    with pytest.raises(ValueError, match=r"attention_levels=\[4\]: want levels 0 to 3"):
        DFU(**SMALL, attention_levels=(4,))


@pytest.mark.parametrize("options", [{}, {"modes": 0}, {"factor_rank": 2}, {"kernel_size": 1}])
def test_spatial_parameters_are_the_taps_of_every_dual_convolution_and_both_ends(options):
    model = DFU(**SMALL | options)
    duals = {name: module for name, module in model.named_modules() if isinstance(module, DualConv)}
    # 2 convolutions a block, 2 blocks a level down and up, 2 in the middle; weight and bias each.
    assert len(duals) == 2 * (2 * 4 + 2 + 2 * 4)
    taps = {f"{name}.spatial.{part}" for name in duals for part in ("weight", "bias")}
    ends = {f"{end}.{part}" for end in ("down.conv_in", "conv_out") for part in ("weight", "bias")}
    everything = dict(model.spatial_parameters())
    assert everything.keys() == taps | ends
    assert all(parameter is model.get_parameter(name) for name, parameter in everything.items())
    kept = {name for name, _ in model.spatial_parameters(except_bottom=True)}
    # Level 3 is the bottom: the last on the way down, the middle, the first on the way up.
    bottom = {name for name in everything if name.startswith(("down.levels.3.", "middle.", "levels.0."))}
    assert len(bottom) == 2 * 2 * (2 + 2 + 2)
    assert kept == everything.keys() - bottom


def test_condition_and_layout_reach_the_output(generator):
    for layout in (False, True):
        model = network(layout=layout)
        x, condition = batch((12, 12), generator)
        assert not torch.allclose(model(x, condition), model(x, condition + 1))
        assert (model.layout is not None) == layout


def test_a_new_network_keeps_the_size_of_its_input(generator):
    torch.manual_seed(0)
    model = DFU(**SMALL | {"channels": 16, "out_channels": 16})
    out = model(torch.randn(4, 3, 32, 32, generator=generator), torch.randn(4, 6, generator=generator))
    assert 0.3 < out.std() < 3


def test_a_training_step_reaches_every_parameter_under_autocast(generator):
    torch.manual_seed(0)
    model = GridDenoiser(DFU(**SMALL, attention_levels=(3,), factor_rank=2), condition_dim=6)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(torch.randn(2, 3, 20, 20, generator=generator), torch.tensor([-0.5, 0.7]))
        (out.float() - 1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


def test_the_denoiser_starts_at_zero_and_hears_the_noise_level(generator):
    torch.manual_seed(0)
    model = GridDenoiser(DFU(**SMALL), condition_dim=6)
    x = torch.randn(3, 3, 10, 7, generator=generator)
    levels = torch.tensor([-1.5, 0.0, 1.0])
    assert model(x, levels).abs().max() == 0
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    same = x[:1].expand(3, -1, -1, -1)
    out = model(same, levels)
    assert out.shape == x.shape
    assert (out[0] - out[1]).abs().max() > 1e-3
    torch.testing.assert_close(model(same[1:2], levels[1:2]), out[1:2], rtol=1e-4, atol=1e-5)


# The variants of the published setting, 4 levels of 4 blocks and M = 16; its own count is asserted of its
# configuration. Channels are those of the 62 M U-Net (EDM's for 64x64 faces).
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"modes": 0}, 50_576_003),
        ({"kernel_size": 1}, 754_819_715),
        ({"factor_rank": 32}, 73_022_083),
    ],
    ids=["multires_unet", "fno_unet", "dfu_factorised"],
)
def test_parameter_counts_of_variants_of_the_published_setting(options, count):
    published = {"channels": 128, "multipliers": (1, 2, 2, 2), "blocks": 4, "modes": 16, "condition_dim": 512}
    with torch.device("meta"):
        model = GridDenoiser(DFU(**SMALL | published | options), condition_dim=512)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
