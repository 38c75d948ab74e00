"""A trained model as a library: `infdiff.load(folder)`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from infdiff.cli import choose_device
from infdiff.coordinates import Size, parse_size
from infdiff.errors import UserError
from infdiff.files import is_empty, save_text, writing
from infdiff.images.convert import from_images, to_images, to_mask
from infdiff.methods.sampling import (
    Given,
    SamplingOptions,
    check_enlarging,
    check_guidance,
    check_tile,
    default_batch,
    guidance_weight,
)
from infdiff.methods.sizes import training_size
from infdiff.runs.conditions import GivenConditions
from infdiff.runs.editing import (
    ENLARGING_GUIDANCE,
    FILLING_GUIDANCE,
    enlarge,
    enlarging_method,
    enlarging_options,
    fill,
    filling_method,
    filling_options,
)
from infdiff.runs.fields import from_normalised, in_form, to_normalised
from infdiff.runs.folder import RunFolder
from infdiff.runs.hub import PREFIX, fetch
from infdiff.runs.model_card import model_card
from infdiff.runs.restoration import guidance_for, measurement_of, restore
from infdiff.runs.trained import TrainedModel
from infdiff.training.checkpoint import state_text

_KEPT = ("ema_denoiser.safetensors", "ema_encoder.safetensors")


class Model:
    """Samples, encodes, decodes, enlarges and fills images.

    Images go in as PIL images, numpy arrays or tensors (see `to_images`) and come out as `output` says: "pil" (a list),
    "numpy" (N, H, W, 3), "array" or "tensor" (N, 3, H, W), all uint8. A run of fields takes and returns real values in
    units, float32, NaN where they are missing: arrays (C, H, W) or (N, C, H, W); "pil" is pictures in colour. Sizes are
    256, "512x768" or (512, 768), height first. Image i of a call depends on the seed and i alone. Bad input raises
    UserError or ValueError in one line.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto", checkpoint: str = "last") -> Model:
        """Load a run directory, an exported folder, or "hf://OWNER/NAME". device: "auto", "cpu" or "cuda"."""
        if isinstance(folder, str) and folder.startswith(PREFIX):
            folder = fetch(folder)
        return cls(TrainedModel.load(folder, choose_device(device), checkpoint))

    @property
    def size(self) -> Size:
        """The training size (H, W)."""
        return training_size(self.trained.config)

    def sample(
        self,
        n: int = 1,
        size: int | str | Size | None = None,
        *,
        aspect: str = "stretch",
        label: str | None = None,
        vector: Sequence[float] | None = None,
        condition: Any = None,
        guidance: float | None = None,
        seed: int = 0,
        output: str = "pil",
        **given: Unpack[Given],
    ) -> Any:
        """Return n new images. Sampling options take the place of the run's own: see `SamplingOptions`.

        aspect: of sizes in other proportions than those of the training: "stretch" or "keep". label: a class, or "all"
        for one after the other; vector: numbers; condition: an array (K, H, W) of the condition channels in units, or
        one for each image, of any size, NaN where nothing is known. Without: unconditional. guidance: classifier-free;
        0 is unconditional, 1 (the default) conditional, more follows the condition more closely.
        """
        wanted = self._size(size)
        drawn = self.trained.drawn_size(wanted, aspect)
        options = SamplingOptions.of(self.trained.method, drawn, self.trained.device, **given)
        batch = default_batch(self.trained.method, drawn, options)
        conditions = self.trained.conditions(
            wanted, options, aspect, label=label, vector=vector, condition=condition, guidance=guidance
        )
        images = [
            self.trained.sample(
                indices.tolist(), wanted, seed=seed, options=options, aspect=aspect, conditions=conditions
            )
            for indices in torch.arange(n).split(batch)
        ]
        return self._returned(torch.cat(images), output)

    def encode(self, images: Any) -> Tensor:
        """Return latents (N, z_dim) of images of any size."""
        return self.trained.encode(self._given(images)).cpu()

    def decode(
        self,
        z: Tensor,
        size: int | str | Size | None = None,
        *,
        seed: int = 0,
        output: str = "pil",
        **given: Unpack[Given],
    ) -> Any:
        """Return images of latents (N, z_dim), at any size. Options as `sample`; truncation has no effect."""
        self.trained.require_encoder()
        wanted = self._size(size)
        options = SamplingOptions.of(self.trained.method, wanted, self.trained.device, **given)
        return self._returned(self.trained.decode(z, wanted, seed=seed, options=options), output)

    def reconstruct(self, images: Any, *, seed: int = 0, output: str = "pil", **given: Unpack[Given]) -> Any:
        """Return images encoded and decoded again at their own size. Options as `decode`."""
        pixels = self._given(images)
        z = self.trained.encode(pixels).cpu()
        return self.decode(z, (pixels.shape[2], pixels.shape[3]), seed=seed, output=output, **given)

    def super_resolve(
        self,
        images: Any,
        size: int | str | Size,
        *,
        method: str | None = None,
        guidance: str | None = None,
        steps: int | None = None,
        weight: float | None = None,
        deblur: str | None = None,
        tile: str | int | None = None,
        seed: int = 0,
        output: str = "pil",
        **given: Unpack[GivenConditions],
    ) -> Any:
        """Return images at a larger size; one number is the longer side. method: "windows", "guided" or "encode".

        guidance: of "guided", "gradient" or "projection"; weight: of it, 1 by default. tile: of "encode", projection.
        label, vector, condition: as `sample`; condition_weight: there `guidance`, of the classifier-free kind.
        """
        self.trained.require_encoder()
        small = self._given(images)
        text = f"{size[0]}x{size[1]}" if isinstance(size, tuple) else str(size)
        wanted = check_enlarging((small.shape[2], small.shape[3]), text)
        options = enlarging_options(self.trained, wanted, steps=steps, deblur=deblur, tile=tile)
        method = method or enlarging_method(self.trained, wanted)
        weight = guidance_weight(method, weight, guidance)
        check_tile(method, guidance or ENLARGING_GUIDANCE, tile)
        conditions = self.trained.conditions_at(**given)
        out = enlarge(
            self.trained,
            small,
            wanted,
            seed=seed,
            method=method,
            options=options,
            guidance=guidance,
            weight=weight,
            conditions=conditions,
        )
        return self._returned(out, output)

    def inpaint(
        self,
        image: Any,
        mask: Any,
        n: int = 1,
        *,
        method: str | None = None,
        guidance: str | None = None,
        variety: float = 0.0,
        steps: int | None = None,
        weight: float = 1.0,
        deblur: str | None = None,
        tile: str | int | None = None,
        paste: bool = True,
        seed: int = 0,
        output: str = "pil",
        **given: Unpack[GivenConditions],
    ) -> Any:
        """Return n variants of one image, with new content where the mask is white. method: "windows" or "guided".

        mask: None for the missing pixels of a field, which are filled in any case. guidance: "gradient" or
        "projection"; tile: with method "guided" and guidance by projection. label, vector, condition, condition_weight:
        as `super_resolve`, of each variant.
        """
        pixels = self._given(image)
        if len(pixels) != 1:
            raise ValueError(f"{len(pixels)} images: inpaint takes one")
        size = (pixels.shape[2], pixels.shape[3])
        # The missing pixels of a field are filled, whatever else is.
        missing = pixels.isnan().any(dim=1)[0]
        hidden = missing if mask is None else to_mask(mask, size)
        if not hidden.any():
            raise ValueError("no mask is given, and no pixel is missing: there is nothing to fill")
        check_guidance(weight, variety)
        method = method or filling_method(self.trained, size)
        check_tile(method, guidance or FILLING_GUIDANCE, tile)
        options = filling_options(self.trained, size, steps=steps, deblur=deblur, tile=tile)
        conditions = self.trained.conditions_at(**given)
        variants = [
            fill(
                self.trained,
                pixels,
                hidden,
                [i],
                options=options,
                method=method,
                guidance=guidance,
                weight=weight,
                seed=seed,
                variety=variety,
                conditions=conditions,
                pasted=paste,
            )
            for i in range(n)
        ]
        filled = torch.cat(variants)
        if self.trained.field is None or output == "pil" or not paste:
            return self._returned(filled, output)
        # What is known comes back as it was given, to the bit.
        raw = torch.as_tensor(np.asarray(image), dtype=torch.float32).reshape(1, *filled.shape[1:])
        kept = ~(hidden | missing)
        values = torch.where(kept, raw, self.trained.field.in_units(filled))
        return in_form(values, output)

    def restore(
        self,
        measured: Any,
        operator: Any,
        size: int | str | Size | None = None,
        *,
        n: int = 1,
        noise: float = 0.0,
        guidance: str | None = None,
        pseudo_inverse: Callable[[Tensor], Tensor] | None = None,
        weight: float = 1.0,
        iterations: int = 1,
        z: Tensor | None = None,
        steps: int | None = None,
        deblur: str | None = None,
        tile: str | int | None = None,
        seed: int = 0,
        output: str = "pil",
        **given: Unpack[GivenConditions],
    ) -> Any:
        """Return images whose measurement by an operator is close to the one given: n variants of each.

        measured: floating-point (B, ...), what `operator` makes of B images (B, C, H, W) in [-1, 1] of `size`, plus
        white noise of standard deviation `noise`; fields are in units. operator: a function, or deepinv's
        physics. guidance: "projection" for linear operators, with pseudo_inverse or the operator's A_dagger, the
        default where there is one; "gradient" for all that can be differentiated. iterations: evaluations of the
        network, or gradients, to find a step's direction. z: latents (B, z_dim) of the images, where they are known.
        label, vector, condition, condition_weight: as `super_resolve`; label "all": one after the other of the images
        returned, condition: one for all measurements, or one for each.
        """
        wanted = self._size(size)
        options = filling_options(self.trained, wanted, steps=steps, deblur=deblur, tile=tile)
        device = self.trained.device
        channels = self.trained.config.data.channels
        measurement = measurement_of(
            measured,
            operator,
            wanted,
            pseudo_inverse=pseudo_inverse,
            noise=noise,
            device=device,
            channels=channels,
            field=self.trained.field,
        )
        guide = guidance_for(measurement, wanted, guidance, weight, iterations, channels, self.trained.field)
        check_tile("guided", guide.kind, tile)
        conditions = self.trained.conditions_at(**given)(wanted)
        images = [
            restore(
                self.trained,
                replace(measurement, values=measurement.values[i : i + 1]),
                wanted,
                [i * n + variant],
                guidance=guide,
                options=options,
                z=None if z is None else z[i : i + 1],
                condition=replace(conditions.of([i * n + variant], device), known=conditions.of([i], device).known),
                seed=seed,
            )
            for i in range(len(measurement.values))
            for variant in range(n)
        ]
        return self._returned(torch.cat(images), output)

    def export(self, folder: str | Path, *, license: str | None = None) -> Path:
        """Write only what `load` needs: config.yaml and safetensors, laid out as a run directory; and a model card.

        Raises UserError when the folder is not empty or cannot be written.
        """
        source, target, step = self.trained.folder.path, Path(folder), f"{self.trained.step:08d}"
        if target.exists() and not is_empty(target):
            raise UserError(f"{target} is not empty: choose another folder")
        latents = self.trained.latents  # fits the Gaussian if there is no latent model
        with writing(target):
            _copy(source, target, "config.yaml")
            if self.trained.field is not None:
                _copy(source, target, self.trained.folder.field_file.name)
            if self.trained.labels is not None:
                _copy(source, target, self.trained.folder.labels_file.name)
            for name in _KEPT:
                if (source / "checkpoints" / step / name).exists():
                    _copy(source, target, f"checkpoints/{step}/{name}")
            save_text(target / "checkpoints" / step / "state.json", state_text({"step": self.trained.step}))
            if latents is not None:
                latents.save(RunFolder(target), self.trained.step)
            save_text(target / "README.md", model_card(self.trained, license))
        return target

    def _given(self, images: Any) -> Tensor:
        """Images (N, C, H, W) as the run's data set holds them."""
        field = self.trained.field
        return to_images(images) if field is None else to_normalised(field, images)

    def _returned(self, images: Tensor, output: str) -> Any:
        field = self.trained.field
        return from_images(images, output) if field is None else from_normalised(field, images, output)

    def _size(self, size: int | str | Size | None) -> Size:
        return self.size if size is None else parse_size(size)


def _copy(source: Path, target: Path, name: str) -> None:
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / name, target / name)
