"""Folders of images to be compared: one size, readable, at least two."""

import numpy as np
import pytest
import torch
from PIL import Image

from infdiff.data.image_folder import ImageFolder
from infdiff.data.sources import open_source
from infdiff.errors import UserError
from tests.conftest import pixels


def save(path, size=(12, 16), seed=0, mode="RGB"):
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).convert(mode).save(path)


def test_images_in_order_at_their_own_and_at_another_size(tmp_path):
    for i in range(5):
        save(tmp_path / "a" / f"{i}.png", seed=i, mode="L" if i == 3 else "RGB")
    images = ImageFolder.open(open_source(tmp_path / "a"))
    assert (len(images), images.size, images.formats) == (5, (12, 16), ("PNG",))
    batches = list(images.batches((12, 16), 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    whole = torch.cat(batches)
    for i in range(5):
        assert (whole[i].permute(1, 2, 0).numpy() == pixels(tmp_path / "a" / f"{i}.png")).all()
    assert next(images.batches((6, 6), 5)).shape == (5, 3, 6, 6)


def test_the_fingerprint_is_of_the_content(tmp_path):
    for name in "ab":
        for i in range(2):
            save(tmp_path / name / f"{i}.png", seed=i)
    save(tmp_path / "c" / "0.png", seed=1)
    save(tmp_path / "c" / "1.png", seed=0)
    a, b, c = (ImageFolder.open(open_source(tmp_path / name)).fingerprint for name in "abc")
    assert a == b != c


def test_formats_are_told(tmp_path):
    save(tmp_path / "a" / "0.png")
    save(tmp_path / "a" / "1.jpg")
    assert ImageFolder.open(open_source(tmp_path / "a")).formats == ("JPEG", "PNG")


def test_what_cannot_be_compared(tmp_path):
    folder = tmp_path / "a"
    save(folder / "0.png")
    with pytest.raises(UserError, match="holds one image"):
        ImageFolder.open(open_source(folder))
    save(folder / "1.png", size=(12, 20))
    with pytest.raises(UserError, match=r"mixed sizes \(0.png has 12x16, 1.png 12x20\)"):
        ImageFolder.open(open_source(folder))
    (folder / "1.png").write_text("no image")
    with pytest.raises(UserError, match=r"1.png cannot be read"):
        ImageFolder.open(open_source(folder))
    save(folder / "1.png")
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    images = ImageFolder.open(open_source(folder))
    with pytest.raises(UserError, match=r"1.png cannot be read"):
        list(images.batches((12, 16), 2))
