"""A zoom into a sample: its ends are levels of the pyramid, frames follow without jumps, and files hold them all."""

import math
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageSequence

from infdiff.errors import OptionError
from infdiff.images.video import check_video, save_video
from infdiff.pipelines.zoom import Region
from infdiff.viewer.zoom_frames import Zoom, frames
from infdiff.viewer.zoomed import ZoomedImage
from tests.conftest import assert_one_line_error, copy_of


def nothing(drawing):
    pass


def level(image, number, region=None):
    """Pixels of a level, or of a region of it, (H, W, 3)."""
    size = image.pyramid.size_of(number)
    return image.region(number, region or Region(0, 0, *size), nothing).permute(1, 2, 0).numpy().astype(int)


def shown(image):
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def zoomed(painter, tmp_path_factory):
    """The image of one seed, and the frames of a zoom into it from 16 pixels to 128."""
    image = ZoomedImage(painter, 2, tmp_path_factory.mktemp("tiles"))
    return image, list(frames(image, Zoom(16, 128), 13, nothing))


def test_the_ends_are_the_first_level_and_a_part_of_the_last_one(zoomed):
    image, made = zoomed
    assert len(made) == 13
    assert (shown(made[0]) == level(image, 4)).all()
    assert (shown(made[-1]) == level(image, 7, Region(56, 56, 72, 72))).all()
    # Each doubling takes four frames, and ends in a level as it is.
    assert (shown(made[4]) == level(image, 5, Region(8, 8, 24, 24))).all()


def test_frames_follow_without_a_jump_where_levels_change(painter, tmp_path):
    image = ZoomedImage(painter, 2, tmp_path)
    made = [shown(frame) for frame in frames(image, Zoom(31, 33), 101, nothing)]  # past the level of 32 pixels
    steps = np.array([np.abs(after - before).mean() for before, after in pairwise(made)])
    assert steps.max() < 3 * np.median(steps)


def test_nothing_is_sampled_that_is_not_in_view(painter, tmp_path):
    image = ZoomedImage(painter, 2, tmp_path)
    list(frames(image, Zoom(16, 512, (0.0, 0.0)), 20, nothing))
    assert image.drawn == 6  # of each level the tile in the corner
    assert not image.pyramid.path(9, 1, 1).exists()


def test_a_zoom_stays_inside_the_image_and_keeps_its_place():
    zoom = Zoom.of("64:2048", "0.25,1")
    assert (zoom.least, zoom.most, zoom.at) == (64, 2048, (0.25, 1.0))
    assert (zoom.part(0), zoom.part(1)) == (1, 1 / 32)
    assert zoom.part(0.5) == pytest.approx(math.sqrt(1 / 32))
    assert zoom.frame((720, 1440)) == (32, 64)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_files_hold_all_frames_and_last_as_long_as_asked(ending, tmp_path):
    random = np.random.default_rng(0)
    made = [Image.fromarray(random.integers(0, 256, (8, 12, 3), dtype=np.uint8)) for _ in range(7)]
    save_video(iter(made), tmp_path / f"x.{ending}", (8, 12), 30)
    with Image.open(tmp_path / f"x.{ending}") as read:
        assert (read.n_frames, read.size, read.info["loop"]) == (7, (12, 8), 0)
        lasting = 0
        for frame in ImageSequence.Iterator(read):
            frame.load()
            lasting += frame.info["duration"]
    assert lasting == pytest.approx(1000 * 7 / 30, abs=5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pipes of the package's reader
def test_mp4_is_written_by_ffmpeg(tmp_path):
    reader = pytest.importorskip("imageio_ffmpeg").read_frames
    made = [Image.new("RGB", (32, 16), (20 * n, 100, 200 - 20 * n)) for n in range(8)]
    save_video(iter(made), tmp_path / "x.mp4", (16, 32), 25)
    about, *contents = reader(str(tmp_path / "x.mp4"))
    assert (about["size"], about["fps"], len(contents)) == ((32, 16), 25, 8)
    for frame, content in zip(made, contents, strict=True):
        assert np.abs(np.frombuffer(content, np.uint8).reshape(16, 32, 3).astype(int) - shown(frame)).mean() < 8


def test_what_ffmpeg_gets(tmp_path, monkeypatch):
    got = []

    def write_frames(path, size, **options):
        got.append((size, options["fps"]))
        path.write_bytes(b"")
        while True:
            got.append((yield))

    fake = SimpleNamespace(write_frames=write_frames, get_ffmpeg_exe=lambda: "ffmpeg")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", fake)
    made = [Image.new("RGB", (4, 2), (n, 0, 0)) for n in range(3)]
    check_video(tmp_path / "x.mp4", (2, 4))
    save_video(iter(made), tmp_path / "x.mp4", (2, 4), 25)
    assert got == [((4, 2), 25), *(frame.tobytes() for frame in made)]
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
    with pytest.raises(OptionError, match="even sizes, not 3x4"):
        check_video(tmp_path / "x.mp4", (3, 4))


def test_the_command_writes_a_gif(command, points_run, tmp_path):
    run = copy_of(points_run, tmp_path)
    given = ("sample", "--run", "runs/x", "--zoom", "16:64", "--seed", "1", "--seconds", "0.5", "--fps", "10")
    result = command(*given, "--out", "out/zoom.gif")
    assert result.returncode == 0, result.stderr
    assert "5 frames of 16 pixels" in result.stdout
    assert (tmp_path / "out" / "zoom.json").exists()
    with Image.open(tmp_path / "out" / "zoom.gif") as read:
        first, last = (shown(frame.copy()) for i, frame in enumerate(ImageSequence.Iterator(read)) if i in (0, 4))
    [folder] = (run / "zoom").glob("*/seed-1/image_files")
    assert (first == shown(Image.open(folder / "4" / "0_0.png"))).all()
    # The last level has 64 pixels, in tiles of 32: the middle is where four of them meet.
    tiles = [[shown(Image.open(folder / "6" / f"{x}_{y}.png")) for x in range(2)] for y in range(2)]
    assert (last == np.block([[[tiles[0][0]], [tiles[0][1]]], [[tiles[1][0]], [tiles[1][1]]]])[24:40, 24:40]).all()


def test_bad_zooms_are_one_line(command, points_run, edm_run, tmp_path, monkeypatch):
    copy_of(points_run, tmp_path)

    def refused(*given, run="runs/x"):
        return command("sample", "--run", run, *given)

    for text in ("64", "64:32", "64:64", "0:64", "a:b", "-1:64", "64:128:256", "64:9999999", "64:1e3"):
        assert_one_line_error(refused(f"--zoom={text}"), f"--zoom {text}")
    for text in ("0.5", "0.5,2", "a,b", "0.5,0.5,0.5", "nan,0"):
        assert_one_line_error(refused("--zoom", "16:64", "--at", text), f"--at {text}")
    for name, text in (("seconds", "0"), ("seconds", "nan"), ("seconds", "inf"), ("fps", "0"), ("fps", "1000")):
        assert_one_line_error(refused("--zoom", "16:64", f"--{name}", text), f"--{name}")
    for name in ("zoom.avi", "zoom", "zoom.png"):
        assert_one_line_error(refused("--zoom", "16:64", "--out", name), f"--out {name}", ".webp, .gif, .mp4")
    for given in (("--res", "64"), ("--pyramid",), ("--label", "cat"), ("--n", "2")):
        assert_one_line_error(refused("--zoom", "16:64", *given), "--zoom")
    for name, text in (("at", "0.5,0.5"), ("seconds", "2"), ("fps", "10")):
        assert_one_line_error(refused(f"--{name}", text), f"--{name} {text}", "goes with --zoom")
    assert_one_line_error(refused("--zoom", "16:64", run=edm_run), "infinity_diff")
    assert not list(tmp_path.glob("runs/x/zoom"))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert_one_line_error(refused("--zoom", "16:64", "--out", "a.mp4"), "a.mp4", "pip install 'infdiff[video]'")
