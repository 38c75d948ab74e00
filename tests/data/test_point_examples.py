"""Images at points: the values of the full images there, whatever the cache, the format and the workers."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.data.batches import mixed_batches
from infdiff.data.image_set import ImageSet
from infdiff.data.point_examples import PointExamples, PointReader
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import open_source
from infdiff.data.store import ImageStore
from infdiff.diffusion.mollifier import Mollifier
from infdiff.points import PointBatch, draw_points, gather

SIZE = (430, 450)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two photographs, large enough for a smooth copy, in tiles and in PNG."""
    folder = tmp_path_factory.mktemp("large")
    random = np.random.default_rng(0)
    for number in range(2):
        small = Image.fromarray(random.integers(0, 256, (43, 45, 3), dtype=np.uint8))
        small.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    made = {}
    for format in ("tiles", "png"):
        prepare(open_source(folder), folder / f"{format}.lmdb", Recipe(size=SIZE, format=format), progress=False)
        made[format] = ImageStore(folder / f"{format}.lmdb")
    return made


def examples(store, cache="none", sigma=2.0, size=SIZE, **options):
    reader = PointReader(ImageSet(store, [0, 1], size, cache=cache), size, Mollifier(sigma, size))
    options = {"kind": "uniform", "flip": False, "encoder": True, "seed": 3, "purpose": "points"} | options
    return PointExamples(reader, options.pop("count", 500), **options)


@pytest.mark.parametrize("sigma", [0.0, 1.2, 2.0, 7.0])
@pytest.mark.parametrize(("format", "cache"), [("tiles", "none"), ("tiles", "ram"), ("png", "none"), ("png", "ram")])
def test_values_are_those_of_the_full_image(stores, format, cache, sigma):
    store = stores[format]
    batch = examples(store, cache, sigma).draw(1, 8)
    image = torch.from_numpy(np.array(store.read(1))).permute(2, 0, 1)[None]
    assert torch.equal(batch.values, gather(image, batch.ids))
    assert torch.equal(batch.encoder_values, gather(image, batch.encoder_ids))
    assert not torch.equal(batch.ids, batch.encoder_ids)
    expected = gather(Mollifier(sigma, SIZE)(image / 127.5 - 1), batch.ids)
    torch.testing.assert_close(batch.mollified, expected, rtol=0, atol=1e-3)
    assert batch.shape == (1, 3, *SIZE)


def test_images_of_another_size_are_resized_first(stores):
    seen = examples(stores["tiles"], size=(200, 210), sigma=3.0)
    batch = seen.draw(0, 0)
    image = seen.reader.images[0][None]
    assert torch.equal(batch.values, gather(image, batch.ids))
    expected = gather(Mollifier(3.0, (200, 210))(image / 127.5 - 1), batch.ids)
    torch.testing.assert_close(batch.mollified, expected, rtol=0, atol=1e-3)


def test_tiles_are_smoothed_when_they_are_prepared_alone(stores, monkeypatch):
    seen = examples(stores["tiles"])
    monkeypatch.setattr(seen.reader.images, "_read", None)
    assert seen.draw(0, 0).mollified.isfinite().all()


def test_half_of_the_images_are_flipped(stores):
    seen = examples(stores["png"], "ram", flip=True)
    image = seen.reader.images[0][None]
    flips = 0
    for position in range(40):
        batch = seen.draw(0, position)
        flipped = torch.equal(batch.values, gather(image.flip(-1), batch.ids))
        assert flipped or torch.equal(batch.values, gather(image, batch.ids))
        used = image.flip(-1) if flipped else image
        assert torch.equal(batch.encoder_values, gather(used, batch.encoder_ids))
        flips += flipped
    assert 8 < flips < 32


def test_the_draw_is_the_positions_alone(stores):
    seen = examples(stores["tiles"])
    same = examples(stores["png"], "ram").draw(1, 5)
    assert torch.equal(seen.draw(1, 5).ids, same.ids)
    assert not torch.equal(seen.draw(1, 6).ids, same.ids)
    assert torch.equal(seen.take(torch.tensor([1, 0])).ids[:1], seen.draw(1, 1).ids)
    assert seen.draw(0, 0).encoder_ids.shape == (1, 500)
    assert examples(stores["tiles"], encoder=False).draw(0, 0).encoder_ids.shape == (1, 0)


@pytest.mark.parametrize(("cache", "workers"), [("ram", 0), ("none", 0), ("none", 2)])
def test_batches_mix_images_and_points_in_one_order(stores, cache, workers):
    points = examples(stores["tiles"], cache)
    sets, draws = [points.reader.images, points], [(1, 2), (0, 1), (1, 3)]
    found = list(mixed_batches(sets, draws, seed=1, position=4, workers=workers, device="cpu"))
    assert [type(batch) is PointBatch for batch in found] == [True, False, True]
    assert [batch.shape for batch in found] == [(count, 3, *SIZE) for _, count in draws]
    again = itertools.islice(mixed_batches(sets, draws[2:], seed=1, position=7, workers=0, device="cpu"), 1)
    assert torch.equal(next(again).mollified, found[2].mollified)


def test_a_batch_goes_to_a_device_whole(stores):
    batch = examples(stores["tiles"]).draw(0, 0)
    moved = batch.to("meta")
    assert moved.device.type == moved.ids.device.type == moved.encoder_values.device.type == "meta"
    assert moved.shape == batch.shape


def test_joined_batches_are_their_images_in_order(stores):
    seen = examples(stores["tiles"])
    joined = PointBatch.join([seen.draw(0, 0), seen.draw(1, 1)])
    assert torch.equal(joined.values[1:], seen.draw(1, 1).values)
    ids = draw_points(1, 500, SIZE, torch.Generator())
    assert joined.ids.shape == (2, ids.shape[1])
