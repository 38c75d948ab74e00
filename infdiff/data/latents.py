"""The latents of a data set: every image is encoded once and stored in the run, to train the latent model on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from infdiff import processes
from infdiff.data.examples import Examples
from infdiff.errors import UserError
from infdiff.files import make_folder, writing
from infdiff.labelled import Labelled
from infdiff.tensors import DamagedFileError, read_tensors, save_tensors

FILE = "latents.safetensors"
_EARLIER_FILE = "codes.safetensors"  # the name under versions before 0.2
_PART = 1024
_AT_ONCE = 64
_SMALLEST_STD = 1e-6
# Added to variances along principal axes, whose mean is 1: latents hardly vary along most, and these stay quiet.
_SMALLEST_VARIANCE = 0.01

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Latents:
    """Latents (N, z_dim) float32 of training and validation images; mean and std (z_dim,) of the training ones.

    axes (z_dim, z_dim): orthogonal columns, on which standardised latents are read off.
    """

    train: Tensor
    validation: Tensor
    mean: Tensor
    std: Tensor
    axes: Tensor

    @classmethod
    def of(cls, train: Tensor, validation: Tensor, *, whiten: bool = False) -> Latents:
        """Return both with the statistics of `train`. whiten: along their principal axes, not along each dimension."""
        mean, std = train.mean(dim=0), train.std(dim=0, correction=0).clamp(min=_SMALLEST_STD)
        axes = _whitening((train - mean) / std) if whiten else torch.eye(len(mean))
        return cls(train, validation, mean, std, axes)

    def statistics(self) -> Latents:
        """Return the statistics alone, without a latent of any image."""
        return replace(self, train=self.train[:0], validation=self.validation[:0])

    def save(self, folder: Path, *, encoder: str) -> None:
        """Write them where `load_latents` finds them. encoder: the fingerprint of the encoder that made them."""
        save_tensors(folder / FILE, vars(self), {"encoder": encoder})

    def normalize(self, z: Tensor) -> Tensor:
        """Scale to zero mean and unit variance in each dimension, or along each principal axis."""
        return (z - self.mean.to(z)) / self.std.to(z) @ self.axes.to(z)

    def restore(self, z: Tensor) -> Tensor:
        """Invert `normalize`."""
        axes = self.axes.to(z)
        return z @ (axes / axes.square().sum(dim=0)).T * self.std.to(z) + self.mean.to(z)


def _whitening(standardised: Tensor) -> Tensor:
    """Principal axes (z_dim, z_dim) of latents (N, z_dim), divided by the spread along them."""
    values = standardised.double()
    variances, directions = torch.linalg.eigh(values.T @ values / len(values))
    return (directions * (variances.clamp(min=0) + _SMALLEST_VARIANCE).rsqrt()).float()


@torch.no_grad()
def encode_images(encode: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
    """Return latents (N, z_dim) float32 on the CPU, of batches of images (B, 3, H, W) uint8."""
    return torch.cat([encode(batch).float().cpu() for batch in batches])


def load_latents(folder: Path, encoder: str) -> Latents | None:
    """Read the latents in a folder; None if there are none, or the fingerprint is of another encoder."""
    path = next((folder / name for name in (FILE, _EARLIER_FILE) if (folder / name).exists()), None)
    if path is None:
        return None
    tensors, about = _read(path, ("train", "validation", "mean", "std"))
    tensors.setdefault("axes", torch.eye(len(tensors["mean"])))  # files of earlier versions have none
    return Latents(**tensors) if about.get("encoder") == encoder else None


def _read(path: Path, names: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_tensors(path, names)
    except (OSError, DamagedFileError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and the images are encoded again") from error


def encode_data(
    encode: Encode,
    sets: Mapping[str, Examples],
    folder: Path,
    *,
    encoder: str,
    flip: bool,
    device: torch.device,
    whiten: bool = False,
    on_images: Callable[[int], object] = lambda count: None,
) -> Latents:
    """Encode the image sets "train" and "validation", training images also flipped if `flip` is on.

    Parts are written one by one, so that an interrupted encoding continues where it stopped. whiten: as `Latents.of`
    takes it. on_images(n) is called as n images are done, including those of an earlier call. Processes share the
    parts. Raises UserError when the folder cannot be written.
    """
    if (known := load_latents(folder, encoder)) is not None:
        return known
    make_folder(folder)
    parts = [(_part_file(folder, encoder, *part), *part) for part in _parts(sets, flip)]
    for path, name, flipped, places in processes.joined().share(parts):
        if not path.exists():
            images = sets[name].take(places)
            batches = (batch.to(device) for batch in images.split(_AT_ONCE))
            if flipped:
                batches = (batch.flip(-1) for batch in batches)
            save_tensors(path, {"latents": encode_images(encode, batches)})
        on_images(len(places))
    processes.wait()
    pieces: dict[str, list[Tensor]] = {"train": [], "validation": []}
    for path, name, *_ in parts:
        pieces[name].append(_read(path, ("latents",))[0]["latents"])
    whole = Latents.of(torch.cat(pieces["train"]), torch.cat(pieces["validation"]), whiten=whiten)
    processes.wait()
    if processes.joined().first:
        whole.save(folder, encoder=encoder)
        for path, *_ in parts:
            with writing(path):
                path.unlink()
    return whole


def _part_file(folder: Path, encoder: str, name: str, flipped: bool, places: Tensor) -> Path:
    kind = "flipped" if flipped else "plain"
    return folder / f"latents-{encoder}-{name}-{kind}-{int(places[0]):08d}.safetensors"


def image_count(sets: Mapping[str, Examples], flip: bool) -> int:
    """Return the number of images that `encode_data` encodes."""
    return sum(len(places) for _, _, places in _parts(sets, flip))


class LatentSet:
    """Normalised latents on a device, as training examples for `data.batches.batches`. labels: (N, label_dim)."""

    def __init__(self, latents: Tensor, device: torch.device, labels: Tensor | None = None) -> None:
        self.images = latents.to(device)
        self.labels = None if labels is None else labels.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Tensor:
        return self.images[place]

    def take(self, places: Tensor) -> Tensor:
        return self.images[places.to(self.images.device)]


def latent_batches(
    latents: Tensor, batch_size: int, limit: int, device: torch.device, labels: Tensor | None = None
) -> list[Tensor | Labelled]:
    """Return the first batches of the latents, with labels (N, label_dim), at most `limit` of them, for validation."""
    batches = latents.to(device).split(batch_size)[:limit]
    if labels is None:
        return list(batches)
    return [Labelled(*pair) for pair in zip(batches, labels.to(device).split(batch_size)[:limit], strict=True)]


def _parts(sets: Mapping[str, Examples], flip: bool) -> Iterator[tuple[str, bool, Tensor]]:
    for name in ("train", "validation"):
        for flipped in (False, True) if flip and name == "train" else (False,):
            for places in torch.arange(len(sets[name])).split(_PART):
                yield name, flipped, places
