"""Files of fields are read as they are: any depth, any number of channels, in the layout that they have."""

import io

import numpy as np
import pytest
from PIL import Image

from infdiff.errors import OptionError
from infdiff.images.field_files import decode_array, guessed_layout, is_deep, read_field, save_field
from tests.fields import png16, tiff

RANDOM = np.random.default_rng(0)


def deep(channels, dtype=np.uint16, size=(7, 9)):
    if np.dtype(dtype).kind == "f":
        return RANDOM.standard_normal((*size, channels)).astype(dtype)
    return RANDOM.integers(0, np.iinfo(dtype).max, (*size, channels), dtype=dtype, endpoint=True)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("filters", [(0,), (1,), (2,), (3,), (4,), (4, 1, 3, 2, 0)])
def test_a_png_of_several_16_bit_channels_keeps_them(channels, filters):
    values = deep(channels)
    content = png16(values, filters)
    with Image.open(io.BytesIO(content)) as image:  # the file is one that others read, if with less depth
        assert (np.asarray(image.convert("RGBA")).shape[:2]) == (7, 9)
    read, layout = decode_array(content)
    assert layout == "hwc"
    assert read.dtype == np.uint16
    assert (read == values).all()
    assert is_deep(content)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("form", [{}, {"compressed": True}, {"planar": True}, {"compressed": True, "planar": True}])
def test_a_tiff_of_several_deep_channels_keeps_them(dtype, form):
    values = deep(3, dtype)
    read, layout = decode_array(tiff(values, **form))
    assert (layout, read.dtype) == ("hwc", dtype)
    assert (read == values).all()
    assert is_deep(tiff(values, **form))


def test_differences_of_a_tiff_are_summed():
    values = deep(2)
    assert (decode_array(tiff(values, compressed=True, predictor=2))[0] == values).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's word for a TIFF that ends early
def test_damage_is_an_error_and_no_crash():
    for content in (png16(deep(3)), tiff(deep(3), compressed=True)):
        for end in (30, len(content) // 2):
            with pytest.raises((ValueError, OSError, KeyError, SyntaxError)):
                decode_array(content[:end])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_single_band_is_read_as_it_is(dtype, suffix, tmp_path):
    if suffix == "png" and dtype in (np.int32, np.float32):
        pytest.skip("no such PNG")
    values = deep(1, dtype)[..., 0]
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    read, layout = decode_array(content)
    assert (layout, read.dtype) == ("hw", dtype)
    assert (read == values).all()
    assert is_deep(content) == (dtype != np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_what_is_written_is_read_again(channels, suffix, tmp_path):
    values = RANDOM.standard_normal((channels, 6, 9)).astype(np.float32)
    values[0, 2, 3] = np.nan
    save_field(values, tmp_path / f"a.{suffix}")
    assert np.array_equal(read_field("input", tmp_path / f"a.{suffix}", channels), values, equal_nan=True)


def test_layouts_are_guessed_by_the_shortest_side():
    assert guessed_layout((2, 20, 24)) == "chw"
    assert guessed_layout((20, 24, 2)) == "hwc"
    assert guessed_layout((20, 24)) == "hw"
    with pytest.raises(ValueError, match="--layout"):
        guessed_layout((20, 24, 20))


def test_inputs_that_no_run_takes_are_named(tmp_path):
    path = tmp_path / "a.npy"
    for values, problem in (
        (np.zeros((2, 6, 9)), "2 channels, and the run's fields have 3"),
        (np.full((3, 6, 9), np.inf), "infinite"),
        (np.zeros((1, 3, 6, 9)), "shape"),
        (np.zeros((3, 6, 9), complex), "complex128"),
    ):
        np.save(path, values)
        with pytest.raises(OptionError, match=problem) as error:
            read_field("input", path, 3)
        assert str(path) in str(error.value)
    path.write_text("text")
    with pytest.raises(OptionError, match="cannot be read"):
        read_field("input", path, 3)
    with pytest.raises(OptionError, match="no such file"):
        read_field("input", tmp_path / "b.npy", 3)
