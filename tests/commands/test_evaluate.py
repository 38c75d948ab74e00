"""`infdiff evaluate` as users run it."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image

from infdiff.cli import explain
from infdiff.commands.evaluate import main as evaluate_main
from infdiff.errors import UserError
from infdiff.metrics.features import DEFAULT, NETWORKS, FeatureNetwork
from tests.conftest import ROOT, TINY, assert_one_line_error, command_in
from tests.metrics.sets import NETWORK as MOMENTS

METRICS = {"frechet", "kid", "precision", "recall", "diversity", "spectrum", "nearest", "memorisation"}
COST = {"seconds_per_image", "peak_mb", "made_on"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INFDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def light_features(monkeypatch):
    """A network of as many features as the default one, at a hundredth of the time: for what is done with features."""
    weights = torch.randn(192, 1280, generator=torch.Generator().manual_seed(0)) / 192**0.5

    def extract(images):
        small = F.interpolate(images.float() / 255, (8, 8), mode="bilinear", antialias=True)
        return (small.flatten(1) @ weights).relu()

    network = FeatureNetwork(DEFAULT, "light", 1280, extract, torch.device("cpu"))
    monkeypatch.setitem(NETWORKS, DEFAULT, lambda name, device: network)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A run on small pictures at 16 pixels, and the same pictures at 32 as photos.lmdb."""
    folder = tmp_path_factory.mktemp("built")
    call = command_in(folder)
    pictures(folder / "pictures", 24, 32)
    prepared = call("prepare-data", "pictures", "--out", "photos.lmdb", "--size", 32, "--workers", 1)
    assert prepared.returncode == 0, prepared.stderr
    settings = [*TINY, "data.path=photos.lmdb", "data.validation_fraction=0.25"]
    result = call("train", "--steps", 2, "--out", "runs/x", *settings)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def trained(built, tmp_path, cache):
    """A copy of it, to be changed."""
    return Path(shutil.copytree(built, tmp_path, dirs_exist_ok=True))


def pictures(folder, count, side, suffix="png"):
    folder.mkdir()
    for i in range(count):
        values = np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.{suffix}")


def evaluate(command, folder, *arguments):
    """The call's result and what it wrote with --json."""
    result = command("evaluate", *arguments, "--json", "scores.json")
    assert result.returncode == 0, result.stderr
    return result, json.loads((folder / "scores.json").read_text())


def assert_same(rows, others, rel=1e-6):
    """But for what making them took, and the order in which a library adds up, which depends on where numbers are."""
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - COST:
            assert row[name] == (pytest.approx(other[name], rel=rel) if isinstance(row[name], float) else other[name])


def test_every_size_resumed_and_shared_among_processes_gives_the_same_numbers(command, script, trained, monkeypatch):
    call = ("--run", "runs/x", "--res", "16,24x32", "--n", 6, "--deblur", "none")
    result, whole = evaluate(script, trained, *call)
    assert [row["size"] for row in whole["results"]] == ["16", "24x32"]
    assert all(set(row) >= METRICS for row in whole["results"])
    assert all(row["images"] == 6 and row["real"] == 18 and row["broken"] == [] for row in whole["results"])
    assert {"what", "size", "at"} <= set(whole["results"][0])
    assert whole["runs"][0]["real"]["split"] == "train"
    assert whole["network"]["name"] == "efficientnet-lite0"
    assert whole["runs"][0]["step"] == 2
    assert whole["runs"][0]["parameters"].keys() == {"denoiser", "encoder"}
    for row in whole["results"]:
        assert row["seconds_per_image"] > 0
        assert row["peak_mb"] is None or row["peak_mb"] > 0
        assert row["made_on"] == "CPU (1 threads)"
    assert whole["command"][:4] == ["python", "scripts/evaluate.py", "--run", "runs/x"]
    assert "frechet" in result.stdout.splitlines()[0]
    assert sum(line.startswith("few images:") for line in whole["warnings"]) == 2
    # Stopped half-way: what is missing is made, the same.
    folders = sorted((trained / "runs/x/evaluation").iterdir())
    assert len(folders) == 2
    (folders[0] / "000002.png").unlink()
    (folders[0] / "000005.png").unlink()
    untouched = (folders[0] / "000001.png").stat().st_mtime_ns
    _, resumed = evaluate(command, trained, *call, "--batch", 1)
    # Other batches, and another process, round a pixel to the next grey level here and there.
    assert_same(resumed["results"], whole["results"], rel=1e-4)
    assert (folders[0] / "000001.png").stat().st_mtime_ns == untouched
    # Two processes, the second one first.
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    second = command("evaluate", *call, "--out", "shared")
    assert (second.returncode, second.stdout) == (0, ""), second.stderr
    assert {p.name for p in (trained / "shared" / folders[0].name).glob("*.png")} == {
        "000001.png",
        "000003.png",
        "000005.png",
    }
    monkeypatch.setenv("RANK", "0")
    _, shared = evaluate(command, trained, *call, "--out", "shared")
    assert_same(shared["results"], whole["results"], rel=1e-4)


@pytest.mark.usefixtures("light_features")
def test_a_run_of_a_grid_network_alone(command, trained):
    config = [
        "--config",
        ROOT / "configs" / "dfu_landscapes_64.yaml",
        "data.resolutions={12: 1, 16: 1}",
        "data.size=16",
    ]
    small = [
        "model.grid.channels=8",
        "model.grid.modes=4",
        "train.batch_size=2",
        "data.path=photos.lmdb",
        "data.validation_fraction=0.25",
    ]
    result = command("train", "--steps", 1, "--out", "runs/dfu", *config, *small, "train.warmup=0", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    call = ("--run", "runs/dfu", "--res", "16,12,32", "--n", 5, "--steps", 2, "--report", "dfu.html")
    _, found = evaluate(command, trained, *call)
    assert [(row["size"], row["images"]) for row in found["results"]] == [("16", 5), ("12", 5), ("32", 5)]
    assert all(set(row) >= METRICS for row in found["results"])
    # In two tables each of the sizes that it was trained at.
    assert (trained / "dfu.html").read_text().count("training size</span>") == 4
    error = command("evaluate", "--run", "runs/dfu", "--task", "reconstruct", "--n", 5)
    assert_one_line_error(error, "encoder")


def test_sizes_beyond_the_data_are_compared_at_the_datas(command, trained):
    _, found = evaluate(command, trained, "--run", "runs/x", "--res", "48", "--n", 5, "--metrics", "frechet,spectrum")
    (row,) = found["results"]
    assert (row["size"], row["at"]) == ("48", "32")
    assert any("the real images hold 32 pixels: images of 48" in line for line in found["warnings"])
    assert not METRICS - {"frechet", "spectrum"} & set(row)


@pytest.mark.usefixtures("light_features")
def test_runs_side_by_side_with_a_report(command, trained):
    shutil.copytree(trained / "runs/x", trained / "runs/y")
    arguments = ("--run", "runs/x", "runs/y", "--res", "16,24", "--n", 5, "--report", "report.html", "--seed", 3)
    result, found = evaluate(command, trained, *arguments)
    rows = found["results"]
    assert [(row["run"], row["size"]) for row in rows] == [
        ("runs/x", "16"),
        ("runs/x", "24"),
        ("runs/y", "16"),
        ("runs/y", "24"),
    ]
    # The same weights, the same images.
    assert [row["frechet"] for row in rows[:2]] == pytest.approx([row["frechet"] for row in rows[2:]], rel=1e-6)
    assert [run["run"] for run in found["runs"]] == ["runs/x", "runs/y"]
    assert result.stdout.split()[0] == "run"
    page = (trained / "report.html").read_text()
    assert page.count('<img class="sheet"') == 4
    assert page.count('<img class="own"') == 4 * 5
    assert "--run runs/x runs/y --res 16,24 --n 5 --report report.html --seed 3" in page
    assert page.count("training size</span>") == 2 * 2  # scores and cost
    assert "data.validation_fraction" not in page  # the configuration as it is kept: nested
    assert page.count("validation_fraction: 0.25") == 2


def test_reconstructions_and_enlargements_beside_the_truth(command, trained):
    _, found = evaluate(
        command, trained, "--run", "runs/x", "--task", "reconstruct", "--res", "16,64", "--n", 9, "--split", "val"
    )
    (row,) = found["results"]
    assert row["images"] == 6  # all that are held out
    assert 0 < row["psnr"] < 40
    assert -1 < row["ssim"] < 1
    assert row["feature"] > 0
    assert any("64 is left out" in line and "hold 32" in line for line in found["warnings"])
    arguments = (
        "--run",
        "runs/x",
        "--task",
        "superres",
        "--from",
        12,
        "--res",
        "16,24",
        "--n",
        5,
        "--report",
        "r.html",
    )
    _, found = evaluate(command, trained, *arguments)
    rows = {(row["what"], row["size"]): row for row in found["results"]}
    # Guided up to the training size, 16, and in windows beyond.
    assert set(rows) == {("guided", "16"), ("bicubic", "16"), ("windows", "24"), ("bicubic", "24")}
    assert all(row["seconds_per_image"] > 0 for (what, _), row in rows.items() if what != "bicubic")
    assert "seconds_per_image" not in rows["bicubic", "24"]
    page = (trained / "r.html").read_text()
    assert "Rows: truth, guided, bicubic" in page
    assert "Rows: truth, windows, bicubic" in page
    # On smooth pictures bicubic is nearly right.
    assert rows["bicubic", "24"]["psnr"] > 25
    assert rows["guided", "16"]["psnr"] > 20
    assert found["runs"][0]["real"]["split"] == "val"


def test_a_folder_against_the_data_it_was_made_from(command, trained):
    _, found = evaluate(command, trained, "--images", "pictures", "--data", "photos.lmdb")
    (row,) = found["results"]
    expected = {"frechet": 0, "precision": 1, "recall": 1, "diversity": 1, "spectrum": 0}
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-3)
    assert (row["images"], row["real"]) == (24, 24)
    assert not [line for line in found["warnings"] if not line.startswith("few images")]


def test_what_makes_a_comparison_wrong_is_named(command, trained):
    pictures(trained / "other", 6, 48, "jpg")
    arguments = ("--images", "other", "--data", "photos.lmdb", "--res", "16,32,96", "--metrics", "kid")
    result, found = evaluate(command, trained, *arguments)
    assert [row["size"] for row in found["results"]] == ["16", "32"]
    for part in (
        "the images are JPEG, the real ones png",
        "96 is left out: the images have 48 pixels",
        "the images have 48 pixels: reduced to 16",
        "the real images are cropped and reduced to 16",
    ):
        assert any(part in line for line in found["warnings"]), part
        assert part.split(":")[0] in " ".join(result.stdout.split())


@pytest.mark.usefixtures("light_features")
def test_images_that_are_not_finite_are_reported_and_in_no_number(command, trained):
    path = trained / "runs/x/checkpoints/00000002/ema_denoiser.safetensors"
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({name: torch.full_like(t, torch.nan) for name, t in tensors.items()}, path)
    result, found = evaluate(command, trained, "--run", "runs/x", "--n", 5, "--report", "report.html")
    (row,) = found["results"]
    page = (trained / "report.html").read_text()
    assert "5 of 5 images of 16 have pixels that are not finite" in page
    assert "No image is finite, so there is none to show." in page
    assert row["broken"] == [0, 1, 2, 3, 4]
    assert row["images"] == 0
    assert not METRICS & set(row)
    assert "5 of 5 images of 16 have pixels that are not finite" in " ".join(result.stdout.split())


def test_corruptions_calibrate_the_numbers(command, trained, cache):
    _, found = evaluate(command, trained, "--task", "calibrate", "--data", "photos.lmdb", "--split", "train")
    rows = {row["what"]: row for row in found["results"]}
    assert rows["bicubic from 1/2"]["frechet"] < rows["bicubic from 1/8"]["frechet"] < rows["noise"]["frechet"]
    assert {"every other image", "blurred by 1 pixel"} < set(rows)
    # Descriptions are cached until the content changes.
    kept = {path: path.stat().st_mtime_ns for path in (cache / "features").iterdir()}
    same = ("--images", "pictures", "--data", "photos.lmdb", "--split", "train", "--metrics", "frechet")
    evaluate(command, trained, *same)
    assert {path: path.stat().st_mtime_ns for path in (cache / "features").iterdir()} == kept
    os.remove(trained / "pictures" / "00.png")
    shutil.copy(trained / "pictures" / "01.png", trained / "pictures" / "00.png")
    command("prepare-data", "pictures", "--out", "photos.lmdb", "--size", 32, "--workers", 1)
    evaluate(command, trained, *same)
    assert len(list((cache / "features").iterdir())) > len(kept)


def test_bad_input_is_one_line(command, trained, monkeypatch):
    monkeypatch.chdir(trained)
    run = ("--run", "runs/x")
    data = ("--data", "photos.lmdb")
    (trained / "empty").mkdir()
    np.savez("ours.npz", mu=np.zeros(1280), sigma=np.eye(1280))
    np.savez("inception.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    pictures(trained / "single", 1, 32)
    pictures(trained / "mixed", 5, 32)
    Image.new("RGB", (8, 9)).save(trained / "mixed" / "x.png")
    shutil.copytree(trained / "runs/x", trained / "runs/bare")
    shutil.rmtree(trained / "runs/bare/checkpoints")
    cases = {
        (*run, "--n", 1): ["--n 1", "at least 5"],
        (*run, "--res", "4"): ["--res 4", "at least 11"],
        (*run, "--res", "big"): ["--res", "big"],
        (*run, "--metrics", "fid"): ["--metrics fid", "frechet"],
        (*run, "--network", "vgg"): ["--network", "efficientnet-lite0"],
        (*run, "--network", "efficientnet-lite0,vgg"): ["--network vgg", "efficientnet-lite0"],
        (*run, "--patches", 4): ["--patches 4", "at least 11"],
        (*run, "--patches", 17): ["--patches 17", "larger than images of 16"],
        (*run, "--res", "16,24", "--patches", 20): ["--patches 20", "larger than images of 16"],
        (*run, "--res", 64, "--patches", 40): ["--patches 40", "larger than images of 32"],  # as compared
        (*run, "--task", "reconstruct", "--patches", 12): ["--patches 12", "--task generate"],
        ("--images", "pictures", *data, "--patches", 33): ["--patches 33", "larger than images of 32"],
        (*run, "--data", "ours.npz", "--metrics", "frechet,kid,spectrum"): ["--metrics kid,spectrum", "ours.npz"],
        (*run, "--data", "ours.npz", "--patches", 12): ["--patches 12", "ours.npz"],
        (*run, "--data", "ours.npz", "--split", "val"): ["--split val", "ours.npz"],
        (*run, "--data", "ours.npz", "--held-out", "photos.lmdb"): ["--held-out photos.lmdb", "ours.npz"],
        (*run, "--data", "ours.npz", "--latents", "real"): ["--latents real", "ours.npz"],
        (*run, "--data", "ours.npz", "--task", "reconstruct"): ["--task reconstruct", "ours.npz"],
        ("--data", "ours.npz", "--task", "calibrate"): ["--task calibrate", "ours.npz"],
        (*run, "--data", "inception.npz"): ["inception.npz: holds 2048 features", "efficientnet-lite0 has 1280"],
        (*run, "--data", "no.npz"): ["no.npz", "no such file"],
        ("--images", "pictures", "--data", "inception.npz"): ["inception.npz: holds 2048", "--network"],
        (*run, "--json", "no/where.json"): ["--json no/where.json"],
        (*run, "--report", "."): ["--report ."],
        (*run, "--images", "pictures", *data): ["--run runs/x", "--images"],
        ("--run", "runs/x", "runs/x", "--out", "o"): ["--out o", "one run"],
        (*run, "--task", "superres", "--res", "24", "--from", "28", "--n", 5): ["--from 28", "24"],
        (*run, "--task", "reconstruct", "--res", "64"): ["64", "hold 32"],
        ("--run", "runs/bare"): ["runs/bare", "no checkpoint"],
        ("--images", "empty", *data): ["no images in empty"],
        ("--images", "single", *data): ["single", "one image"],
        ("--images", "mixed", *data): ["mixed sizes", "x.png"],
        ("--images", "pictures"): ["--data"],
        ("--images", "pictures", "--data", "no.lmdb"): ["no.lmdb", "prepare-data"],
        ("--images", "pictures", *data, "--res", "64"): ["--res", "32"],
        ("--images", "pictures", *data, "--sampler", "ddim"): ["--sampler ddim", "a run makes"],
        ("--images", "pictures", *data, "--truncation", "0.5"): ["--truncation 0.5", "a run makes"],
        ("--images", "pictures", *data, "--deblur", "none"): ["--deblur none", "a run makes"],
        ("--images", "pictures", *data, "--task", "calibrate"): ["--images"],
        (*data, "--task", "scale"): ["'scale'", "calibrate"],
    }
    for arguments, parts in cases.items():
        with pytest.raises(UserError) as caught:
            evaluate_main([*map(str, arguments)])
        message = explain(caught.value)
        assert "\n" not in message
        for part in parts:
            assert part in message
    assert_one_line_error(command("evaluate", *arguments), *parts)


def test_losses_by_noise_level_on_all_pixels_and_on_a_part(command, trained):
    call = ("--run", "runs/x", "--task", "denoise", "--n", 5, "--res", "16,24")
    result, found = evaluate(command, trained, *call, "--report", "r.html")
    assert [(row["what"], row["size"]) for row in found["results"]] == [
        ("all pixels", "16"),
        ("1/4 of the pixels", "16"),
        ("all pixels", "24"),
        ("1/4 of the pixels", "24"),
    ]
    assert all(0 < row["loss_0.1"] < 10 and 0 < row["loss_20"] < 10 for row in found["results"])
    assert found["runs"][0]["real"]["split"] == "val"
    assert "1/4 of the pixels" in result.stdout
    assert "loss_20" in (trained / "r.html").read_text()
    _, again = evaluate(command, trained, *call)
    assert again["results"] == found["results"]
    assert_one_line_error(command("evaluate", *call[:-1], "64"), "--res 64", "hold 32")


@pytest.mark.usefixtures("light_features")
def test_published_statistics_give_the_distance_that_their_images_give(command, trained, cache):
    pictures(trained / "some", 9, 32)
    for call in (("--images", "pictures", "--res", "16"), ("--run", "runs/x", "--n", 6)):
        _, whole = evaluate(command, trained, *call, "--data", "some", "--metrics", "frechet")
        (path,) = (cache / "features").iterdir()
        features = safetensors.torch.load_file(path)["features"].double().numpy()
        np.savez(trained / "ours.npz", mu=features.mean(0), sigma=np.cov(features, rowvar=False))
        result, found = evaluate(command, trained, *call, "--data", "ours.npz", "--report", "r.html")
        assert len(found["results"]) == len(whole["results"])
        row, other = found["results"][0], whole["results"][0]
        assert row["frechet"] == pytest.approx(other["frechet"], rel=1e-4)
        assert row["frechet"] > 1
        assert not METRICS - {"frechet"} & set(row)
        assert (row["images"], row["at"], "real" in row) == (other["images"], "16", False)
        assert found["metrics"] == ["frechet"]
        (run,) = found["runs"]
        assert run["real"] == {"data": "ours.npz", "statistics": "mean and covariance", "features": 1280}
        assert any("ours.npz holds no images: kid, " in line for line in found["warnings"])
        assert "frechet" in result.stdout.splitlines()[0]
        assert (trained / "r.html").read_text().count('<img class="sheet"') == len(found["results"])
        shutil.rmtree(cache / "features")


@pytest.mark.usefixtures("light_features")
def test_patches_beside_the_images(command, trained):
    same = ("--images", "pictures", "--data", "photos.lmdb", "--metrics", "frechet")
    _, found = evaluate(command, trained, *same, "--patches", 32)
    (row,) = found["results"]
    # Patches as large as the images are the images.
    assert (row["patches"], row["patch_frechet"]) == (24, pytest.approx(row["frechet"], abs=1e-6))
    result, found = evaluate(command, trained, *same, "--patches", 12, "--report", "r.html")
    (row,) = found["results"]
    # Four of 12 pixels fit into 32.
    assert row["patches"] == 4 * 24
    assert 0 < row["patch_frechet"] < 10
    assert found["patches"] == 12
    assert "patch_kid" in result.stdout.splitlines()[0]
    assert "patch_frechet" in (trained / "r.html").read_text()
    assert any("96 patches are fewer than the 1280 features" in line for line in found["warnings"])
    call = ("--run", "runs/x", "--res", "16,48", "--n", 6, "--metrics", "kid", "--patches", 16)
    _, found = evaluate(command, trained, *call)
    small, large = found["results"]
    assert (small["patches"], large["patches"]) == (6, 6 * 4)  # of 32 pixels, at which 48 is compared
    assert small["patch_frechet"] > 1
    assert {name for name in small if name.startswith("patch")} == {
        "patches",
        "patch_frechet",
        "patch_kid",
        "patch_kid_std",
    }
    _, again = evaluate(command, trained, *call)
    assert_same(again["results"], found["results"])
    _, moved = evaluate(command, trained, *call[:-1], 12, "--seed", 0)
    assert moved["results"][0]["patch_kid"] != small["patch_kid"]


@pytest.mark.usefixtures("light_features")
def test_several_networks_see_the_same_images(command, trained, monkeypatch):
    monkeypatch.setitem(NETWORKS, "moments", lambda name, device: MOMENTS)
    call = ("--run", "runs/x", "--n", 6, "--patches", 12)
    _, both = evaluate(command, trained, *call, "--network", "efficientnet-lite0,moments,moments", "--report", "r.html")
    made = {path: path.stat().st_mtime_ns for path in (trained / "runs/x/evaluation").rglob("*.png")}
    _, first = evaluate(command, trained, *call)
    _, second = evaluate(command, trained, *call, "--network", "moments")
    assert {path: path.stat().st_mtime_ns for path in (trained / "runs/x/evaluation").rglob("*.png")} == made
    (row,), (one,), (other,) = both["results"], first["results"], second["results"]
    assert one.keys() == other.keys()
    assert row["frechet (moments)"] == pytest.approx(other["frechet"], rel=1e-6)
    assert {"patch_kid", "patch_kid (moments)", "memorisation (moments)"} <= row.keys()
    by_name = {name: value for name, value in row.items() if not name.endswith(" (moments)")}
    assert_same([by_name], [one])
    assert "spectrum (moments)" not in row
    # What JSON says of one network stays, and another key says all.
    assert both["network"] == first["network"]
    assert both["networks"] == [first["network"], second["network"]]
    assert "networks" not in first
    page = (trained / "r.html").read_text()
    assert "frechet (moments)</th>" in page
    assert "moments (1)" in page
    _, pairs = evaluate(
        command,
        trained,
        "--run",
        "runs/x",
        "--task",
        "reconstruct",
        "--n",
        5,
        "--network",
        "moments,efficientnet-lite0",
    )
    assert {"psnr", "feature", "frechet", "feature (efficientnet-lite0)"} <= pairs["results"][0].keys()
    assert "psnr (efficientnet-lite0)" not in pairs["results"][0]


@pytest.mark.usefixtures("light_features")
def test_samples_of_the_latents_of_training_images(command, trained):
    call = ("--run", "runs/x", "--n", 6, "--metrics", "frechet")
    _, found = evaluate(command, trained, *call, "--latents", "real")
    _, modelled = evaluate(command, trained, *call)
    (row,), (other,) = found["results"], modelled["results"]
    assert (row["what"], row["images"]) == ("generated", 6)
    assert row["frechet"] != other["frechet"]
    assert found["runs"][0]["latents"] == "of training images"
    error = command("evaluate", "--run", "runs/x", "--task", "reconstruct", "--latents", "real")
    assert_one_line_error(error, "--latents real", "--task generate")


@pytest.mark.usefixtures("light_features")
def test_numbers_of_steps_samplers_and_ways_to_larger_sizes(command, trained):
    call = ("--run", "runs/x", "--res", 24, "--n", 5, "--metrics", "spectrum")
    _, scores = evaluate(command, trained, *call, "--steps", "1,2", "--sampler", "dpm++", "--upscale", "cosine")
    assert [row["run"] for row in scores["results"]] == ["runs/x, 1 steps", "runs/x, 2 steps"]
    assert [run["options"]["steps"] for run in scores["runs"]] == [1, 2]
    assert {run["options"]["sampler"] for run in scores["runs"]} == {"dpm++"}
    assert {run["options"]["upscale"] for run in scores["runs"]} == {"cosine"}
    assert len({row["spectrum"] for row in scores["results"]}) == 2


@pytest.mark.usefixtures("light_features")
def test_ways_of_super_resolution_are_chosen(command, trained):
    pair = ("--run", "runs/x", "--task", "superres", "--from", 12, "--res", 24, "--n", 5, "--data", "photos.lmdb")
    _, scores = evaluate(command, trained, *pair, "--method", "encode", "--steps", 2, "--split", "all")
    assert [row["what"] for row in scores["results"]] == ["encode", "bicubic"]
    assert_one_line_error(command("evaluate", "--run", "runs/x", "--method", "guided"), "--method guided", "superres")
    guided = (*pair, "--method", "guided", "--steps", 2, "--split", "all")
    made = [
        evaluate(command, trained, *guided, "--guidance", kind)[1]["results"] for kind in ("gradient", "projection")
    ]
    assert made[0][0]["psnr"] != made[1][0]["psnr"]
    assert_one_line_error(command("evaluate", *pair, "--guidance", "gradient"), "--guidance gradient", "guided")
    for steps in ("2.5", "many", "0"):
        assert_one_line_error(command("evaluate", "--run", "runs/x", "--steps", steps), f"--steps {steps}")
    images = ("evaluate", "--images", "pictures", "--data", "photos.lmdb", "--steps", "2")
    assert_one_line_error(command(*images), "--steps 2", "a run makes")


def test_lpips_of_pairs(command, trained, monkeypatch):
    def brightness(a, b):
        return float((a.float().mean(dim=(1, 2, 3)) - b.float().mean(dim=(1, 2, 3))).abs().sum())

    monkeypatch.setattr(sys.modules["infdiff.evaluation.evaluate"], "load_lpips", lambda device: brightness)
    call = ("--run", "runs/x", "--task", "reconstruct", "--n", 5, "--split", "all", "--steps", 2, "--lpips")
    result, scores = evaluate(command, trained, *call)
    assert scores["results"][0]["lpips"] > 0
    assert "lpips: learned perceptual distance" in result.stdout
    assert_one_line_error(command("evaluate", "--run", "runs/x", "--lpips"), "--lpips", "reconstruct")
