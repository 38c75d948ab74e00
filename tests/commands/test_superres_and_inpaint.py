"""`infdiff superres` and `infdiff inpaint` as users run them."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, assert_one_line_error, copy_of, pixels


@pytest.fixture
def trained(points_run, tmp_path):
    copy_of(points_run, tmp_path)
    return tmp_path


def picture(path, size=(12, 20), mode="RGB"):
    """height x width, smooth."""
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BICUBIC).convert(mode).save(path)


def mask(path, size=(12, 20), box=(3, 4, 8, 10), mode="L"):
    values = np.zeros(size, dtype=np.uint8)
    values[box[0] : box[2], box[1] : box[3]] = 255
    Image.fromarray(values).convert(mode).save(path)


def superres(command, *arguments):
    return command("superres", "--run", "runs/x", "--input", "small.png", *arguments)


def inpaint(command, *arguments):
    return command("inpaint", "--run", "runs/x", "--input", "photo.png", "--mask", "mask.png", *arguments)


@pytest.mark.parametrize("method", ["windows", "guided", "encode"])
def test_super_resolution_of_any_aspect(method, command, script, trained):
    picture(trained / "small.png")
    result = superres(
        script if method == "guided" else command, "--res", "40", "--method", method, "--out", "large.png"
    )
    assert result.returncode == 0, result.stderr
    assert pixels(trained / "large.png").shape == (24, 40, 3)
    record = json.loads((trained / "large.json").read_text())
    assert record["method"] == method
    reduced = pixels(trained / "large.png").reshape(12, 2, 20, 2, 3).mean((1, 3))
    error = ((reduced - pixels(trained / "small.png").astype(float)) ** 2).mean()
    assert record["psnr_of_reduced"] == pytest.approx(10 * np.log10(255**2 / error), abs=0.1)
    if method != "encode":
        assert record["psnr_of_reduced"] > 35
    # Beyond the training size, 16, windows are the default.
    chosen = () if method == "windows" else ("--method", method)
    superres(command, "--res", "24x40", *chosen, "--out", "again.png")
    assert (pixels(trained / "large.png") == pixels(trained / "again.png")).all()


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "L", "P"])
def test_pictures_of_other_modes_are_converted(mode, command, trained):
    picture(trained / "small.png" if mode != "CMYK" else trained / "small.jpg", mode=mode)
    name = "small.jpg" if mode == "CMYK" else "small.png"
    result = command("superres", "--run", "runs/x", "--input", name, "--res", "40", "--steps", 1, "--out", "x.png")
    assert result.returncode == 0, result.stderr


def test_inpainting_keeps_what_is_visible(command, script, trained):
    picture(trained / "photo.png")
    mask(trained / "mask.png")
    result = inpaint(script, "--n", 2, "--out", "filled")
    assert result.returncode == 0, result.stderr
    original, a, b = (pixels(trained / name) for name in ("photo.png", "filled/00000.png", "filled/00001.png"))
    hidden = pixels(trained / "mask.png")[..., 0] > 127
    assert (a[~hidden] == original[~hidden]).all()
    assert (b[~hidden] == original[~hidden]).all()
    assert (a[hidden] != b[hidden]).any()
    inpaint(command, "--n", 1, "--out", "alone")
    assert (pixels(trained / "alone" / "00000.png") == a).all()
    inpaint(command, "--no-paste", "--out", "free")
    assert (pixels(trained / "free" / "00000.png")[~hidden] != original[~hidden]).any()


@pytest.mark.parametrize("method", ["windows", "guided"])
def test_both_ways_of_inpainting_keep_what_is_visible(method, command, trained):
    picture(trained / "photo.png", size=(24, 40))
    mask(trained / "mask.png", size=(24, 40), box=(6, 8, 16, 20))
    result = inpaint(command, "--method", method, "--out", "filled")
    assert result.returncode == 0, result.stderr
    original, filled = (pixels(trained / name) for name in ("photo.png", "filled/00000.png"))
    hidden = pixels(trained / "mask.png")[..., 0] > 127
    assert (filled[~hidden] == original[~hidden]).all()
    assert json.loads((trained / "filled" / "samples.json").read_text())["method"] == method
    # Beyond the training size, 16, windows are the default.
    inpaint(command, *(() if method == "windows" else ("--method", method)), "--out", "again")
    assert (pixels(trained / "again" / "00000.png") == filled).all()


@pytest.mark.parametrize("guidance", ["gradient", "projection"])
def test_both_kinds_of_guidance(guidance, command, trained):
    picture(trained / "photo.png")
    mask(trained / "mask.png")
    chosen = ("--method", "guided", "--guidance", guidance)
    result = superres(command, "--input", "photo.png", "--res", "24x40", *chosen, "--out", "large.png")
    assert result.returncode == 0, result.stderr
    record = json.loads((trained / "large.json").read_text())
    assert record["guidance"] == guidance
    assert record["psnr_of_reduced"] > 35
    result = inpaint(command, *chosen, "--steps", 3, "--out", "filled")
    assert result.returncode == 0, result.stderr
    assert json.loads((trained / "filled" / "samples.json").read_text())["guidance"] == guidance
    hidden = pixels(trained / "mask.png")[..., 0] > 127
    assert (pixels(trained / "filled" / "00000.png")[~hidden] == pixels(trained / "photo.png")[~hidden]).all()


def test_projection_in_tiles_is_the_whole_image(command, trained):
    picture(trained / "small.png")
    made = {}
    for tile in ("off", "5"):
        chosen = ("--method", "guided", "--guidance", "projection", "--tile", tile)
        result = superres(command, "--res", "24x40", *chosen, "--out", f"{tile}.png")
        assert result.returncode == 0, result.stderr
        made[tile] = pixels(trained / f"{tile}.png")
    # Inverting the sampler multiplies rounding errors.
    assert abs(made["off"] - made["5"]).mean() < 0.5


def test_guidance_and_tiles_that_have_no_effect_are_refused(command, trained):
    picture(trained / "small.png")
    picture(trained / "photo.png")
    mask(trained / "mask.png")
    windows, gradient = ("--method", "windows"), ("--method", "guided", "--guidance", "gradient")
    assert_one_line_error(superres(command, "--res", 40, *windows, "--guidance", "projection"), "--guidance", "windows")
    for call in (lambda *a: superres(command, "--res", 40, *a), lambda *a: inpaint(command, *a)):
        assert_one_line_error(call(*windows, "--tile", 4), "--tile 4", "windows")
        assert_one_line_error(call(*gradient, "--tile", 4), "--tile 4", "projection")
    fixed = ("--guidance", "projection", "--fixed-weight", 1)
    assert_one_line_error(inpaint(command, *fixed), "--fixed-weight 1", "projection")


def test_the_papers_guidance_weight(command, trained):
    picture(trained / "photo.png")
    mask(trained / "mask.png")
    filled = {}
    for weight in (0, 0.5):
        result = inpaint(command, "--method", "guided", "--fixed-weight", weight, "--no-paste", "--out", f"w{weight}")
        assert result.returncode == 0, result.stderr
        filled[weight] = pixels(trained / f"w{weight}" / "00000.png")
    assert (filled[0] != filled[0.5]).any()


def test_a_white_mask_is_plain_generation(command, trained):
    picture(trained / "photo.png")
    mask(trained / "mask.png", box=(0, 0, 12, 20), mode="1")
    result = inpaint(command, "--out", "filled")
    assert result.returncode == 0, result.stderr
    assert "white everywhere" in result.stdout


def test_variety_needs_a_latent_model_and_changes_the_filling(command, trained):
    picture(trained / "photo.png")
    mask(trained / "mask.png")
    assert_one_line_error(inpaint(command, "--variety", 0.5), "--variety 0.5", "infdiff train-latent")
    small = ["latent.width=16", "latent.layers=3", "latent.train.batch_size=8"]
    command("train-latent", "--run", "runs/x", "--steps", 5, *small)
    plain, varied = (inpaint(command, "--variety", v, "--out", f"v{v}") for v in (0, 1))
    assert plain.returncode == varied.returncode == 0, varied.stderr
    assert (pixels(trained / "v0" / "00000.png") != pixels(trained / "v1" / "00000.png")).any()


def test_bad_input_to_super_resolution(command, trained):
    picture(trained / "small.png")
    assert_one_line_error(superres(command, "--res", "10"), "--res 10", "smaller than the image")
    assert_one_line_error(superres(command, "--res", "big"), "--res")
    assert_one_line_error(superres(command, "--res", "40", "--steps", 1001), "--steps 1001")
    weight = ("--res", "40", "--weight")
    assert_one_line_error(superres(command, *weight, 3, "--method", "guided"), "--weight 3")
    assert_one_line_error(superres(command, *weight, 1), "--weight 1", "windows")
    assert_one_line_error(
        command("superres", "--run", "runs/x", "--input", "no.png", "--res", 9), "no.png", "no such file"
    )
    (trained / "small.png").write_text("text")
    assert_one_line_error(superres(command, "--res", "40"), "small.png", "cannot be read")


def test_bad_input_to_inpainting(command, trained):
    picture(trained / "photo.png")
    mask(trained / "mask.png", size=(12, 19))
    assert_one_line_error(inpaint(command), "mask.png", "12x19", "12x20")
    mask(trained / "mask.png", box=(0, 0, 0, 0))
    assert_one_line_error(inpaint(command), "nothing in it is white")
    mask(trained / "mask.png")
    assert_one_line_error(inpaint(command, "--variety", 2), "--variety 2")
    assert_one_line_error(inpaint(command, "--steps", 0), "--steps 0")
    assert_one_line_error(inpaint(command, "--fixed-weight", -1), "--fixed-weight -1")


def test_a_run_without_encoder(command, tmp_path):
    settings = [s for s in TINY if not s.startswith("model.z_dim")]
    command("train", "--steps", 1, "--out", "runs/x", *settings, "model.z_dim=0")
    picture(tmp_path / "small.png")
    assert_one_line_error(superres(command, "--res", "40"), "without an encoder")
    picture(tmp_path / "photo.png")
    mask(tmp_path / "mask.png")
    assert inpaint(command).returncode == 0


def test_interpolation_from_picture_to_picture(command, trained):
    picture(trained / "a.png", size=(30, 20))
    picture(trained / "b.png", size=(16, 16), mode="L")
    call = ("sample", "--run", "runs/x", "--interpolate", "a.png", "b.png", "--steps", 3)
    result = command(*call, "--frames", 4, "--res", "16x24", "--out", "way")
    assert result.returncode == 0, result.stderr
    folder = trained / "way"
    names = {"00000.png", "00001.png", "00002.png", "00003.png", "grid.png", "frames.gif", "samples.json"}
    assert {p.name for p in folder.iterdir()} == names
    with Image.open(folder / "frames.gif") as gif:
        assert (gif.n_frames, gif.size) == (6, (24, 16))  # there and back
    assert_one_line_error(command(*call, "--frames", 0), "--frames 0")
    # The network sees all pixels, also where new images are enlarged from the training size.
    larger = (*call, "--frames", 2, "--res", 64, "--tile", "auto")
    tiles = []
    for upscale in ("none", "bilinear"):
        assert command(*larger, "--upscale", upscale, "--out", upscale).returncode == 0
        tiles.append(json.loads((trained / upscale / "samples.json").read_text())["tile"])
    assert tiles[0] == tiles[1]
    assert_one_line_error(command(*call[:4], "a.png", "no.png"), "--interpolate no.png: no such file")
