"""Latents of a data set: complete, in order, flipped where asked, continued after an interruption."""

import pytest
import torch

from infdiff.data import latents as module
from infdiff.data.latents import Latents, encode_data, image_count, load_latents
from infdiff.errors import UserError
from infdiff.tensors import read_tensors, save_tensors


class Images:
    def __init__(self, count):
        self.values = torch.randint(
            0, 256, (count, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(count)
        )

    def __len__(self):
        return len(self.values)

    def take(self, places):
        return self.values[places]


SETS = {"train": Images(10), "validation": Images(3)}
CPU = torch.device("cpu")


def encode(images):
    """Means of the left and the right half."""
    return torch.stack([images[..., :3].float().mean((1, 2, 3)), images[..., 3:].float().mean((1, 2, 3))], dim=1)


def run(folder, function=encode, *, flip=True, encoder="a", on_images=lambda count: None):
    return encode_data(function, SETS, folder, encoder=encoder, flip=flip, device=CPU, on_images=on_images)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(module, "_PART", 4)
    monkeypatch.setattr(module, "_AT_ONCE", 3)


def test_every_image_is_encoded_in_order_and_flipped(tmp_path):
    latents = run(tmp_path)
    plain = encode(SETS["train"].values)
    assert torch.equal(latents.train, torch.cat([plain, plain.flip(1)]))
    assert torch.equal(latents.validation, encode(SETS["validation"].values))
    assert torch.equal(run(tmp_path / "plain", flip=False).train, plain)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [module.FILE]


def test_normalisation_and_back(tmp_path):
    latents = run(tmp_path)
    normal = latents.normalize(latents.train)
    torch.testing.assert_close(normal.mean(dim=0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std(dim=0, correction=0), torch.ones(2))
    torch.testing.assert_close(latents.restore(normal), latents.train)


@pytest.mark.parametrize("whiten", [False, True])
def test_a_dimension_without_spread_stays_finite(whiten):
    latents = Latents.of(torch.ones(5, 2), torch.ones(2, 2), whiten=whiten)
    assert latents.normalize(latents.train).isfinite().all()


def test_latents_that_go_together_are_told_apart(generator):
    """Whitened, those of three numbers that all follow one, but for a tenth, have variance 1 along every axis."""
    z = 5 + 3 * (torch.randn(4000, 1, generator=generator) + 0.3 * torch.randn(4000, 3, generator=generator))
    plain, white = (Latents.of(z, z[:5], whiten=whiten) for whiten in (False, True))
    together = torch.corrcoef(plain.normalize(z).T)
    assert together.min() > 0.9
    normal = white.normalize(z)
    torch.testing.assert_close(normal.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    variances = torch.linalg.eigvalsh(together)
    torch.testing.assert_close(torch.cov(normal.T), torch.diag(variances / (variances + 0.01)), atol=1e-3, rtol=0)
    torch.testing.assert_close(white.restore(normal), z)
    assert torch.equal(white.statistics().normalize(z), normal)


def test_a_file_without_axes_is_of_an_earlier_version(tmp_path):
    latents = run(tmp_path)
    path = tmp_path / module.FILE
    tensors, about = read_tensors(path)
    del tensors["axes"]
    save_tensors(path, tensors, about)
    assert torch.equal(load_latents(tmp_path, "a").normalize(latents.train), latents.normalize(latents.train))


def test_an_interrupted_encoding_goes_on(tmp_path):
    done = []

    def stops(images):
        done.append(len(images))
        if sum(done) > 9:
            raise KeyboardInterrupt
        return encode(images)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stops)
    again, told = [], []

    def counts(images):
        again.append(len(images))
        return encode(images)

    latents = run(tmp_path, counts, on_images=told.append)
    assert sum(again) == image_count(SETS, flip=True) - 8  # two parts of four were kept
    assert sum(told) == image_count(SETS, flip=True) == 23
    assert torch.equal(latents.train, run(tmp_path / "whole").train)


def test_images_are_encoded_again_for_another_encoder(tmp_path):
    first = run(tmp_path)
    calls = []

    def other(images):
        calls.append(1)
        return 2 * encode(images)

    assert torch.equal(run(tmp_path, other).train, first.train)
    assert not calls
    assert torch.equal(run(tmp_path, other, encoder="b").train, 2 * first.train)
    assert load_latents(tmp_path, "a") is None


def test_a_damaged_file_is_named(tmp_path):
    run(tmp_path)
    (tmp_path / module.FILE).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"latents\.safetensors is damaged"):
        run(tmp_path)
