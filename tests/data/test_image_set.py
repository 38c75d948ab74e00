"""Images of a store at a size, and the split into training and validation images."""

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.data.image_set import ImageSet, split
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import open_source
from infdiff.data.store import ImageStore
from infdiff.errors import UserError


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


def test_unknown_caches_are_named(store):
    with pytest.raises(UserError, match="disk"):
        ImageSet(store, [0], (8, 8), cache="disk")
