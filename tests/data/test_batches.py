"""The order of training images is a function of (seed, epoch), whatever the cache and the workers."""

import itertools

import pytest
import torch

from infdiff.data.batches import batches, mixed_batches, order
from infdiff.data.image_set import ImageSet


def take(store, cache, position, count):
    images = ImageSet(store, list(range(len(store))), (16, 16), cache=cache)
    endless = batches(images, 5, seed=1, position=position, workers=0, device="cpu")
    return torch.cat(list(itertools.islice(endless, count)))


@pytest.mark.parametrize("cache", ["ram", "device", "none"])
def test_every_cache_gives_the_same_order(store, cache):
    expected = torch.cat([order(24, 1, epoch) for epoch in (0, 1)])[:30]
    images = ImageSet(store, list(range(24)), (16, 16))
    assert torch.equal(take(store, cache, 0, 6), torch.stack([images[int(i)] for i in expected]))


@pytest.mark.parametrize(("cache", "workers"), [("ram", 0), ("none", 0), ("none", 2)])
def test_batches_of_several_sizes_go_on_in_one_order(store, cache, workers):
    small = ImageSet(store, list(range(24)), (8, 8), cache=cache)
    sets = [small, small.at((16, 16))]
    draws = [(0, 3), (1, 5), (1, 2), (0, 4)]
    out = list(mixed_batches(sets, draws, seed=1, position=20, workers=workers, device="cpu"))
    places = iter(torch.cat([order(24, 1, epoch) for epoch in (0, 1)])[20:].tolist())
    for batch, (number, count) in zip(out, draws, strict=True):
        assert torch.equal(batch, torch.stack([sets[number][next(places)] for _ in range(count)]))


def test_a_position_is_all_there_is_to_resume(store):
    assert torch.equal(take(store, "ram", 0, 8)[15:], take(store, "ram", 15, 5))


def test_an_epoch_holds_every_image_once():
    assert sorted(order(100, 3, 7).tolist()) == list(range(100))
    assert not torch.equal(order(100, 3, 7), order(100, 3, 8))
    assert not torch.equal(order(100, 3, 7), order(100, 4, 7))
