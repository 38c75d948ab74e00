"""The images of a run: which are trained on, at which sizes."""

import itertools

import pytest
import torch

from infdiff.config.files import load_config
from infdiff.data.demo import DEMO_PATH
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import open_source
from infdiff.data.upsampled import Upsampled
from infdiff.errors import UserError
from infdiff.methods import sizes
from infdiff.methods.sizes import drawn_point_count
from infdiff.points import PointBatch
from infdiff.runs.data import TrainingData, build_data
from infdiff.runs.training import build_trainer
from infdiff.seeding import derive_seed
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY, TINY_GRID
from tests.runs.conftest import CPU

SIZES = ["data.size=16", "data.resolutions={8: 1, 16: 1}", "data.batch_sizes={8: 6}"]


def config_of(*settings):
    return load_config(CONFIG_FOLDER / "demo.yaml", [*TINY, *settings])


@pytest.fixture
def store(photos, tmp_path):
    prepare(open_source(photos), tmp_path / "photos.lmdb", Recipe(size=(16, 16)), progress=False)
    return tmp_path / "photos.lmdb"


def test_images_are_either_trained_on_or_held_out(store):
    data = build_data(config_of(f"data.path={store}", "data.validation_fraction=0.25"), CPU)
    assert (len(data.train), len(data.validation)) == (9, 3)
    assert set(data.train.indices).isdisjoint(data.validation.indices)


def test_a_store_of_its_own_is_all_validation(store):
    data = build_data(config_of(f"data.validation_path={store}", "train.validation_images=5"), CPU)
    assert (len(data.train), len(data.validation)) == (126, 5)
    assert data.validation.store.path == str(store)


def test_sizes_that_no_image_has_are_refused(store):
    with pytest.raises(UserError, match=r"resolution 32 is larger than the images of .*photos\.lmdb"):
        build_data(config_of(f"data.path={store}", "data.size=32"), CPU)


def test_every_batch_has_one_resolution_and_its_own_size():
    config = load_config(CONFIG_FOLDER / "demo.yaml", [*TINY_GRID, *SIZES, "train.batch_size=3"])
    given = TrainingData(config, build_data(config, CPU), CPU)
    batches = list(itertools.islice(given.batches(0), 30))
    assert {tuple(batch.shape) for batch in batches} == {(6, 3, 8, 8), (3, 3, 16, 16)}
    assert {given.label(batch) for batch in batches} == {"8", "16"}
    again = list(itertools.islice(given.batches(20), 10))
    assert all(torch.equal(a, b) for a, b in zip(batches[20:], again, strict=True))
    assert {tuple(batch.shape[2:]) for batch in given.validation()} == {(8, 8), (16, 16)}


def test_validation_has_as_many_batches_as_the_settings_allow():
    """Three of 40 steps' twentieth for each of two resolutions; at most the images that there are."""
    settings = [*TINY_GRID, *SIZES, "train.batch_size=3", "train.steps=40", "train.checkpoint_every=100"]
    for fraction, limit, counts in ((0.4, 256, [3, 3, 3]), (0.4, 7, [3, 3, 1]), (0.05, 256, None)):
        overrides = [*settings, f"data.validation_fraction={fraction}", f"train.validation_images={limit}"]
        config = load_config(CONFIG_FOLDER / "demo.yaml", [*overrides, "data.batch_sizes={}"])
        data = build_data(config, CPU)
        given = TrainingData(config, data, CPU).validation()
        batches = list(given)
        assert len(batches) == len(given)
        for side in (8, 16):
            own = [batch for batch in batches if batch.shape[2] == side]
            assert sum(map(len, own)) == min(9, limit, len(data.validation))
            assert counts is None or [len(batch) for batch in own] == counts


def test_one_resolution_has_no_label():
    config = config_of()
    given = TrainingData(config, build_data(config, CPU), CPU)
    assert given.label(next(given.batches(0))) == ""


def test_a_size_to_fine_tune_for_is_upsampled_from_the_largest(generator):
    settings = ["finetune.run=any", "finetune.size=24", "finetune.weight=0.5"]
    config = load_config(CONFIG_FOLDER / "demo.yaml", [*TINY_GRID, *SIZES, *settings])
    given = TrainingData(config, build_data(config, CPU), CPU)
    assert [part.weight for part in given.parts] == pytest.approx([0.25, 0.25, 0.5])
    upsampled = given.parts[-1].train
    assert isinstance(upsampled, Upsampled)
    assert (upsampled.size, upsampled.examples.size) == ((24, 24), (16, 16))


@pytest.fixture
def sparse(monkeypatch):
    """Points alone are read at 16 pixels, too, at a rate of 16."""
    monkeypatch.setattr(sizes, "_LARGE", 256)
    monkeypatch.setattr(sizes, "_SPARSE_RATE", 16)


def test_sparse_steps_are_given_points_and_dense_ones_images(sparse):
    config = config_of("train.subsample={4: 1, 16: 1}")
    given = TrainingData(config, build_data(config, CPU), CPU)
    batches = list(itertools.islice(given.batches(0), 20))
    for step, batch in enumerate(batches):
        # The rate is the one that the objective draws from the step's generator.
        count = drawn_point_count(config, (16, 16), derive_seed(config.seed, "step", step))
        assert isinstance(batch, PointBatch) == (count == 16)
        assert batch.shape == (4, 3, 16, 16)
        assert given.label(batch) == ""
        if isinstance(batch, PointBatch):
            assert batch.ids.shape == batch.encoder_ids.shape == (4, 16)
    assert 3 < sum(isinstance(batch, PointBatch) for batch in batches) < 17
    for a, b in zip(batches[7:], itertools.islice(given.batches(7), 13), strict=True):
        assert torch.equal(a.values, b.values) if isinstance(a, PointBatch) else torch.equal(a, b)


def test_validation_has_the_same_points_every_time(sparse):
    settings = ["train.batch_size=2", "data.validation_fraction=0.2", "train.steps=2000", "train.checkpoint_every=1000"]
    config = config_of("train.subsample={4: 1, 16: 1}", *settings)
    given = TrainingData(config, build_data(config, CPU), CPU).validation()
    first, second = list(given), list(given)
    assert len(first) == len(given)
    assert len({type(batch) for batch in first}) == 2
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        count = drawn_point_count(config, (16, 16), derive_seed(config.seed, "validation", number))
        assert isinstance(a, PointBatch) == (count == 16)
        assert torch.equal(a.ids, b.ids) if isinstance(a, PointBatch) else torch.equal(a, b)


def test_a_run_at_points_alone_trains_and_goes_on_bit_for_bit(sparse, tmp_path):
    """Also where tiles are read by workers."""
    prepare(open_source(DEMO_PATH), tmp_path / "t.lmdb", Recipe(size=(16, 16), format="tiles", tile=8), progress=False)
    settings = ["train.subsample=16", f"data.path={tmp_path / 't.lmdb'}", "train.checkpoint_every=2", "data.flip=true"]
    weights = []
    for name, stops, cache in (("a", (4,), "ram"), ("b", (2, 4), "ram"), ("c", (4,), "none")):
        for steps in stops:
            config = config_of(*settings, f"train.steps={steps}", f"data.cache={cache}", "data.workers=1")
            (tmp_path / name).mkdir(exist_ok=True)
            trainer = build_trainer(config, build_data(config, CPU), tmp_path / name, CPU)
            trainer.preview = None
            trainer.run()
        weights.append(torch.cat([p.flatten() for p in trainer.parameters]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
