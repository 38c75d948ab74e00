"""Samples far larger than training: memory is bounded, tiles change nothing."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import ONE_THREAD, ROOT, assert_one_line_error, copy_of, pixels

# Prints the largest memory, in bytes, of the command that it is given.
MEASURED = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
MEASURED += "print('PEAK', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"


def peak_of(folder, script, *options):
    """Run a script in two steps on the demo's run, and return its largest memory in bytes."""
    script = [sys.executable, str(ROOT / "scripts" / script), "--run", "runs/demo", "--steps", "2", *options]
    command = [sys.executable, "-c", MEASURED, *script, "--out", "large", "--device", "cpu"]
    environment = os.environ | ONE_THREAD
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stderr
    return int(result.stdout.split("PEAK")[1])


# 4096 pixels take minutes (`make test-long`); a quarter of the image takes less than half of the memory.
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize(
    ("upscale", "side", "gib"),
    [
        ("cosine", 2048, 1.5),
        pytest.param("none", 2048, 1.5, marks=pytest.mark.long),
        pytest.param("cosine", 4096, 4.0, marks=pytest.mark.long),
        pytest.param("none", 4096, 4.0, marks=pytest.mark.long),
    ],
)
def test_large_samples_of_the_demo_model_take_bounded_memory(command, tmp_path, upscale, side, gib):
    trained = command("train", "--config", CONFIG_FOLDER / "demo.yaml", "--steps", 1, "--out", "runs/demo")
    assert trained.returncode == 0, trained.stderr
    assert peak_of(tmp_path, "sample.py", "--res", str(side), "--upscale", upscale) <= gib * 1024**3
    tile = json.loads((tmp_path / "large" / "samples.json").read_text())["tile"]
    assert (tile is None) if upscale == "cosine" else tile > 0
    assert pixels(tmp_path / "large" / "00000.png").shape == (side, side, 3)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize("way", [["--method", "windows"], ["--method", "guided", "--guidance", "projection"]])
def test_filling_a_large_image_takes_bounded_memory(command, tmp_path, way):
    trained = command("train", "--config", CONFIG_FOLDER / "demo.yaml", "--steps", 1, "--out", "runs/demo")
    assert trained.returncode == 0, trained.stderr
    side = 2048
    values = np.random.default_rng(0).integers(0, 256, (side // 64, side // 64, 3), dtype=np.uint8)
    Image.fromarray(values).resize((side, side)).save(tmp_path / "photo.png")
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[700:1300, 700:1300] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert peak_of(tmp_path, "inpaint.py", "--input", "photo.png", "--mask", "mask.png", *way) <= 2 * 1024**3


def test_tiles_change_no_pixel_by_more_than_rounding(command, points_run, tmp_path):
    copy_of(points_run, tmp_path)
    pictures = {}
    for tile in ("off", "auto", "7"):
        result = command("sample", "--run", "runs/x", "--res", "30x44", "--tile", tile, "--out", tile)
        assert result.returncode == 0, result.stderr
        pictures[tile] = pixels(tmp_path / tile / "00000.png")
    for tile in ("auto", "7"):
        assert np.abs(pictures[tile] - pictures["off"]).max() <= 1
    assert_one_line_error(command("sample", "--run", "runs/x", "--tile", "0"), "--tile 0", "auto or off")
    assert_one_line_error(command("sample", "--run", "runs/x", "--tile", "big"), "--tile big")
