"""Sampling options: filled in from the run, checked once; and a registered sampler is the one that runs."""

import dataclasses
import math

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.coordinates import scale_of
from infdiff.diffusion.samplers import EDM_SAMPLERS, SAMPLERS, Sampler, ddim, ddpm, heun
from infdiff.errors import OptionError
from infdiff.methods.method import method_of
from infdiff.methods.sampling import (
    SamplingOptions,
    check_enlarging,
    check_guidance,
    default_batch,
    tile_rows,
)
from infdiff.methods.sizes import training_size
from infdiff.models import held_tiles
from infdiff.ops import rows_around
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY

CPU = torch.device("cpu")


def points(*settings):
    return method_of(load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, *settings]))


def edm(*settings):
    small = ["data.resolutions={8: 1, 16: 1}", "data.size=16", "model.grid.channels=8", "model.grid.modes=4"]
    small += ["sample.upscale=none"]
    return method_of(load_config(CONFIG_FOLDER / "dfu_landscapes_64.yaml", [*small, *settings]))


def test_what_is_not_given_is_the_runs():
    method = points("sample.sampler=ddim", "sample.steps=7", "sample.eta=0.25", "sample.truncation=0.6")
    assert SamplingOptions.of(method) == SamplingOptions("ddim", 7, eta=0.25, truncation=0.6, deblur="wiener")
    given = SamplingOptions.of(method, (16, 24), steps=9, eta=None, truncation=0.0, deblur="none", tile=5)
    assert given == SamplingOptions("ddim", 9, eta=0.25, truncation=0.0, deblur="none", tile=5)
    assert SamplingOptions.of(edm("sample.steps=3", "sample.churn=2.5")) == SamplingOptions("heun", 3, churn=2.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        given.steps = 3


def test_the_record_has_the_options_of_the_method():
    shared, noise = {"upscale": "none", "deblur": "none"}, {"eta": 0.0, "variance": "posterior"}
    method = points("sample.sampler=ddim", "sample.steps=7", "sample.deblur=none")
    record = SamplingOptions.of(method, tile=3).record(method)
    assert record == {"sampler": "ddim", "steps": 7, "truncation": record["truncation"]} | shared | noise
    assert SamplingOptions.of(edm(), steps=3).record(edm()) == {"sampler": "heun", "steps": 3, "churn": 0.0} | shared


@pytest.mark.parametrize(
    ("method", "given", "named", "problem"),
    [
        (points, {"wrong": 1}, "wrong", "unknown option"),
        (points, {"steps": 0}, "steps", "1 to 1000"),
        (points, {"steps": 1001}, "steps", "1 to 1000"),
        (points, {"sampler": "heun"}, "sampler", "ddim, ddpm, dpm++"),
        (points, {"eta": 1.5, "sampler": "ddim"}, "eta", "0 (deterministic) to 1"),
        (points, {"eta": 0.5, "sampler": "dpm++"}, "eta", "goes with ddim, not with dpm++"),
        (points, {"variance": "beta", "sampler": "ddim"}, "variance", "goes with ddpm, not with ddim"),
        (points, {"variance": "both", "sampler": "ddpm"}, "variance", "want posterior or beta"),
        (points, {"churn": 1.0}, "churn", "a run of method infinity_diff has only sampler, steps, eta, variance,"),
        (points, {"truncation": -0.1}, "truncation", "0 (the mean latent) or more"),
        (points, {"truncation": math.inf}, "truncation", "0 (the mean latent) or more"),
        (points, {"truncation": math.nan}, "truncation", "0 (the mean latent) or more"),
        (points, {"upscale": "bicubic"}, "upscale", "none, bilinear"),
        (points, {"upscale": "bilinear", "size": (16, 24)}, "upscale", "16x24"),
        (edm, {"upscale": "windows"}, "upscale", "wants a run of method infinity_diff with an encoder"),
        (points, {"tile": "big"}, "tile", "auto or off"),
        (points, {"tile": 0}, "tile", "auto or off"),
        (edm, {"sampler": "ddim"}, "sampler", "heun"),
        (edm, {"steps": 0}, "steps", "at least 1"),
        (edm, {"eta": 0.0}, "eta", "a run of method edm has only sampler, steps, churn"),
        (edm, {"truncation": 1.0}, "truncation", "a run of method edm has only sampler, steps, churn"),
        (edm, {"churn": -1.0}, "churn", "0 (deterministic) or more"),
        (points, {"deblur": "network"}, "deblur", "model.sharp"),
        (points, {"deblur": "smooth"}, "deblur", "want auto, wiener or none"),
        (edm, {"deblur": "wiener"}, "deblur", "white noise"),
        (edm, {"deblur": "network"}, "deblur", "want auto, none"),
        (edm, {"tile": "auto"}, "tile", "all rows"),
    ],
)
def test_what_cannot_work_is_named_once(method, given, named, problem):
    with pytest.raises(OptionError) as error:
        SamplingOptions.of(method("sample.sampler=heun" if method is edm else "sample.sampler=ddim"), **given)
    assert error.value.name == named
    assert problem in str(error.value)
    assert str(error.value).startswith(f"{named}: ")


def test_limits_of_guidance_and_size():
    for arguments, named in (((3.0,), "weight"), ((1.0, 2.0), "variety")):
        with pytest.raises(OptionError) as error:
            check_guidance(*arguments)
        assert error.value.name == named
    assert check_enlarging((12, 20), "40") == (24, 40)
    assert check_enlarging((12, 20), "30x40") == (30, 40)
    for res in ("10", "12x19", "big", "0"):
        with pytest.raises(OptionError, match=f"res: {res}: "):
            check_enlarging((12, 20), res)


@pytest.mark.parametrize(
    ("method", "settings", "ways"),
    [
        (points, [], ("wiener", "none")),
        (points, ["model.sharp=true"], ("network", "wiener", "none")),
        (points, ["diffusion.target=image"], ("network", "wiener", "none")),
        (points, ["diffusion.sigma=0"], ("none",)),
        (edm, [], ("none",)),
        (edm, ["edm.noise=mollified"], ("wiener", "none")),
    ],
)
def test_the_best_way_to_undo_the_blur_is_the_default(method, settings, ways):
    run = method(*settings)
    assert run.deblurs == ways
    assert SamplingOptions.of(run).deblur == SamplingOptions.of(run, deblur="auto").deblur == ways[0]
    assert SamplingOptions.of(method(*settings, f"sample.deblur={ways[-1]}")).deblur == "none"


def test_tiles_are_for_large_images():
    method = points()
    assert tile_rows(method, (16, 16)) is None
    assert tile_rows(method, (16, 16), "auto") == method.tile_rows((16, 16), CPU)
    assert tile_rows(method, (16, 16), "3") == 3
    large = (20_000, 20_000)
    assert tile_rows(method, large) == method.tile_rows(large, CPU)
    assert tile_rows(method, large, "off") is None
    assert SamplingOptions.of(method, large).tile == method.tile_rows(large, CPU)
    assert SamplingOptions.of(method, large, upscale="bilinear").tile is None, "sampled at the training size"
    assert SamplingOptions.of(method, large, upscale="cosine").tile is None
    assert tile_rows(edm(), large) is None


@pytest.mark.parametrize("config", ["demo", "ffhq_256"])
@pytest.mark.parametrize("side", [2048, 4096])
def test_tiles_on_a_cpu_take_little_memory(config, side):
    """Their own, by the count of what is held; high enough that rows are not read more than three times."""
    method, size = method_of(load_config(CONFIG_FOLDER / f"{config}.yaml", [])), (side, side)
    rows = tile_rows(method, size, "auto")
    model = method.config.model
    reach = rows_around(model.kernel_size, scale_of(size, training_size(method.config)))
    assert reach <= rows <= method.tile_rows(size, torch.device("cuda"))
    assert held_tiles(model.blocks) * rows * side * model.channels * 4 < 1.75 * 2**30


def test_tiles_follow_the_free_memory_of_a_cuda_device(monkeypatch):
    method, size, device = points(), (64, 64), torch.device("cuda")
    needed = method.feature_bytes(size)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    for free, kept, tiled in ((2 * needed, 0, False), (2 * needed - 2, 0, True), (needed, needed, False)):
        # What PyTorch keeps of the device, but no tensor has, is free, too.
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 100 * free))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device, kept=kept: 100 + kept)
        assert (tile_rows(method, size, device=device) is not None) is tiled
        assert (SamplingOptions.of(method, size, device).tile is not None) is tiled
    assert tile_rows(method, size) is None


def test_cosine_samples_no_more_pixels_than_the_training_size_has_along_either_axis():
    options = SamplingOptions.of(points(), upscale="cosine")
    assert options.sampled_at((64, 64), (16, 16)) == (16, 16)
    assert options.sampled_at((12, 64), (16, 16)) == (12, 16)
    assert options.sampled_at((8, 8), (16, 16)) == (8, 8)
    assert default_batch(points(), (512, 512), options) > default_batch(points(), (512, 512))
    assert default_batch(points(), (20_000, 20_000), options) == 1


def test_a_batch_is_smaller_where_memory_is_kept_for_gradients():
    assert default_batch(points(), (16, 16)) == 64
    assert 1 <= default_batch(points(), (2048, 2048), guided=True) < default_batch(points(), (2048, 2048)) < 64


def test_evaluations_are_the_registry_entrys(monkeypatch):
    assert SamplingOptions("ddim", 7).evaluations(points()) == 7
    assert SamplingOptions("heun", 7).evaluations(edm()) == 13
    monkeypatch.setitem(EDM_SAMPLERS, "thrice", Sampler(heun, lambda steps: 3 * steps))
    assert SamplingOptions("thrice", 7).evaluations(edm()) == 21


@pytest.mark.parametrize(
    ("method", "registry", "name"), [(points, SAMPLERS, "ddim"), (edm, EDM_SAMPLERS, "heun")], ids=["points", "edm"]
)
def test_what_is_registered_is_what_runs(method, registry, name, monkeypatch):
    """Every name runs its own function, with the times or levels of the steps and the run's noise."""
    calls = []

    def constant(denoise, x, steps, **given):
        calls.append((len(steps), sorted(given)))
        estimate = denoise(x, steps[0])
        assert estimate.shape == x.shape
        return torch.full_like(x, 0.25)

    monkeypatch.setitem(registry, "constant", Sampler(constant))
    run = method()
    assert "constant" in run.samplers
    torch.manual_seed(0)
    modules = run.networks()
    given = {"size": (16, 16), "seed": 0, "indices": [0, 1], "device": CPU}
    given["z"] = torch.zeros(2, 8) if "encoder" in modules else None
    seen = []
    options = SamplingOptions.of(run, sampler="constant", steps=3, deblur="none")
    out = run.generate(modules["denoiser"].eval(), options=options, on_step=lambda: seen.append(1), **given)
    assert torch.equal(out, torch.full((2, 3, 16, 16), 0.25))
    assert len(seen) == options.evaluations(run) - 2 == 1, "it evaluates once, where its entry says thrice"
    assert calls == [(4, ["alpha_bar", "noise"] if registry is SAMPLERS else ["noise"])]
    plain = run.generate(modules["denoiser"], options=SamplingOptions(name, steps=3), **given)
    assert not torch.equal(plain, out)


@pytest.mark.parametrize(
    ("method", "registry", "function", "option", "named", "value"),
    [
        (points, SAMPLERS, ddim, "eta", "eta", 0.5),
        (points, SAMPLERS, ddpm, "variance", "variance", "beta"),
        (edm, EDM_SAMPLERS, heun, "churn", "s_churn", 0.5),
    ],
    ids=["ddim", "ddpm", "edm"],
)
def test_a_samplers_own_option_reaches_it(method, registry, function, option, named, value, monkeypatch):
    seen = []

    def watched(denoise, x, steps, **given):
        seen.append(given[named])
        return function(denoise, x, steps, **given)

    monkeypatch.setitem(registry, "watched", Sampler(watched, options=(option,)))
    run = method()
    torch.manual_seed(0)
    modules = run.networks()
    z = torch.zeros(1, 8) if "encoder" in modules else None
    options = SamplingOptions.of(run, sampler="watched", steps=2, **{option: value})
    run.generate(modules["denoiser"].eval(), size=(16, 16), seed=0, indices=[0], z=z, device=CPU, options=options)
    assert seen == [value]
