"""What leaves is sharp: every command undoes the mollifier's blur, by default in the best way that the run has."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, assert_one_line_error, command_in, copy_of, pixels, trained_run

SHARP = [*TINY, "model.sharp=true", "sample.sampler=dpm++", "sample.spacing=noise"]


@pytest.fixture(scope="module")
def sharp_run(tmp_path_factory):
    return trained_run(tmp_path_factory.mktemp("sharp"), SHARP)


@pytest.fixture
def folder(sharp_run, tmp_path):
    copy_of(sharp_run, tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for name in ("a", "b"):
        Image.fromarray(noise if name == "a" else noise[::-1]).save(tmp_path / f"{name}.png")
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[4:12, 4:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


# The command, and the image that it makes in its folder; without one, it makes a file.
CALLS = {
    "sample": (["sample"], "00000.png"),
    "interpolate": (["sample", "--interpolate", "a.png", "b.png", "--frames", "2"], "00000.png"),
    "superres": (["superres", "--input", "a.png", "--res", "24"], ""),
    "encode": (["superres", "--input", "a.png", "--res", "24", "--method", "encode"], ""),
    "inpaint": (["inpaint", "--input", "a.png", "--mask", "mask.png"], "00000.png"),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_command_undoes_the_blur_as_told(name, folder):
    """The default is the network's own output; the three ways make three images."""
    call, image = CALLS[name]
    made = {}
    for way in (None, "network", "wiener", "none"):
        out = f"{name}-{way}" + ("" if image else ".png")
        result = command_in(folder)(*call, "--run", "runs/x", "--out", out, *([] if way is None else ["--deblur", way]))
        assert result.returncode == 0, result.stderr
        made[way] = pixels(folder / out / image if image else folder / out)
    assert (made[None] == made["network"]).all()
    for one, other in (("network", "none"), ("wiener", "none"), ("network", "wiener")):
        assert (made[one] != made[other]).any(), (one, other)


def test_the_record_says_how(folder):
    command = command_in(folder)
    command("sample", "--run", "runs/x", "--out", "s")
    record = next(json.loads(path.read_text()) for path in (folder / "s").glob("*.json"))
    assert record["deblur"] == "network"


def test_a_second_output_is_not_asked_of_a_run_without_one(points_run, tmp_path):
    copy_of(points_run, tmp_path)
    command = command_in(tmp_path)
    result = command("sample", "--run", "runs/x", "--deblur", "network")
    assert_one_line_error(result, "--deblur network", "model.sharp", "wiener or none")
    assert command("sample", "--run", "runs/x", "--out", "s").returncode == 0
