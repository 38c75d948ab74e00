"""A folder of shards is the store that one file would be."""

import os
import shutil

import numpy as np
import pytest
import torch

from infdiff.data import DEMO_PATH
from infdiff.data.label_files import read_labels
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.prepare_fields import FieldOptions, prepare_fields
from infdiff.data.shards import shard_name
from infdiff.data.sources import open_source
from infdiff.data.store import ImageStore
from infdiff.errors import UserError
from infdiff.training import checkpoint
from tests.conftest import TINY, assert_one_line_error

RECIPE = Recipe(size=(16, 16), crops=2)


def build(photos, out, shards, recipe=RECIPE, **options):
    prepare(open_source(photos), out, recipe, shards=shards, progress=False, **options)
    return ImageStore(out)


@pytest.fixture
def both(photos, tmp_path):
    """One file and three shards, of the same photographs, one of which cannot be read."""
    (photos / "00.png").write_bytes(b"no image")
    return build(photos, tmp_path / "one.lmdb", 0), build(photos, tmp_path / "three.lmdb", 3)


def test_shards_hold_the_images_of_one_file_in_its_order(both):
    one, three = both
    assert [os.path.basename(file) for file in three.files] == [shard_name(n, 3) for n in range(3)]
    assert three.starts == [0, 6, 14, 24]  # of 13 files 4, 4 and 5, of which the first is left out
    assert three.header == one.header
    assert three.fingerprint(range(24)) == one.fingerprint(range(24))
    for index in range(24):
        assert (np.asarray(three.read(index)) == np.asarray(one.read(index))).all()


def test_several_processes_write_the_same_bytes(photos, tmp_path):
    files = [build(photos, tmp_path / f"{n}.lmdb", 2, workers=n).files for n in (1, 2)]
    for first, second in zip(*files, strict=True):
        with open(first, "rb") as a, open(second, "rb") as b:
            assert a.read() == b.read()


def test_labels_are_those_of_all_shards(photos, tmp_path):
    lines = [f"{path.relative_to(photos)},{number / 2},1" for number, path in enumerate(sorted(photos.rglob("*.png")))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    labels = read_labels(str(tmp_path / "labels.csv"), open_source(photos).names)
    one, three = (build(photos, tmp_path / f"{n}.lmdb", n, labels=labels) for n in (0, 3))
    assert three.labels == one.labels
    assert torch.equal(three.label_rows(range(24)), one.label_rows(range(24)))


def test_fields_are_normalised_over_all_shards(tmp_path, generator):
    (tmp_path / "fields").mkdir()
    for number in range(5):
        np.save(tmp_path / "fields" / f"{number}.npy", number + torch.rand(2, 16, 16, generator=generator).numpy())
    source = open_source(tmp_path / "fields")
    for shards in (0, 2):
        prepare_fields(source, tmp_path / f"{shards}.lmdb", Recipe(size=(16, 16)), FieldOptions(), shards=shards)
    one, two = (ImageStore(tmp_path / f"{shards}.lmdb") for shards in (0, 2))
    assert two.header == one.header
    assert all(torch.equal(two.read_at(n, (16, 16)), one.read_at(n, (16, 16))) for n in range(5))


def test_training_is_that_on_one_file_bit_for_bit(photos, command, tmp_path):
    """Read from the files at every step, and stopped and continued on the shards."""
    for name, shards in (("one", 0), ("three", 3)):
        build(photos, tmp_path / f"{name}.lmdb", shards)
    settings = [*TINY, "data.cache=none", "data.workers=0", "train.checkpoint_every=2", "train.decay_from=1"]
    for name, steps in (("one", (4,)), ("three", (2, 4))):
        for step in steps:
            call = ("--data", f"{name}.lmdb", "--steps", step, "--out", f"runs/{name}")
            result = command("train", *call, *settings)
            assert result.returncode == 0, result.stderr
    weights = [
        checkpoint.load_tensors(tmp_path / "runs" / name / "checkpoints", 4, "denoiser") for name in ("one", "three")
    ]
    for name, tensor in weights[0].items():
        assert torch.equal(weights[1][name], tensor), name
    result = command("evaluate", "--run", "runs/one", "--data", "three.lmdb", "--n", 5, "--metrics", "spectrum")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("fault", ["missing", "settings", "set", "count", "number", "alone"])
def test_shards_that_are_not_one_data_set_are_one_line(photos, command, tmp_path, fault):
    folder, path = tmp_path / "a.lmdb", "a.lmdb"
    build(photos, folder, 2)
    second = folder / shard_name(1, 2)
    match fault:
        case "missing":
            second.unlink()
            expected = f"{second.name} is missing"
        case "settings":
            build(photos, tmp_path / "b.lmdb", 2, Recipe(size=(16, 16)))
            shutil.copy(tmp_path / "b.lmdb" / second.name, second)
            expected = "has other settings than"
        case "set":
            build(photos, tmp_path / "b.lmdb", 2, Recipe(size=(16, 16), crops=2, seed=1))
            shutil.copy(tmp_path / "b.lmdb" / second.name, second)
            expected = "are of two data sets"
        case "count":
            shutil.copy(second, folder / shard_name(1, 3))
            expected = "shards of 2 data sets, of 2 and of 3 shards"
        case "number":
            shutil.copy(folder / shard_name(0, 2), second)
            expected = "is not shard 1 of 2"
        case "alone":
            path, expected = f"a.lmdb/{second.name}", "is shard 1 of 2: name the folder"
    assert_one_line_error(command("train", "--data", path, "--steps", 1, *TINY), expected)


def test_a_call_that_fails_leaves_nothing_and_what_was_there_stays(photos, tmp_path):
    store = build(photos, tmp_path / "a.lmdb", 2)
    (tmp_path / ".a.lmdb.1-00.partial").mkdir()  # of a call that was killed
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 12 images"):
        build(photos, tmp_path / "a.lmdb", 3)
    assert sorted(os.listdir(tmp_path)) == ["a.lmdb", "photos"]
    assert ImageStore(tmp_path / "a.lmdb").fingerprint(range(24)) == store.fingerprint(range(24))


def test_shards_replace_shards_alone(photos, tmp_path):
    build(photos, tmp_path / "a.lmdb", 2)
    assert len(build(photos, tmp_path / "a.lmdb", 3).files) == 3
    assert sorted(os.listdir(tmp_path)) == ["a.lmdb", "photos"]
    for out in (photos, DEMO_PATH):
        with pytest.raises(UserError, match="no folder of shards"):
            build(photos, out, 2)
    with pytest.raises(UserError, match="is a folder"):
        build(photos, tmp_path / "a.lmdb", 0)


@pytest.mark.parametrize("shards", [-1, 13])
def test_numbers_of_shards_that_cannot_work_are_named(photos, command, shards):
    result = command("prepare-data", photos, "--out", "a.lmdb", "--shards", shards)
    assert_one_line_error(result, f"--shards {shards}: want")
