"""Fields from files to files: prepare, train, sample, enlarge, fill, export and load, with values in units."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import infdiff
from infdiff.diffusion.measurements import Reduction
from infdiff.errors import UserError
from infdiff.images.field_files import read_field
from tests.conftest import TINY, TINY_GRID, assert_one_line_error, command_in
from tests.fields import HEIGHT, WIDTH, deep_images, two_channels, with_holes

KINDS = {
    "two": (
        two_channels,
        ["--units", "m,Pa", "--names", "height,pressure", "--normalise", "meanstd"],
        2,
        (-6, 1e5 + 600),
    ),
    "deep": (deep_images, [], 1, (-20_000, 60_000)),
    "holes": (with_holes, ["--normalise", "quantile"], 1, (-6, 6)),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """(kind, folder) of fields that a tiny network was trained on for three steps."""
    folder = tmp_path_factory.mktemp(request.param)
    make, options, _, _ = KINDS[request.param]
    make(folder / "in")
    command = command_in(folder)
    prepared = command("prepare-data", "in", "--out", "d.lmdb", "--size", 16, "--workers", 1, *options)
    assert prepared.returncode == 0, prepared.stderr
    trained = command("train", "--data", "d.lmdb", "--out", "runs/x", "--steps", 3, *TINY)
    assert trained.returncode == 0, trained.stderr
    return request.param, folder


def first_file(folder):
    return sorted((folder / "in").iterdir())[0]


def in_range(values, kind):
    low, high = KINDS[kind][3]
    return bool((values >= low).all() and (values <= high).all())


def test_the_run_says_what_its_values_mean(made):
    kind, folder = made
    run = folder / "runs" / "x"
    record = json.loads((run / "field.json").read_text())
    assert record["channels"] == KINDS[kind][2]
    config = (run / "config.yaml").read_text()
    assert f"channels: {KINDS[kind][2]}\n" in config
    assert ("valid_pixels: {}" in config) == (kind != "holes")
    names = {path.name for path in (run / "samples").iterdir()}
    assert names == {"samples-00000003.png", "reconstructions-00000003.png"}


@pytest.mark.parametrize("form", ["npy", "tif"])
def test_samples_are_files_in_units_with_pictures(made, form):
    kind, folder = made
    command = command_in(folder)
    sampled = command("sample", "--res", "12x20", "--n", 2, "--steps", 2, "--format", form, "--out", f"s-{form}")
    assert sampled.returncode == 0, sampled.stderr
    names = {path.name for path in (folder / f"s-{form}").iterdir()}
    assert names == {f"0000{i}.{s}" for i in range(2) for s in (form, "png")} | {"grid.png", "samples.json"}
    values = read_field("x", folder / f"s-{form}" / "00001.npy".replace("npy", form), KINDS[kind][2])
    assert values.shape == (KINDS[kind][2], 12, 20)
    assert np.isfinite(values).all()
    assert in_range(values, kind)
    # The library returns the same.
    model = infdiff.load(folder / "runs" / "x", device="cpu")
    again = model.sample(2, "12x20", steps=2, output="array")
    assert again.dtype == np.float32
    np.testing.assert_allclose(again[1], values, rtol=1e-5, atol=1e-4 * np.abs(values).max())
    assert torch.equal(model.sample(2, "12x20", steps=2, output="tensor"), torch.from_numpy(again))
    assert (model.sample(2, "12x20", steps=2, output="numpy") == again.transpose(0, 2, 3, 1)).all()
    assert model.sample(1, 16, steps=2)[0].mode == "RGB"


def test_enlarging_keeps_units_and_what_is_missing(made):
    kind, folder = made
    path = first_file(folder)
    result = command_in(folder)("superres", "--input", path, "--res", 48, "--steps", 2, "--out", "large.npy")
    assert result.returncode == 0, result.stderr
    values = np.load(folder / "large.npy")
    assert values.shape == (KINDS[kind][2], 40, 48)
    assert np.isnan(values).any() == (kind == "holes")
    assert in_range(values[np.isfinite(values)], kind)
    assert (folder / "large.png").exists()
    record = json.loads((folder / "large.json").read_text())
    assert len(record["rms_of_reduced"]) == KINDS[kind][2]
    small = read_field("x", path, KINDS[kind][2])
    model = infdiff.load(folder / "runs" / "x", device="cpu")
    again = model.super_resolve(small, 48, steps=2, output="array")[0]
    np.testing.assert_allclose(again, values, rtol=1e-5, atol=1e-4 * np.nanmax(np.abs(values)))


def test_filling_keeps_what_is_known_to_the_bit(made):
    kind, folder = made
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:12, 6:15] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    path = first_file(folder)
    result = command_in(folder)("inpaint", "--input", path, "--mask", "mask.png", "--steps", 2, "--out", "filled")
    assert result.returncode == 0, result.stderr
    given, filled = read_field("x", path, KINDS[kind][2]), np.load(folder / "filled" / "00000.npy")
    hidden = (mask > 0) | np.isnan(given).any(axis=0)
    assert (filled[:, ~hidden] == given[:, ~hidden]).all()
    assert np.isfinite(filled).all()
    assert (filled[:, mask > 0] != given[:, mask > 0]).any()
    model = infdiff.load(folder / "runs" / "x", device="cpu")
    again = model.inpaint(given, mask, steps=2, output="array")[0]
    assert (again[:, ~hidden] == given[:, ~hidden]).all()


def test_missing_pixels_are_filled_without_a_mask(made):
    kind, folder = made
    result = command_in(folder)("inpaint", "--input", first_file(folder), "--steps", 2, "--out", "completed")
    if kind != "holes":
        assert_one_line_error(result, "--mask", "no pixel is missing")
        return
    assert result.returncode == 0, result.stderr
    assert np.isfinite(np.load(folder / "completed" / "00000.npy")).all()


def test_an_export_needs_nothing_else(made, tmp_path):
    _, folder = made
    model = infdiff.load(folder / "runs" / "x", device="cpu")
    other = infdiff.load(model.export(tmp_path / "exported"), device="cpu")
    (folder / "d.lmdb").rename(folder / "away.lmdb")
    try:
        assert (other.sample(2, 16, steps=2, output="array") == model.sample(2, 16, steps=2, output="array")).all()
    finally:
        (folder / "away.lmdb").rename(folder / "d.lmdb")


def test_morphing_makes_pictures(made):
    _, folder = made
    path = first_file(folder)
    result = command_in(folder)("sample", "--interpolate", path, path, "--frames", 2, "--steps", 2, "--out", "frames")
    assert result.returncode == 0, result.stderr
    assert (folder / "frames" / "frames.gif").exists()


def test_training_goes_on_and_refuses_other_values(made):
    kind, folder = made
    command = command_in(folder)
    more = command("train", "--data", "d.lmdb", "--out", "runs/x", "--steps", 3, *TINY)
    assert more.returncode == 0, more.stderr
    (folder / "d.lmdb").rename(folder / "away.lmdb")
    try:
        command("prepare-data", "in", "--out", "d.lmdb", "--size", 16, "--workers", 1, "--normalise", "minmax")
        same = kind == "deep"
        result = command("train", "--data", "d.lmdb", "--out", "runs/x", "--steps", 3, *TINY)
        assert result.returncode == (0 if same else 2)
        assert same or "normalisation" in result.stderr
    finally:
        (folder / "away.lmdb").rename(folder / "d.lmdb")


def test_an_ensemble_has_a_mean_a_spread_and_a_ratio(made):
    kind, folder = made
    command = command_in(folder)
    channels = KINDS[kind][2]
    truth = read_field("x", first_file(folder), channels)
    values = np.where(np.arange(truth.size // channels).reshape(truth.shape[1:]) % 3 == 0, np.float32(np.nan), truth)
    np.save(folder / "gauges.npy", values)
    options = ["--input", "gauges.npy", "--steps", 2, "--n", 3, "--out", "several", "--method", "guided"]
    result = command("inpaint", "--run", "runs/x", *options, "--ensemble", "--truth", first_file(folder))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("spread over error") == channels
    members = np.stack([np.load(folder / "several" / f"{i:05}.npy") for i in range(3)])
    np.testing.assert_allclose(np.load(folder / "several" / "mean.npy"), members.mean(axis=0), rtol=1e-5, atol=1e-5)
    spread = np.load(folder / "several" / "spread.npy")
    known = ~np.isnan(values).any(axis=0)
    assert (spread[:, known] == 0).all()
    assert (spread[:, ~known] > 0).any()
    assert (folder / "several" / "ensemble.png").exists()
    np.save(folder / "small.npy", truth[:, :8])
    for wrong, parts in (
        (["--truth", "small.npy"], ["--truth small.npy", "goes with --ensemble"]),
        (["--truth", "small.npy", "--ensemble"], ["--truth small.npy", "pixels, and the input"]),
        (["--ensemble", "--n", 1], ["--n 1", "2 variants or more"]),
    ):
        assert_one_line_error(command("inpaint", "--run", "runs/x", *options, *wrong), *parts)


def in_units(kind, folder):
    """Two fields (2, C, 16, 16) float32 without holes, and their reduction by 4 down and across."""
    values = np.stack(
        [np.nan_to_num(read_field("x", path, KINDS[kind][2])) for path in sorted((folder / "in").iterdir())[:2]]
    )
    values = torch.from_numpy(values[:, :, :16, :16])
    return values, Reduction((16, 16), (4, 4))


def test_measurements_are_in_units(made, monkeypatch):
    """What is restored by projection has the measurement that was made; the offset of units is no disagreement."""
    kind, folder = made
    monkeypatch.chdir(folder)  # latents come from the run's data
    model = infdiff.load(folder / "runs" / "x", device="cpu")
    values, operator = in_units(kind, folder)
    scale = model.trained.field.in_units(torch.ones(1, values.shape[1], 1, 1)) - model.trained.field.in_units(
        torch.zeros(1, values.shape[1], 1, 1)
    )
    if kind == "holes":
        with pytest.raises(UserError, match="quantile, which is no affine map: take gradient"):
            model.restore(operator(values), operator, 16, guidance="projection", steps=3)
    else:
        found = model.restore(operator(values), operator, 16, steps=3, output="tensor")
        assert float(((operator(found) - operator(values)) / scale).abs().max()) < 1e-3
    free, guided = (
        model.restore(
            operator(values), operator, 16, guidance="gradient", weight=weight, iterations=3, steps=5, output="tensor"
        )
        for weight in (0.0, 1.0)
    )
    off = [float(((operator(one) - operator(values)) / scale).square().mean()) for one in (free, guided)]
    assert off[1] < 0.7 * off[0]


def test_differentiable_units_are_the_units(made):
    kind, folder = made
    field = infdiff.load(folder / "runs" / "x", device="cpu").trained.field
    values = (torch.rand(2, field.channels, 5, 6, generator=torch.Generator().manual_seed(0)) * 3 - 1.5).double()
    found = field.differentiable_units(values)
    torch.testing.assert_close(found.float(), field.in_units(values), rtol=1e-5, atol=1e-5)
    assert torch.autograd.gradcheck(field.differentiable_units, values.requires_grad_(), atol=1e-2, rtol=1e-3, eps=1e-7)
    if field.affine is not None:
        factor, offset = field.affine
        torch.testing.assert_close(factor * values.float() + offset, found.float(), rtol=1e-5, atol=1e-5)
    assert (field.affine is None) == (kind == "holes")


def test_evaluation_compares_fields_in_their_units(made):
    kind, folder = made
    command = command_in(folder)
    assert_one_line_error(command("evaluate", "--run", "runs/x", "--task", "superres"), "--task superres", "denoise")
    result = command("evaluate", "--run", "runs/x", "--task", "denoise", "--n", 5, "--res", 16, "--split", "train")
    assert result.returncode == 0, result.stderr
    options = ["--n", 5, "--res", "16,24", "--json", "scores.json", "--report", "report.html", "--distances", "1,3"]
    result = command("evaluate", "--run", "runs/x", "--steps", 2, *options)
    assert result.returncode == 0, result.stderr
    written = json.loads((folder / "scores.json").read_text())
    channels = KINDS[kind][2]
    # No patch of 8 x 8 pixels is known where a third of them is missing at random.
    assert len(written["results"]) == 2 * (channels + (kind != "holes"))
    assert "real fields have none" in result.stdout if kind == "holes" else "missing" not in result.stdout
    for row in written["results"]:
        assert (row["images"], row["at"]) == (5, "16")
        if row["what"] == "all channels":
            assert ("correlation_error" in row) == (channels == 2)
            assert "energy" in row
        else:
            assert in_range(np.array([row["mean"], row["real_mean"]]), kind)
            assert set(row["variogram_errors"]) == {"1", "3"}
            assert ("spectrum_error" in row) == (kind != "holes")
    assert "Variograms" in (folder / "report.html").read_text()


def test_fields_of_a_folder_are_compared_with_others(tmp_path):
    """A set with itself has no distance, and its values have numpy's moments; pictures of fields are not compared."""
    two_channels(tmp_path / "in")
    command = command_in(tmp_path)
    size = ["--size", "native", "--workers", 1]
    assert command("prepare-data", "in", "--out", "d.lmdb", *size, "--normalise", "meanstd").returncode == 0
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "00.png")
    result = command("evaluate", "--images", "in", "--data", "d.lmdb", "--json", "scores.json")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "scores.json").read_text())["results"]
    values = np.stack([np.load(path) for path in sorted((tmp_path / "in").glob("*.npy"))])
    for channel, row in enumerate(rows[:2]):
        assert row["std"] == pytest.approx(values[:, channel].astype(float).std(), rel=1e-6)
        assert row["wasserstein"] == pytest.approx(0, abs=1e-5 * float(values[:, channel].std()))
        assert row["spectrum_error"] == pytest.approx(0, abs=1e-4)
    assert rows[2]["correlation_error"] == pytest.approx(0, abs=1e-6)


def test_distances_are_told_in_the_unit_of_the_extent(tmp_path):
    """Variograms at 4 and 12 km of fields 96 km wide are those at 1 and 3 of their 24 pixels."""
    two_channels(tmp_path / "in")
    command = command_in(tmp_path)
    options = ("--size", "native", "--workers", 1, "--normalise", "meanstd")
    assert command("prepare-data", "in", "--out", "plain.lmdb", *options).returncode == 0
    extent = f"{4 * WIDTH}km"
    assert command("prepare-data", "in", "--out", "wide.lmdb", *options, "--extent", extent).returncode == 0
    (tmp_path / "others").mkdir()
    for path in sorted((tmp_path / "in").glob("*.npy")):
        np.save(tmp_path / "others" / path.name, np.load(path) * np.float32(1.5))
    errors = {}
    for name, distances in (("plain", "1,3"), ("wide", "4,12")):
        call = ("evaluate", "--images", "others", "--data", f"{name}.lmdb", "--metrics", "variogram")
        result = command(*call, "--distances", distances, "--json", "scores.json", "--report", "report.html")
        assert result.returncode == 0, result.stderr
        rows = json.loads((tmp_path / "scores.json").read_text())["results"]
        errors[name] = [row["variogram_errors"] for row in rows]
    assert [set(one) for one in errors["wide"]] == [{"4", "12"}] * 2
    assert [one["4"] for one in errors["wide"]] == [one["1"] for one in errors["plain"]]
    assert [one["12"] for one in errors["wide"]] == [one["3"] for one in errors["plain"]]
    refused = command(*call, "--distances", "6")
    assert_one_line_error(refused, "--distances 6", "is 4 km: want multiples")
    cropped = command("prepare-data", "in", "--out", "c.lmdb", *options, "--size", 16, "--extent", extent, "--crops", 2)
    assert_one_line_error(cropped, f"--extent {extent}", "give --min-crop 1, too")


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["--metrics", "frechet"], ["--metrics frechet", "wasserstein"]),
        (["--network", "clip"], ["--network clip", "RGB images"]),
        (["--patches", 16], ["--patches 16", "RGB images"]),
        (["--distances", "1.5"], ["--distances 1.5", "is 1 pixels: want multiples"]),
        (["--distances", "one"], ["--distances one", "want numbers"]),
        (["--distances", "16"], ["--distances 16", "fields of 16 pixels"]),
        (["--data", "x.npz"], ["--data x.npz", "RGB images"]),
    ],
)
def test_options_of_images_are_refused_for_fields(given, parts, made):
    _, folder = made
    assert_one_line_error(
        command_in(folder)("evaluate", "--run", "runs/x", "--n", 5, "--steps", 2, "--res", 16, *given), *parts
    )


def test_fields_are_compared_with_fields_alone(made, photos, tmp_path):
    _, folder = made
    command = command_in(folder)
    assert_one_line_error(
        command("evaluate", "--images", "in", "--data", photos, "--n", 5), "RGB images", "prepare both alike"
    )


@pytest.mark.parametrize("extra", [[], ["edm.noise=mollified"], ["data.resolutions={8: 1, 16: 1}"]])
def test_grid_networks_are_trained_on_fields_with_holes(extra, tmp_path):
    with_holes(tmp_path / "in")
    command = command_in(tmp_path)
    result = command("train", "--data", "in", "--out", "r", "--steps", 2, *TINY_GRID, *extra)
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    assert all(
        np.isfinite(value) for record in records for key, value in record.items() if "loss" in key and "es" not in key
    )
    result = command("sample", "--run", "r", "--steps", 2, "--out", "s")
    assert result.returncode == 0, result.stderr
    assert np.load(tmp_path / "s" / "00000.npy").shape == (1, 16, 16)


def test_bad_input_is_one_line(made):
    kind, folder = made
    command = command_in(folder)
    Image.new("RGB", (12, 12)).save(folder / "rgb.png")
    if KINDS[kind][2] != 3:
        assert_one_line_error(command("superres", "--input", "rgb.png", "--res", 24), "--input rgb.png", "3 channels")
    assert_one_line_error(
        command("train", "--data", "d.lmdb", "--out", "r", *TINY, "data.channels=5"), "data.channels: 5", "d.lmdb"
    )
    assert_one_line_error(
        command("train", "--data", "d.lmdb", "--out", "r", *TINY, "train.eval_every=2"), "train.eval_every"
    )
    assert_one_line_error(
        command("prepare-data", "in", "--out", "o.lmdb", "--format", "webp"), "--format webp", "fields are stored"
    )


def test_options_of_fields_are_refused_for_rgb(points_run, photos, tmp_path):
    command = command_in(tmp_path)
    assert_one_line_error(command("sample", "--run", points_run, "--format", "tif"), "--format tif")
    assert_one_line_error(
        command("prepare-data", photos, "--out", "o.lmdb", "--units", "K"), "--units K", "--normalise"
    )
    assert_one_line_error(
        command("prepare-data", photos, "--out", "o.lmdb", "--rgb", "--normalise", "none"), "--normalise none", "--rgb"
    )
    deep_images(tmp_path / "deep")
    result = command("prepare-data", "deep", "--out", "o.lmdb", "--size", 16, "--rgb", "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert "fields" not in result.stdout
    result = command("prepare-data", photos, "--out", "f.lmdb", "--size", 16, "--normalise", "minmax", "--workers", 1)
    assert "fields of 3 channels" in result.stdout
    assert_one_line_error(
        command("train", "--data", "f.lmdb", "--out", "r", *TINY, "data.validation_path=o.lmdb"), "o.lmdb", "alike"
    )
