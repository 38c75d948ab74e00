"""From any source to a store: conversions, crops, limits, and nothing half-written."""

import io
import os
import re
import signal
import struct
import zipfile
import zlib
from dataclasses import dataclass
from multiprocessing.context import ForkContext, SpawnContext
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from infdiff.data import sources
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import FolderSource, open_source
from infdiff.data.store import FORMATS, ImageStore, to_tensor
from infdiff.errors import UserError


def build(source, out, **recipe):
    result = prepare(open_source(source), out, Recipe(**{"size": (16, 16)} | recipe), progress=False)
    return result, ImageStore(out)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def png_header(width, height):
    """The start of a PNG of this size: all that is needed to know it is too large."""
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + fields + struct.pack(">I", zlib.crc32(fields))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 1 << 20) + b"IDAT"


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_becomes_a_store(photos, tmp_path, format):
    result, store = build(photos, tmp_path / "out.lmdb", format=format)
    assert (result.written, result.left_out, len(store)) == (12, [], 12)
    assert store.header.size == (16, 16)
    assert store.header.format == format
    assert store.header.resize_filter == "lanczos"
    assert all(store.read(i).size == (16, 16) for i in range(12))


def test_lossless_formats_hold_the_same_pixels(photos, tmp_path):
    stores = [build(photos, tmp_path / f"{f}.lmdb", format=f)[1] for f in ("png", "webp", "raw")]
    for i in range(12):
        first = np.asarray(stores[0].read(i))
        assert all((np.asarray(s.read(i)) == first).all() for s in stores[1:])


def test_centre_crop_and_resize_are_pillows(photos, tmp_path):
    _, store = build(photos, tmp_path / "out.lmdb", format="raw")
    name = open_source(photos).names[0]
    image = Image.open(photos / name).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    expected = image.crop((left, top, left + side, top + side)).resize((16, 16), Image.Resampling.LANCZOS)
    assert (np.asarray(store.read(0)) == np.asarray(expected)).all()


def test_random_crops_are_many_and_repeatable(photos, tmp_path):
    _, first = build(photos, tmp_path / "a.lmdb", crops=5, format="raw")
    _, second = build(photos, tmp_path / "b.lmdb", crops=5, format="raw")
    assert len(first) == 60
    assert first.header.crops == 5
    assert all((np.asarray(first.read(i)) == np.asarray(second.read(i))).all() for i in range(60))
    assert (np.asarray(first.read(0)) != np.asarray(first.read(1))).any()


def test_native_and_non_square_sizes(photos, tmp_path):
    _, store = build(photos, tmp_path / "a.lmdb", size=None)
    assert store.header.size is None
    assert {store.read(i).size for i in range(12)} == {(60, 40), (48, 64), (33, 33)}
    _, store = build(photos, tmp_path / "b.lmdb", size=(12, 24))
    assert store.read(0).size == (24, 12)


def test_workers_give_the_same_store(photos, tmp_path):
    source, recipe = open_source(photos), Recipe(size=(8, 8), format="raw", crops=2)
    prepare(source, tmp_path / "a.lmdb", recipe, workers=0, progress=False)
    prepare(source, tmp_path / "b.lmdb", recipe, workers=2, progress=False)
    a, b = ImageStore(tmp_path / "a.lmdb"), ImageStore(tmp_path / "b.lmdb")
    assert all((np.asarray(a.read(i)) == np.asarray(b.read(i))).all() for i in range(len(a)))


def test_a_zip_and_an_lsun_lmdb_hold_the_same_images(photos, tmp_path):
    files = sorted(p for p in photos.rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in files:
            archive.write(path, str(path.relative_to(photos)))
        archive.writestr("notes.txt", "not an image")
    with lmdb.open(str(tmp_path / "lsun"), map_size=1 << 24) as environment, environment.begin(write=True) as t:
        for number, name in enumerate(open_source(photos).names):
            t.put(b"%040d" % number, (photos / name).read_bytes())
    stores = [
        build(s, tmp_path / f"{i}.lmdb")[1] for i, s in enumerate([photos, tmp_path / "p.zip", tmp_path / "lsun"])
    ]
    for i in range(12):
        assert len({np.asarray(s.read(i)).tobytes() for s in stores}) == 1


def test_unreadable_files_are_listed_and_left_out(photos, tmp_path):
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(whole, "JPEG")
    (photos / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (photos / "text.png").write_text("no image")
    (photos / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(photos / "dot.png")
    Image.new("L", (3000, 3000)).save(photos / "large.png")
    (photos / "huge.png").write_bytes(png_header(40_000, 40_000))
    result, store = build(photos, tmp_path / "out.lmdb", max_pixels=1_000_000)
    assert len(store) == 12
    reasons = dict(result.left_out)
    assert set(reasons) == {"cut.jpg", "text.png", "empty.png", "dot.png", "large.png", "huge.png"}
    assert "min_side" in reasons["dot.png"]
    assert "max_pixels" in reasons["large.png"]
    assert "40000x40000" in reasons["huge.png"]
    result, store = build(photos, tmp_path / "out.lmdb", max_pixels=10_000_000, min_side=1)
    assert len(store) == 14
    assert "max_pixels, 200000000" in dict(build(photos, tmp_path / "out.lmdb")[0].left_out)["huge.png"]


def only(image, tmp_path, name="x.png", **save):
    """The RGB pixels a store makes of one image."""
    folder = tmp_path / f"only-{name}"
    folder.mkdir()
    image.save(folder / name, **save)
    return np.asarray(build(folder, tmp_path / f"{name}.lmdb", size=None, min_side=1, format="raw")[1].read(0))


def test_modes_and_depths_are_converted_rightly(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = only(Image.fromarray(ramp), tmp_path, "grey.png")
    assert (grey == ramp[..., None]).all()
    deep = only(Image.fromarray(ramp.astype(np.uint16) * 257), tmp_path, "deep.png")
    assert (deep == ramp[..., None]).all(), "16-bit greys are scaled, not clipped"
    palette = Image.fromarray(np.dstack([ramp, ramp[::-1], ramp])).quantize(256)
    assert (only(palette, tmp_path, "palette.png") == np.asarray(palette.convert("RGB"))).all()
    colour = np.zeros((16, 16, 4), np.uint8)
    colour[..., 0], colour[..., 3] = 255, ramp
    alpha = only(Image.fromarray(colour), tmp_path, "alpha.png").astype(int)
    assert abs(alpha[..., 0] - 255).max() <= 1
    assert abs(alpha[..., 1] - (255 - ramp.astype(int))).max() <= 1, "alpha is laid over white"
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = only(cmyk, tmp_path, "cmyk.jpg", quality=100)
    assert red[..., 0].min() > 240
    assert red[..., 1:].max() < 15
    bits = only(Image.fromarray(ramp > 127), tmp_path, "bits.png")
    assert set(np.unique(bits)) == {0, 255}


def test_rotation_in_exif_is_undone(tmp_path):
    image = Image.new("RGB", (20, 10))
    image.paste((255, 0, 0), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees clockwise
    pixels = only(image, tmp_path, "turned.jpg", exif=exif, quality=100)
    assert pixels.shape == (20, 10, 3)
    assert pixels[2, 5, 0] > 200
    assert pixels[17, 5, 0] < 50


@pytest.mark.parametrize("kind", ["empty", "text", "missing", "broken", "zip", "not-lmdb"])
def test_sources_without_images_are_errors_and_leave_nothing(tmp_path, kind):
    source = tmp_path / "source"
    if kind == "empty":
        source.mkdir()
    elif kind == "text":
        source.mkdir()
        (source / "a.txt").write_text("hello")
    elif kind == "broken":
        source.mkdir()
        (source / "a.png").write_text("hello")
    elif kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("../outside.png", png(Image.new("RGB", (20, 20))))
    elif kind == "not-lmdb":
        source.write_bytes(b"x" * 100)
    out = tmp_path / "out.lmdb"
    out.write_bytes(b"precious")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError) as error:
        prepare(open_source(source), out, Recipe(size=(8, 8)), progress=False)
    assert str(source) in str(error.value)
    assert "\n" not in str(error.value)
    assert out.read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("kind", ["missing", "text", "foreign"])
def test_stores_that_are_not_ours_are_named(tmp_path, kind):
    path = tmp_path / "x.lmdb"
    if kind == "text":
        path.write_text("hello")
    elif kind == "foreign":
        with lmdb.open(str(path), subdir=False) as environment, environment.begin(write=True) as transaction:
            transaction.put(b"a", b"b")
    with pytest.raises(UserError, match="infdiff prepare-data") as error:
        ImageStore(path)
    assert str(path) in str(error.value)


def test_a_store_is_read_without_writing(photos, tmp_path):
    _, store = build(photos, tmp_path / "out.lmdb")
    (tmp_path / "out.lmdb").chmod(0o444)
    before = sorted(os.listdir(tmp_path))
    assert to_tensor(store.read(3)).shape == (3, 16, 16)
    assert sorted(os.listdir(tmp_path)) == before


def _pixel_sum(store, queue):
    queue.put(int(np.asarray(store.read(3)).sum()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("context", [ForkContext(), SpawnContext()], ids=["fork", "spawn"])
def test_an_environment_never_crosses_into_another_process(photos, tmp_path, context):
    _, store = build(photos, tmp_path / "out.lmdb")
    expected = int(np.asarray(store.read(3)).sum())
    queue = context.Queue()
    process = context.Process(target=_pixel_sum, args=(store, queue))
    process.start()
    assert queue.get(timeout=60) == expected
    process.join()
    assert process.exitcode == 0


def test_out_may_not_be_a_folder(photos, tmp_path):
    with pytest.raises(UserError, match="folder"):
        prepare(open_source(photos), tmp_path, Recipe(size=(8, 8)), progress=False)
    assert Path(tmp_path).is_dir()


def spoil(content, what):
    """Change a zip as bytes: the checksum of one entry, the kind of all of them, or the directory."""
    places = [m.start() for m in re.finditer(b"PK\x03\x04", content)]
    listed = [m.start() for m in re.finditer(b"PK\x01\x02", content)]
    if what == "sum":
        content[places[2] + 60] ^= 0xFF
    for local, central in zip(places, listed, strict=True):
        if what == "encrypted":
            content[local + 6] |= 1
            content[central + 8] |= 1
        elif what == "compression":
            content[local + 8] = content[central + 10] = 99
    if what == "directory":
        content[listed[0]] = 0
    return content


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("encrypted", "encrypted"),
        ("compression", "compression method"),
        ("directory", "cannot read .* as a zip"),
        ("sum", None),
    ],
)
def test_a_damaged_zip_is_one_line_and_a_damaged_entry_is_left_out(photos, tmp_path, what, line):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in open_source(photos).names:
            archive.write(photos / name, name)
    content = spoil(bytearray((tmp_path / "a.zip").read_bytes()), what)
    (tmp_path / "a.zip").write_bytes(content)
    if line is None:
        result, store = build(tmp_path / "a.zip", tmp_path / "o.lmdb")
        assert len(store) == 11
        assert "CRC-32" in result.left_out[0][1]
    else:
        with pytest.raises(UserError, match=line):
            build(tmp_path / "a.zip", tmp_path / "o.lmdb")


def test_an_entry_that_unpacks_to_too_much_is_left_out_unread(photos, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(photos / "0.png", "0.png")
        archive.writestr("bomb.png", b"\0" * 1_000_000)
    monkeypatch.setattr(sources, "_LARGEST", 500_000)
    result, store = build(tmp_path / "a.zip", tmp_path / "o.lmdb")
    assert len(store) == 1
    assert result.left_out == [("bomb.png", "it unpacks to 1000000 bytes, more than 500000")]
    (photos / "bomb.png").write_bytes(b"\0" * 1_000_000)
    assert dict(build(photos, tmp_path / "o.lmdb")[0].left_out)["bomb.png"].startswith("it has 1000000 bytes")


@dataclass(frozen=True)
class Deadly(FolderSource):
    """A source whose images end the process that reads them, as a lack of memory would."""

    def read(self, name):
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


def test_a_worker_that_is_killed_ends_the_call(photos, tmp_path):
    source = Deadly.open(photos)
    with pytest.raises(UserError, match="killed, perhaps for its memory"):
        prepare(source, tmp_path / "o.lmdb", Recipe(size=(8, 8)), workers=2, progress=False)
    assert sorted(os.listdir(tmp_path)) == ["photos"]


def test_what_a_killed_call_left_is_removed(photos, tmp_path):
    left = tmp_path / ".o.lmdb.1-00.partial"
    left.write_bytes(b"half")
    build(photos, tmp_path / "o.lmdb")
    assert sorted(os.listdir(tmp_path)) == ["o.lmdb", "photos"]


@pytest.mark.parametrize(
    "recipe",
    [
        {"size": (100_000, 100_000)},
        {"size": (8, 8), "crops": 1_000_000_000},
        {"min_side": -1},
        {"max_pixels": 0},
        {"seed": -1},
    ],
)
def test_recipes_that_cannot_work_are_refused(recipe):
    with pytest.raises(UserError, match=next(reversed(recipe))):
        Recipe(**recipe)
