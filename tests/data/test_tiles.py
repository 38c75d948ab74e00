"""Images in tiles: the same pixels, read where they are asked for alone."""

import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.data import tiles
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import open_source
from infdiff.data.store import ImageStore
from infdiff.data.tiles import TiledImage, encode_tiles
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.smooth_copy import SmoothCopy
from infdiff.errors import OptionError
from infdiff.points import draw_points, gather
from tests.conftest import assert_one_line_error


@pytest.fixture
def decoded(monkeypatch):
    """The number of tiles that were decompressed."""
    seen = []
    real = zlib.decompress

    def counted(data):
        seen.append(1)
        return real(data)

    monkeypatch.setattr(tiles.zlib, "decompress", counted)
    return seen


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (1, 9), (8, 8), (130, 64)])
@pytest.mark.parametrize("tile", [8, 64])
def test_all_pixels_come_back(size, tile):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    read = TiledImage(encode_tiles(image, tile))
    assert read.size == size
    assert (read.read() == image).all()


@pytest.mark.parametrize("reach", [0, 1, 5, 20])
def test_pixels_around_points_come_back(reach):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    read = TiledImage(encode_tiles(image, 8))
    ids = torch.tensor([0, 3, 70 * 20 + 33, 70 * 50 - 1])
    pixels = read.around(ids, reach)
    for row, column in (divmod(number, 70) for number in ids.tolist()):
        near = slice(max(0, row - reach), row + reach + 1), slice(max(0, column - reach), column + reach + 1)
        assert (pixels[near] == image[near]).all()


def test_only_tiles_near_the_points_are_decoded(decoded):
    read = TiledImage(encode_tiles(np.zeros((64, 64, 3), dtype=np.uint8), 8))
    read.around(torch.tensor([64 * 12 + 12]), 0)
    assert len(decoded) == 1
    decoded.clear()
    read.around(torch.tensor([64 * 12 + 12, 64 * 12 + 13]), 5)
    assert len(decoded) == 9


def test_the_copy_of_large_images_gives_the_published_mollifier(generator):
    size = (520, 440)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    read = TiledImage(encode_tiles(image.permute(1, 2, 0).numpy(), 64))
    copy = read.smooth_copy()
    for sigma in (440 / 256, 3.0, 8.0):
        mollifier = Mollifier(sigma, size)
        lattice = SmoothCopy.of_cells(read.copy_cells, mollifier)
        ids = draw_points(1, 3000, size, generator)
        expected = gather(mollifier((image.float() / 127.5 - 1).unsqueeze(0)), ids)[0]
        torch.testing.assert_close(lattice.read(copy, ids[0], size), expected, rtol=0, atol=1e-3)
    assert TiledImage(encode_tiles(np.zeros((64, 64, 3), dtype=np.uint8), 64)).smooth_copy() is None


@pytest.fixture
def stores(photos, tmp_path):
    """The same native images in tiles and in PNG."""
    made = []
    for format in ("tiles", "png"):
        recipe = Recipe(size=None, format=format, tile=16 if format == "tiles" else 0)
        prepare(open_source(photos), tmp_path / f"{format}.lmdb", recipe, progress=False)
        made.append(ImageStore(tmp_path / f"{format}.lmdb"))
    return made


def test_a_store_says_that_it_has_tiles_and_reads_as_others(stores):
    tiled, plain = stores
    assert (tiled.header.format, tiled.header.tile, plain.header.tile) == ("tiles", 16, 0)
    for index in range(len(tiled)):
        assert (np.asarray(tiled.read(index)) == np.asarray(plain.read(index))).all()
        assert tiled.size_of(index) == plain.size_of(index)
    assert tiled.holds((64, 48))
    assert not tiled.holds((64, 60))


def test_every_format_reads_pixels_at_points(stores, decoded):
    tiled, plain = stores
    ids = torch.tensor([0, 5, 40])
    for index in range(3):
        image = torch.from_numpy(np.array(plain.read(index))).flatten(0, 1)
        decoded.clear()
        for store in stores:
            assert torch.equal(store.around(index, ids, 0).flatten(0, 1)[ids], image[ids])
        assert 1 <= len(decoded) <= 3
    assert tiled.smooth_copy(0) is None
    assert plain.smooth_copy(0) is None


@pytest.mark.parametrize(("recipe", "part"), [({"tile": 16}, "--format tiles"), ({"tile": 4, "format": "tiles"}, "8")])
def test_impossible_tiles_are_named(recipe, part):
    with pytest.raises(OptionError, match=part):
        Recipe(**recipe)


def test_the_command_makes_tiles(command, tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 24), (10, 200, 30)).save(tmp_path / "in" / "a.png")
    arguments = ("prepare-data", "in", "--out", "t.lmdb", "--size", "native", "--workers", 1)
    assert command(*arguments, "--format", "tiles", "--tile", 8).returncode == 0
    store = ImageStore(tmp_path / "t.lmdb")
    assert store.header.tile == 8
    assert store.read(0).getpixel((39, 23)) == (10, 200, 30)
    assert_one_line_error(command(*arguments, "--tile", 8), "--tile 8", "--format tiles")
