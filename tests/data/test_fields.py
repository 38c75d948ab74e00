"""Stores of fields: what goes in comes out, bit for bit; missing pixels; what no store can be made of."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.data.fields import DTYPES, decode_field, encode_field
from infdiff.data.image_set import ImageSet
from infdiff.data.prepare import Recipe
from infdiff.data.prepare_fields import FieldOptions, fields_of, prepare_fields
from infdiff.data.sources import open_source
from infdiff.data.store import ImageStore
from infdiff.errors import OptionError, UserError
from infdiff.images.field_resize import resized
from tests.fields import deep_images, png16, tiff, two_channels, with_holes

RANDOM = np.random.default_rng(1)


def build(source, out, size=None, workers=0, crops=0, min_side=8, **options):
    recipe = Recipe(size=size, crops=crops, min_side=min_side)
    prepared = prepare_fields(
        open_source(source), out, recipe, FieldOptions(**options), workers=workers, progress=False
    )
    return prepared, ImageStore(out)


def values_of(dtype, channels=2, size=(10, 14)):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return RANDOM.standard_normal((channels, *size)).astype(dtype)
    return RANDOM.integers(0, np.iinfo(dtype).max, (channels, *size), dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("holes", [False, True])
def test_a_record_is_exact(dtype, holes):
    values = values_of(dtype, size=(7, 9))
    valid = RANDOM.random((7, 9)) < 0.6 if holes else None
    again, known = decode_field(encode_field(values, valid))
    assert again.dtype == values.dtype
    assert (known is None) == (not holes)
    where = np.ones((7, 9), bool) if valid is None else valid
    assert (again[:, where] == values[:, where]).all()
    assert known is None or (known == valid).all()


def write(path, values, kind):
    """Save values (C, H, W) in a kind of file."""
    last = np.moveaxis(values, 0, -1)
    if kind == "npy":
        np.save(path.with_suffix(".npy"), values)
    elif kind == "npz":
        np.savez(path.with_suffix(".npz"), field=values)
    elif kind == "tif, pages":
        pages = [Image.fromarray(np.ascontiguousarray(plane)) for plane in values]
        pages[0].save(path.with_suffix(".tif"), save_all=True, append_images=pages[1:])
    elif kind == "tif":
        path.with_suffix(".tif").write_bytes(tiff(np.ascontiguousarray(last)))
    else:
        path.with_suffix(".png").write_bytes(png16(last))


FILES = [(kind, dtype) for kind in ("npy", "npz") for dtype in DTYPES]
FILES += [("tif, pages", "uint16"), ("tif, pages", "float32"), ("png", "uint16")]
FILES += [("tif", dtype) for dtype in ("uint16", "float16", "float32")]


@pytest.mark.parametrize(("kind", "dtype"), FILES)
def test_every_kind_of_file_comes_out_as_it_went_in(kind, dtype, tmp_path):
    (tmp_path / "in").mkdir()
    images = [values_of(dtype) for _ in range(3)]
    for number, values in enumerate(images):
        write(tmp_path / "in" / str(number), values, kind)
    prepared, store = build(tmp_path / "in", tmp_path / "out.lmdb")
    assert (store.field.channels, store.field.dtype, store.field.fewest) == (2, dtype, None)
    assert prepared.layout == ("hwc" if kind in ("tif", "png") else "chw")
    for number, values in enumerate(images):
        stored, valid = store.read_field(number)
        assert (stored.dtype, valid) == (np.dtype(dtype), None)
        assert (stored == values).all()
        assert store.size_of(number) == (10, 14)
    assert store.holds((10, 14))
    assert not store.holds((11, 14))


def test_zips_and_workers_give_the_same_store(tmp_path):
    folder = two_channels(tmp_path / "in", 5)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    _, first = build(folder, tmp_path / "a.lmdb", (16, 16), crops=2)
    _, second = build(tmp_path / "in.zip", tmp_path / "b.lmdb", (16, 16), crops=2, workers=2)
    assert first.field == second.field
    assert first.header.crops == 2
    assert len(first) == 10
    assert first.fingerprint(range(10)) == second.fingerprint(range(10))


def test_other_types_are_kept_as_float32_where_that_is_exact(tmp_path):
    for dtype, values in (
        ("int16", [-3, 500]),
        ("float64", [0.1, 2]),
        ("int32", [1 << 24, -5]),
        ("bool", [True, False]),
    ):
        (tmp_path / dtype).mkdir()
        array = np.resize(np.array(values, dtype), (8, 9))
        np.save(tmp_path / dtype / "a.npy", array)
        _, store = build(tmp_path / dtype, tmp_path / f"{dtype}.lmdb")
        assert store.field.dtype == ("uint8" if dtype == "bool" else "float32")
        assert (store.read_field(0)[0] == array.astype(np.float32)).all()
    np.save(tmp_path / "int32" / "a.npy", np.full((8, 9), (1 << 24) + 1))
    with pytest.raises(UserError, match=r"a\.npy holds int64 that float32 rounds"):
        build(tmp_path / "int32", tmp_path / "x.lmdb")


def test_images_are_read_normalised_with_units_and_names(tmp_path):
    folder = two_channels(tmp_path / "in")
    options = {"normalise": "meanstd", "units": ("m", "Pa"), "names": ("height", "pressure")}
    _, store = build(folder, tmp_path / "out.lmdb", **options)
    assert [store.field.label(channel) for channel in (0, 1)] == ["height (m)", "pressure (Pa)"]
    images = ImageSet(store, list(range(12)), (20, 24), cache="ram")
    assert images.images.dtype == torch.float32
    assert images.images.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert (images.images.std(dim=(0, 2, 3)) - 0.5).abs().max() < 1e-3
    raw = np.stack([np.load(path) for path in sorted(folder.iterdir())])
    # Normalised values are float32, which are 6e-8 apart at 1, and 1 is two standard deviations here.
    again, spread = store.field.in_units(images.images).numpy(), 2 * raw.std(axis=(0, 2, 3))
    for channel in range(2):
        np.testing.assert_allclose(again[:, channel], raw[:, channel], rtol=1e-7, atol=1e-7 * spread[channel])
    low, high = images.images.amin(dim=(0, 2, 3)), images.images.amax(dim=(0, 2, 3))
    assert torch.equal(torch.tensor(store.field.limits), torch.stack([low, high], dim=1))
    assert store.field.rms == pytest.approx(images.images.square().mean().sqrt().item(), rel=1e-3)
    assert torch.equal(images[3], ImageSet(store, [3], (20, 24))[0])


def holes(store):
    return [store.read_field(i)[1] for i in range(len(store))]


def test_nan_a_value_and_a_mask_say_what_is_missing(tmp_path):
    folder = with_holes(tmp_path / "nan", 3)
    arrays = [np.load(path) for path in sorted(folder.iterdir())]
    for name in ("value", "mask"):
        (tmp_path / name).mkdir()
        for i, array in enumerate(arrays):
            filled = np.where(np.isnan(array), -999 if name == "value" else RANDOM.standard_normal(array.shape), array)
            np.save(tmp_path / name / f"{i:02}.npy", filled.astype(np.float32))
            if name == "mask":
                Image.fromarray(~np.isnan(array)).save(tmp_path / name / f"{i:02}.mask.png")
    stores = [build(tmp_path / name, tmp_path / f"{name}.lmdb", missing=-999)[1] for name in ("nan", "value", "mask")]
    expected = [~np.isnan(array) for array in arrays]
    for store in stores:
        assert all((a == b).all() for a, b in zip(holes(store), expected, strict=True))
        assert store.field.fewest == min(int(valid.sum()) for valid in expected)
        # What stands in the holes has no part in the statistics, nor in the store.
        assert store.field == stores[0].field
        assert store.fingerprint(range(3)) == stores[0].fingerprint(range(3))
    image = ImageSet(stores[0], [1], (20, 24))[0]
    assert (image.isnan()[0].numpy() == ~expected[1]).all()


def test_a_pixel_is_missing_where_one_of_its_channels_is(tmp_path):
    (tmp_path / "in").mkdir()
    values = values_of("float32")
    values[1, 2, 3] = np.nan
    np.save(tmp_path / "in" / "a.npy", values)
    _, store = build(tmp_path / "in", tmp_path / "out.lmdb")
    assert holes(store)[0].sum() == 10 * 14 - 1
    assert ImageSet(store, [0], (10, 14))[0].isnan().sum() == 2


def test_resizing_is_the_mean_of_valid_pixels_and_does_not_clip():
    values = RANDOM.standard_normal((2, 24, 24)).astype(np.float32) * 300
    valid = RANDOM.random((24, 24)) < 0.8
    out, known = resized(np.where(valid, values, np.float32(np.nan)), valid, (12, 12))
    for channel in range(2):
        plane, share = (
            np.asarray(Image.fromarray(p).resize((12, 12), Image.Resampling.LANCZOS), dtype=np.float64)
            for p in (np.where(valid, values[channel], 0).astype(np.float32), valid.astype(np.float32))
        )
        assert (known == (share >= 0.5)).all()
        np.testing.assert_allclose(out[channel][known], (plane / share)[known], rtol=1e-4, atol=1e-3)
    # A constant stays one, whatever is missing; and what overshoots an edge is kept.
    constant, _ = resized(np.where(valid, 7.0, 1e6)[None].astype(np.float32), valid, (9, 11))
    np.testing.assert_allclose(constant[:, resized(values, valid, (9, 11))[1]], 7, rtol=1e-5)
    edge = np.where(np.arange(24) < 12, 0.0, 1000.0).astype(np.float32) * np.ones((1, 24, 1), np.float32)
    assert resized(edge, None, (48, 48))[0].max() > 1010


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_resized_whole_numbers_are_rounded_and_kept_in_range(dtype, tmp_path):
    (tmp_path / "in").mkdir()
    values = np.where(RANDOM.random((32, 32)) < 0.5, 0, np.iinfo(dtype).max).astype(dtype)
    np.save(tmp_path / "in" / "a.npy", values)
    _, store = build(tmp_path / "in", tmp_path / "out.lmdb", (16, 16))
    stored = store.read_field(0)[0]
    expected, _ = resized(values[None], None, (16, 16))
    assert stored.dtype == np.dtype(dtype)
    assert (stored == expected.round().clip(0, np.iinfo(dtype).max)).all()


def test_crops_of_an_image_with_holes_are_as_many_and_none_is_empty(tmp_path):
    (tmp_path / "in").mkdir()
    values = values_of("float32", 1, (64, 64))
    values[:, :, 16:] = np.nan  # three quarters are missing
    np.save(tmp_path / "in" / "a.npy", values)
    _, store = build(tmp_path / "in", tmp_path / "out.lmdb", (16, 16), crops=6, min_valid=0.2)
    assert len(store) == 6
    assert all(valid is None or valid.mean() >= 0.2 for valid in holes(store))
    prepared, _ = build(with_holes(tmp_path / "more", 3), tmp_path / "more.lmdb", (16, 16), min_valid=0.72)
    assert prepared.written + len(prepared.left_out) == 3


def test_what_is_a_field_and_what_an_image(photos, tmp_path):
    assert fields_of(open_source(photos)) is None
    assert fields_of(open_source(two_channels(tmp_path / "two", 2)))
    assert fields_of(open_source(deep_images(tmp_path / "deep", 2)))
    np.save(photos / "0labels.npy", np.zeros(3))
    assert fields_of(open_source(photos)) is None


def test_one_key_of_several(tmp_path):
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "a.npz", u=values_of("float32", 1), v=values_of("float16", 2))
    with pytest.raises(UserError, match=r"u, v: name one with --key"):
        build(tmp_path / "in", tmp_path / "out.lmdb")
    assert build(tmp_path / "in", tmp_path / "out.lmdb", key="v")[1].field.dtype == "float16"


def refused(source, tmp_path, **options):
    """The error of a preparation that leaves nothing."""
    with pytest.raises(UserError) as error:
        build(source, tmp_path / "refused.lmdb", **options)
    assert not (tmp_path / "refused.lmdb").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_that_no_store_is_made_of_are_named_with_a_remedy(tmp_path):
    folder = two_channels(tmp_path / "in", 4)
    cases = {
        "channels": (np.zeros((3, 20, 24), np.float32), "has 3 channels, and 00.npy 2"),
        "types": (np.zeros((2, 20, 24), np.float64), "holds float64, and 00.npy float32: save all of them in one type"),
        "infinite": (np.full((2, 20, 24), np.inf, np.float32), "holds infinite values: replace them, or mark them"),
        "empty": (
            np.full((2, 20, 24), np.nan, np.float32),
            "holds no valid pixel: remove it, or leave such images out",
        ),
    }
    for values, problem in cases.values():
        np.save(folder / "03.npy", values)
        message = refused(folder, tmp_path)
        assert "03.npy" in message
        assert problem in message
    assert build(folder, tmp_path / "a.lmdb", min_valid=0.1)[0].left_out[0][0] == "03.npy"
    np.save(folder / "03.npy", np.load(folder / "02.npy"))
    Image.new("L", (24, 19), 255).save(folder / "03.mask.png")
    message = refused(folder, tmp_path)
    assert "03.mask.png: 19x24 pixels, and the image has 20x24" in message
    (folder / "03.mask.png").write_text("text")
    assert "03.mask.png" in refused(folder, tmp_path)
    (folder / "03.mask.png").unlink()
    (folder / "03.npy").write_text("text")
    assert build(folder, tmp_path / "a.lmdb")[0].left_out[0][0] == "03.npy"


def test_infinite_values_may_be_the_missing_ones(tmp_path):
    (tmp_path / "in").mkdir()
    values = values_of("float32")
    values[0, :3] = np.inf
    np.save(tmp_path / "in" / "a.npy", values)
    assert build(tmp_path / "in", tmp_path / "out.lmdb", missing=np.inf)[1].field.fewest == 7 * 14


def test_options_that_cannot_work_are_named(tmp_path):
    folder = deep_images(tmp_path / "in", 2)
    assert "--normalise minmax" in refused(folder, tmp_path, units=("K",), normalise="none")
    assert "2 for 1 channels" in refused(folder, tmp_path, units=("K", "m"))
    assert "2 for 1 channels" in refused(folder, tmp_path, names=("a", "b"))
    assert "missing" in refused(folder, tmp_path, missing=-999)
    for option in ({"normalise": "rank"}, {"layout": "cwh"}, {"min_valid": 0.0}):
        with pytest.raises(OptionError, match=next(iter(option)).replace("_", "-")):
            FieldOptions(**option)


def test_reading_a_store_of_fields_as_rgb_is_refused(tmp_path):
    _, store = build(two_channels(tmp_path / "in", 2), tmp_path / "out.lmdb")
    with pytest.raises(UserError, match="fields of 2 channels"):
        store.read(0)


def test_a_single_file_of_several_images_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", np.zeros((5, 1, 8, 8)))
    assert "one image a file" in refused(tmp_path / "in", tmp_path)
    buffer = io.BytesIO()
    np.save(buffer, np.array(["a"]))
    (tmp_path / "in" / "a.npy").write_bytes(buffer.getvalue())
    assert "a.npy" in refused(tmp_path / "in", tmp_path)
