"""A trained model as a library: `infdiff.load(folder)`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from infdiff.cli import choose_device
from infdiff.coordinates import Size, parse_size
from infdiff.data.latents import FILE
from infdiff.errors import UserError
from infdiff.images.convert import from_images, to_images, to_mask
from infdiff.methods.checks import (
    check_enlarging,
    check_guidance,
    default_batch,
    sampling_options,
    tile_rows,
)
from infdiff.methods.sizes import training_size
from infdiff.runs.latents import LatentModel, latent_folder
from infdiff.runs.trained import Run

_KEPT = ("ema_denoiser.safetensors", "ema_encoder.safetensors")


class Model:
    """Samples, encodes, decodes, enlarges and fills images.

    Images go in as PIL images, numpy arrays or tensors (see `to_images`) and come out as `output` says: "pil" (a list),
    "numpy" (N, H, W, 3) or "tensor" (N, 3, H, W), both uint8. Sizes are 256, "512x768" or (512, 768), height first.
    Image i of a call depends on the seed and i alone. Bad input raises UserError or ValueError in one line.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto", checkpoint: str = "last") -> Model:
        """From a run directory or an exported folder. device: "auto", "cpu" or "cuda"."""
        return cls(Run.load(Path(folder), choose_device(device), checkpoint))

    @property
    def size(self) -> Size:
        """The training size (H, W)."""
        return training_size(self.run.config)

    def sample(
        self, n: int = 1, size: int | str | Size | None = None, *, seed: int = 0, output: str = "pil", **options: Any
    ) -> Any:
        """n new images. options: deblur, upscale, tile as `tile_rows`, and those of `Method.options`."""
        whole = self._size(size)
        settings = self._options(options, whole)
        batch = default_batch(self.run.config, whole)
        images = [
            self.run.sample(indices.tolist(), whole, seed=seed, **settings) for indices in torch.arange(n).split(batch)
        ]
        return from_images(torch.cat(images), output)

    def encode(self, images: Any) -> Tensor:
        """Latents (N, z_dim) of images of any size."""
        self.run.require_encoder()
        return self.run.encode(to_images(images).to(self.run.device)).cpu()

    def decode(
        self, z: Tensor, size: int | str | Size | None = None, *, seed: int = 0, output: str = "pil", **options: Any
    ) -> Any:
        """Images of latents (N, z_dim), at any size. options: as `sample`, but for truncation and upscale."""
        self.run.require_encoder()
        whole = self._size(size)
        settings = self._options(options, whole)
        del settings["truncation"], settings["upscale"]
        return from_images(self.run.decode(z, whole, seed=seed, **settings), output)

    def reconstruct(self, images: Any, *, seed: int = 0, output: str = "pil", **options: Any) -> Any:
        """Images through their latents and back, at their own size. options: as `decode`."""
        whole = to_images(images)
        return self.decode(self.encode(whole), (whole.shape[2], whole.shape[3]), seed=seed, output=output, **options)

    def super_resolve(
        self,
        images: Any,
        size: int | str | Size,
        *,
        method: str = "guided",
        steps: int | None = None,
        weight: float = 1.0,
        seed: int = 0,
        output: str = "pil",
    ) -> Any:
        """Images at a larger size; one number is the longer side. method: "guided" or "encode"."""
        self.run.require_encoder()
        small = to_images(images)
        steps = self.run.config.sample.steps if steps is None else steps
        text = f"{size[0]}x{size[1]}" if isinstance(size, tuple) else str(size)
        whole = check_enlarging(self.run.config, (small.shape[2], small.shape[3]), text, steps, weight)
        options = {"method": method, "steps": steps, "weight": weight, "tile": tile_rows(self.run.config, whole)}
        out = self.run.super_resolve(small, whole, seed=seed, **options)
        return from_images(out, output)

    def inpaint(
        self,
        image: Any,
        mask: Any,
        n: int = 1,
        *,
        variety: float = 0.0,
        steps: int | None = None,
        weight: float = 1.0,
        paste: bool = True,
        seed: int = 0,
        output: str = "pil",
    ) -> Any:
        """n variants of one image; filled where the mask is white, true or 1."""
        whole = to_images(image)
        if len(whole) != 1:
            raise ValueError(f"{len(whole)} images: inpaint takes one")
        hidden = to_mask(mask, (whole.shape[2], whole.shape[3]))
        steps = self.run.config.sample.steps if steps is None else steps
        check_guidance(self.run.config, steps, weight, variety)
        options = {"steps": steps, "weight": weight, "sampler": self.run.config.sample.sampler}
        variants = [
            self.run.inpaint(whole, hidden, [i], seed=seed, variety=variety, pasted=paste, **options) for i in range(n)
        ]
        return from_images(torch.cat(variants), output)

    def export(self, folder: str | Path) -> Path:
        """Write what `load` needs, and no more: config.yaml and safetensors, laid out as a run directory.

        Raises UserError when the folder is not empty or cannot be written.
        """
        source, target, step = self.run.folder, Path(folder), f"{self.run.step:08d}"
        if target.exists() and any(target.iterdir()):
            raise UserError(f"{target} is not empty: choose another folder")
        drawn = self.run.latents  # fits the Gaussian, where there is no latent model
        try:
            _copy(source, target, "config.yaml")
            names = [name for name in _KEPT if (source / "checkpoints" / step / name).exists()]
            for name in names:
                _copy(source, target, f"checkpoints/{step}/{name}")
            (target / "checkpoints" / step / "state.json").write_text(json.dumps({"step": self.run.step}) + "\n")
            if isinstance(drawn, LatentModel):
                self._export_latent(drawn, source, target)
            elif drawn is not None:
                _copy(source, target, f"latents-{step}.safetensors")
        except OSError as error:
            raise UserError(f"cannot write {target}: {error.strerror or error}") from error
        return target

    def _export_latent(self, model: LatentModel, source: Path, target: Path) -> None:
        folder = latent_folder(Path(), self.run.step)
        _copy(source, target, str(folder / "config.yaml"))
        weights = folder / "checkpoints" / f"{model.step:08d}"
        _copy(source, target, str(weights / "ema_latent.safetensors"))
        (target / weights / "state.json").write_text(json.dumps({"step": model.step, "validation_loss": 0.0}) + "\n")
        # The latents' statistics, not the latents of the training images.
        known = model.latents
        kept = {"train": known.train[:0], "validation": known.validation[:0], "mean": known.mean, "std": known.std}
        metadata = {"encoder": model.encoder}
        safetensors.torch.save_file(kept, target / folder / FILE, metadata)

    def _size(self, size: int | str | Size | None) -> Size:
        return self.size if size is None else parse_size(size)

    def _options(self, given: dict[str, Any], size: Size) -> dict[str, Any]:
        """The run's sampling settings, with those given in their place."""
        deblur, tile = given.pop("deblur", False), given.pop("tile", None)
        settings = sampling_options(self.run.config, size=size, deblur=deblur, **given)
        if unknown := given.keys() - settings.keys():
            raise ValueError(f"unknown option {sorted(unknown)[0]!r}: want {', '.join([*settings, 'deblur', 'tile'])}")
        rows = tile_rows(self.run.config, size, None if tile is None else str(tile))
        return settings | {"deblur": deblur, "tile": rows}


def _copy(source: Path, target: Path, name: str) -> None:
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / name, target / name)
