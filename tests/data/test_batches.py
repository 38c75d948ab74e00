"""The order of training images is a function of (seed, epoch), whatever the cache and the workers."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.data.batches import batches, mixed_batches, order
from infdiff.data.demo import DEMO_PATH
from infdiff.data.image_set import ImageSet, split
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import open_source
from infdiff.data.store import ImageStore
from infdiff.errors import UserError


@pytest.fixture
def store(photos, tmp_path):
    prepare(open_source(photos), tmp_path / "d.lmdb", Recipe(size=(16, 16), crops=2), progress=False)
    return ImageStore(tmp_path / "d.lmdb")


def take(store, cache, position, count, workers=0):
    images = ImageSet(store, list(range(len(store))), (16, 16), cache=cache)
    endless = batches(images, 5, seed=1, position=position, workers=workers, device="cpu")
    return torch.cat(list(itertools.islice(endless, count)))


@pytest.mark.parametrize(("cache", "workers"), [("ram", 0), ("device", 0), ("none", 0), ("none", 2)])
def test_every_way_to_read_gives_the_same_order(store, cache, workers):
    expected = torch.cat([order(24, 1, epoch) for epoch in (0, 1)])[:30]
    images = ImageSet(store, list(range(24)), (16, 16))
    assert torch.equal(take(store, cache, 0, 6, workers), torch.stack([images[int(i)] for i in expected]))


@pytest.mark.parametrize(("cache", "workers"), [("ram", 0), ("none", 0), ("none", 2)])
def test_batches_of_several_sizes_go_on_in_one_order(store, cache, workers):
    small = ImageSet(store, list(range(24)), (8, 8), cache=cache)
    sets = [small, small.at((16, 16))]
    draws = [(0, 3), (1, 5), (1, 2), (0, 4)]
    out = list(mixed_batches(sets, draws, seed=1, position=20, workers=workers, device="cpu"))
    places = iter(torch.cat([order(24, 1, epoch) for epoch in (0, 1)])[20:].tolist())
    for batch, (number, count) in zip(out, draws, strict=True):
        assert torch.equal(batch, torch.stack([sets[number][next(places)] for _ in range(count)]))


def test_every_size_is_made_from_the_stored_images_without_aliasing(store):
    images = ImageSet(store, [3], (8, 8), cache="ram")
    assert images.at((8, 8)) is images
    for size in ((16, 16), (12, 12), (5, 5)):
        expected = store.read(3).resize(size, Image.Resampling.LANCZOS)
        assert torch.equal(images.at(size)[0].permute(1, 2, 0), torch.from_numpy(np.array(expected)))


def test_a_pattern_finer_than_the_size_becomes_grey(tmp_path):
    board = np.kron(np.indices((32, 32)).sum(0) % 2 * 255, np.ones((1, 1))).astype(np.uint8)
    (tmp_path / "boards").mkdir()
    Image.fromarray(np.stack([board] * 3, axis=-1)).save(tmp_path / "boards" / "a.png")
    prepare(open_source(tmp_path / "boards"), tmp_path / "b.lmdb", Recipe(size=(32, 32)), progress=False)
    small = ImageSet(ImageStore(tmp_path / "b.lmdb"), [0], (32, 32)).at((12, 12))
    assert (small[0][:, 2:-2, 2:-2].float() - 127.5).abs().max() < 12


def test_a_store_says_which_sizes_it_holds(store, photos, tmp_path):
    assert store.holds((16, 16))
    assert not store.holds((16, 17))
    prepare(open_source(photos), tmp_path / "n.lmdb", Recipe(size=None), progress=False)
    native = ImageStore(tmp_path / "n.lmdb")  # of 40x60, 64x48 and 33x33 pixels
    assert all(native.holds(size) for size in ((40, 60), (64, 48), (33, 33)))
    assert not any(native.holds(size) for size in ((64, 60), (65, 1), (1, 61)))


def test_a_position_is_all_there_is_to_resume(store):
    assert torch.equal(take(store, "ram", 0, 8)[15:], take(store, "ram", 15, 5))


def test_an_epoch_holds_every_image_once():
    assert sorted(order(100, 3, 7).tolist()) == list(range(100))
    assert not torch.equal(order(100, 3, 7), order(100, 3, 8))
    assert not torch.equal(order(100, 3, 7), order(100, 4, 7))


def test_images_of_another_size_are_cropped_and_resized(store):
    images = ImageSet(store, [0, 1], (8, 12))
    assert images[0].shape == (3, 8, 12)


def test_crops_of_a_photograph_are_not_split(store):
    train, validation = split(store, 0.3, seed=0)
    assert sorted(train + validation) == list(range(24))
    assert {i // 2 for i in train}.isdisjoint({i // 2 for i in validation})
    assert len(validation) == 8


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_impossible_splits_are_named(store, fraction):
    with pytest.raises(UserError, match="validation_fraction"):
        split(store, fraction, seed=0)


def test_the_demo_set_is_whole():
    store = ImageStore(DEMO_PATH)
    assert len(store) == 126
    assert store.read(125).size == (128, 128)
    assert (DEMO_PATH.parent / "LICENSE.txt").read_text().startswith("Fluent Emoji")


def test_unknown_caches_are_named(store):
    with pytest.raises(UserError, match="disk"):
        ImageSet(store, [0], (8, 8), cache="disk")
