"""Labels of images: read from a CSV file or from folders, kept in a store, seen by networks as rows."""

import shutil

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.data.batches import mixed_batches, taken
from infdiff.data.image_set import ImageSet, split
from infdiff.data.label_files import read_labels
from infdiff.data.labels import LabelDescription
from infdiff.data.point_examples import PointExamples, PointReader
from infdiff.data.sources import open_source
from infdiff.data.store import ImageStore
from infdiff.data.upsampled import Upsampled
from infdiff.diffusion.mollifier import Mollifier
from infdiff.errors import OptionError, UserError
from infdiff.points import PointBatch
from tests.conftest import assert_one_line_error
from tests.fields import two_channels

NAMES = ("a.png", "b.png", "c.png")


def csv_of(folder, *lines):
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_column_of_words_or_whole_numbers_is_classes(tmp_path):
    labels = read_labels(csv_of(tmp_path, "file,kind", "b.png,dog", "a.png,cat", "c.png,dog"), NAMES)
    assert labels.classes == ("cat", "dog")
    assert [labels.values[name] for name in NAMES] == [(0.0,), (1.0,), (1.0,)]
    assert read_labels(csv_of(tmp_path, "a.png,7", "b.png,3", "c.png,7"), NAMES).classes == ("3", "7")


def test_other_numbers_are_vectors_normalised_by_their_mean_and_standard_deviation(tmp_path):
    table = np.array([[1.5, -3, 4], [2.5, 5, 4], [9.0, 1, 4]])
    path = csv_of(tmp_path, *(f"{n},{','.join(map(str, row))}" for n, row in zip(NAMES, table, strict=True)))
    labels = read_labels(path, NAMES)
    described = labels.description(NAMES)
    rows = torch.stack([described.row(labels.values[name]) for name in NAMES]).double().numpy()
    np.testing.assert_allclose(rows[:, :2], (table[:, :2] - table[:, :2].mean(0)) / table[:, :2].std(0), atol=1e-6)
    np.testing.assert_array_equal(rows[:, 2:], [[0, 1]] * 3)  # a number that never changes; and that there is a label
    assert LabelDescription.from_record(described.record()) == described
    assert read_labels(csv_of(tmp_path, "a.png,1.5", "b.png,2", "c.png,3"), NAMES).classes == ()


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["a.png,cat", "b.png,dog"], "no label for c.png"),
        (["a.png,cat", "b.png,dog", "c.png,cat", "d.png,cat"], "d.png, and there is no such image"),
        (["a.png,cat", "b.png,", "c.png,cat"], "line of b.png"),
        (["a.png,1,2", "b.png,1", "c.png,1,2"], "b.png has 1 values"),
        (["a.png,1,2", "b.png,1,x", "c.png,1,2"], "b.png: 1,x"),
        (["a.png,1,2", "b.png,1,nan", "c.png,1,2"], "b.png: 1,nan"),
        (["a.png,cat", "b.png,dog", "c.png,cat", "c.png,dog"], "two labels for c.png"),
    ],
)
def test_labels_that_do_not_fit_the_images_are_refused(lines, named, tmp_path):
    with pytest.raises(OptionError, match=named):
        read_labels(csv_of(tmp_path, *lines), NAMES)


def test_a_store_keeps_the_folder_of_each_image_and_of_its_crops(photos, command):
    for i in (0, 2, 4):
        (photos / f"{i}.png").rename((photos / "inner") / f"moved{i}.png")
    (photos / "outer").mkdir()
    for path in photos.glob("*.png"):
        path.rename(photos / "outer" / path.name)
    result = command(
        "prepare-data", photos, "--out", "x.lmdb", "--size", 16, "--crops", 2, "--labels", "folders", "--workers", 1
    )
    assert result.returncode == 0, result.stderr
    assert "labels: 2 classes (inner, outer)" in result.stdout
    store = ImageStore(photos.parent / "x.lmdb")
    expected = [int(name.startswith("outer")) for name in open_source(photos).names for _ in range(2)]
    assert store.label_rows(range(len(store))).argmax(dim=1).tolist() == expected
    assert len(split(store, 0.25, 0)[0]) > 0


def test_labels_of_fields_are_kept_too(tmp_path, command):
    folder = two_channels(tmp_path / "wind", 4)
    path = csv_of(tmp_path, *(f"{i:02}.npy,{i / 2},{i * i}" for i in range(4)))
    result = command("prepare-data", folder, "--out", "x.lmdb", "--size", 16, "--labels", path, "--workers", 1)
    assert result.returncode == 0, result.stderr
    store = ImageStore(tmp_path / "x.lmdb")
    rows = store.label_rows(range(4))
    assert store.labels is not None
    assert store.labels.mean == (0.75, 3.5)
    torch.testing.assert_close(rows.mean(0), torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(rows[:, :2].std(0, correction=0), torch.ones(2))


def test_a_damaged_label_is_named(photos, command):
    path = csv_of(photos.parent, *(f"{n},{i % 3}" for i, n in enumerate(open_source(photos).names)))
    assert command("prepare-data", photos, "--out", "x.lmdb", "--size", 16, "--labels", path).returncode == 0
    copy = shutil.copy(photos.parent / "x.lmdb", photos.parent / "y.lmdb")
    with lmdb.open(str(copy), subdir=False, lock=False) as environment, environment.begin(write=True) as transaction:
        value = bytearray(transaction.get(b"label-%09d" % 3))
        value[0] ^= 1
        transaction.put(b"label-%09d" % 3, bytes(value))
    store = ImageStore(copy)
    with pytest.raises(UserError, match="image 3"):
        store.label_rows(range(len(store)))


def test_bad_labels_are_one_line_and_leave_no_store(photos, command):
    result = command("prepare-data", photos, "--out", "x.lmdb", "--labels", "nowhere.csv")
    assert_one_line_error(result, "--labels nowhere.csv", "no such file")
    result = command("prepare-data", photos, "--out", "x.lmdb", "--labels", "folders")
    assert_one_line_error(result, "--labels folders", "lies in no folder")
    assert not (photos.parent / "x.lmdb").exists()


def test_a_store_without_labels_says_how_to_get_them(photos, command):
    assert command("prepare-data", photos, "--out", "x.lmdb", "--size", 16).returncode == 0
    store = ImageStore(photos.parent / "x.lmdb")
    assert store.labels is None
    with pytest.raises(UserError, match="--labels"):
        store.label_rows([0])


def coloured_set(folder, command, **options):
    """Images whose class is how bright they are."""
    (folder / "images").mkdir()
    lines = []
    for i in range(12):
        Image.fromarray(np.full((8, 8, 3), 60 * (i % 4), np.uint8)).save(folder / "images" / f"{i:02}.png")
        lines.append(f"{i:02}.png,{i % 4}")
    path = csv_of(folder, *lines)
    made = command("prepare-data", "images", "--out", "x.lmdb", "--size", 8, "--labels", path, "--workers", 1)
    assert made.returncode == 0, made.stderr
    return ImageSet(ImageStore(folder / "x.lmdb"), list(range(12)), (8, 8), labelled=True, **options)


def brightness(batch):
    """The class that the values of a batch say, of each image."""
    examples = batch.examples
    values = examples.values if isinstance(examples, PointBatch) else examples.flatten(2).mT
    return (values.float().mean(dim=(1, 2)) / 60).round().long()


@pytest.mark.parametrize(("cache", "workers"), [("ram", 0), ("none", 0), ("none", 1)])
def test_batches_carry_the_labels_of_their_images(cache, workers, tmp_path, command):
    images = coloured_set(tmp_path, command, cache=cache)
    reader = PointReader(images, (8, 8), Mollifier(0.5, (8, 8)))
    points = PointExamples(reader, 5, kind="uniform", flip=True, encoder=True, seed=0, purpose="points")
    draws = [(0, 4), (1, 3), (0, 5), (1, 2)]
    made = list(mixed_batches([images, points], draws, seed=3, position=0, workers=workers, device="cpu"))
    assert [tuple(batch.shape) for batch in made] == [(count, 3, 8, 8) for _, count in draws]
    assert all(torch.equal(batch.labels.argmax(dim=1), brightness(batch)) for batch in made)
    few = taken(points, torch.tensor([5, 2]))
    assert few.labels.argmax(dim=1).tolist() == [1, 2]
    smaller = images.at((4, 4))
    assert torch.equal(smaller.labels, images.labels)
    assert torch.equal(Upsampled(smaller, (16, 16)).labels, images.labels)
