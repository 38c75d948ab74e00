"""The order of training images is a function of (seed, epoch), whatever the cache and the workers."""

import itertools

import pytest
import torch

from infdiff.data.batches import ImageSet, batches, order, split
from infdiff.data.demo import DEMO_PATH
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
