"""Samples far larger than training: memory is bounded, tiles change nothing."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import ONE_THREAD, ROOT, assert_one_line_error, copy_of, pixels

# Prints the largest memory, in bytes, of the command that it is given.
MEASURED = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
MEASURED += "print('PEAK', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize("upscale", ["cosine", "none"])
def test_4096_pixels_of_the_demo_model_within_4_gib(command, tmp_path, upscale):
    trained = command("train", "--config", CONFIG_FOLDER / "demo.yaml", "--steps", 1, "--out", "runs/demo")
    assert trained.returncode == 0, trained.stderr
    sample = [str(ROOT / "scripts" / "sample.py"), "--run", "runs/demo", "--res", "4096", "--steps", "2"]
    sample += ["--upscale", upscale]
    command = [sys.executable, "-c", MEASURED, sys.executable, *sample, "--out", "large", "--device", "cpu"]
    environment = os.environ | ONE_THREAD
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stderr
    peak = int(result.stdout.split("PEAK")[1])
    assert peak <= 4 * 1024**3
    tile = json.loads((tmp_path / "large" / "samples.json").read_text())["tile"]
    assert (tile is None) if upscale == "cosine" else tile > 0
    assert pixels(tmp_path / "large" / "00000.png").shape == (4096, 4096, 3)


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
