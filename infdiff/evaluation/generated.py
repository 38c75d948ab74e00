"""The images of a run that an evaluation looks at: made once, kept in a folder, shared out among processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.image_folder import ImageFolder
from infdiff.data.sources import FolderSource
from infdiff.data.store import to_tensor
from infdiff.evaluation.generation_cost import MadeCost, keeping_cost
from infdiff.evaluation.real_images import Part
from infdiff.images.resumable_folder import fill_folder, filled, image_names, open_folder
from infdiff.images.transforms import resize
from infdiff.methods.checks import check_enlarging, default_batch, tile_rows
from infdiff.runs.trained import TrainedModel

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Share:
    """Which of how many processes this is, as torchrun says."""

    rank: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> Share:
        """Of this process; it also takes the GPU of its own number."""
        rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if count > 1 and torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        return cls(rank, count)


@dataclass(frozen=True)
class Made:
    """Images of a run in a folder: the numbers of whole ones, and of those with pixels that are not finite."""

    folder: Path
    size: Size
    whole: list[int]
    broken: list[int]
    cost: MadeCost | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What a row of results says beside its metrics."""
        return {"broken": self.broken} | (self.cost.record() if self.cost is not None else {})

    @property
    def pictures(self) -> ImageFolder:
        """The whole ones."""
        return ImageFolder(FolderSource(str(self.folder), image_names(self.whole)), self.size, ("PNG",))

    def take(self, numbers: Sequence[int]) -> Tensor:
        """(B, 3, H, W) uint8 of whole images by their numbers."""
        source = FolderSource(str(self.folder), image_names(numbers))
        return torch.cat(list(ImageFolder(source, self.size, ("PNG",)).batches(self.size, len(numbers))))


@dataclass(frozen=True)
class Maker:
    """Makes images with a run and options for its sampler; image i depends on the seed and i alone.

    `share` of them is made by this process. Process 0 then waits for the others' and gives all, the others give None.
    """

    run: TrainedModel
    parent: Path
    seed: int
    options: dict[str, Any]  # as `sampling_options`
    deblur: bool = False
    batch: int | None = None
    share: Share = Share()
    on_images: Callable[[int], object] = lambda count: None

    def generated(self, size: Size, count: int) -> Made | None:
        """New images."""
        options = self.options | {"deblur": self.deblur, "rounded": False, "tile": tile_rows(self.run.config, size)}
        make = lambda numbers: self.run.sample(numbers, size, seed=self.seed, **options)  # noqa: E731
        settings = self.options | {"deblur": self.deblur, "latents": self.run.describe_latents()}
        return self._made("generate", size, count, settings, make)

    def reconstructed(self, truth: Part, size: Size) -> Made | None:
        """Real images at a size through their latents and back."""
        options = {name: value for name, value in self.options.items() if name not in ("truncation", "upscale")}
        options |= {"deblur": self.deblur}
        tile = tile_rows(self.run.config, size)

        def make(numbers: Sequence[int]) -> Tensor:
            images = truth.take(numbers, size)
            return self.run.reconstruct(images, seed=self.seed, indices=numbers, rounded=False, tile=tile, **options)

        return self._made("reconstruct", size, len(truth), options | {"truth": truth.fingerprint}, make)

    def enlarged(self, truth: Part, small: Size, size: Size, method: str = "guided") -> Made | None:
        """Real images reduced to `small` and enlarged to `size` by the run."""
        steps = self.options["steps"]
        check_enlarging(self.run.config, small, f"{size[0]}x{size[1]}", steps, 1.0)
        options = {"method": method, "steps": steps}

        def make(numbers: Sequence[int]) -> Tensor:
            images = reduced(truth.take(numbers, size), small)
            return self.run.super_resolve(images, size, seed=self.seed, indices=numbers, rounded=False, **options)

        settings = options | {"from": format_size(small), "truth": truth.fingerprint}
        batch = default_batch(self.run.config, size, guided=method == "guided")
        return self._made("superres", size, len(truth), settings, make, batch)

    def _made(
        self,
        task: str,
        size: Size,
        count: int,
        settings: dict[str, Any],
        make: Callable[[Sequence[int]], Tensor],
        batch: int | None = None,
    ) -> Made | None:
        settings = settings | {"task": task, "size": format_size(size), "seed": self.seed}
        settings |= {"step": self.run.step, "weights": self.run.folder.fingerprint(self.run.step)}
        folder = open_folder(self.parent, settings)
        mine = range(self.share.rank, count, self.share.count)
        batch = self.batch or batch or default_batch(self.run.config, size)
        weights = sum(self.run.parameter_counts.values()) * _FLOAT_BYTES
        measured = keeping_cost(make, folder, rank=self.share.rank, device=self.run.device, weights=weights)
        fill_folder(measured, folder, indices=mine, batch=batch, on_images=self.on_images)
        if self.share.rank != 0:
            return None
        return Made(folder, size, *filled(folder, count), MadeCost.read(folder))


def reduced(images: Tensor, size: Size) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, h, w) uint8 of a smaller size, with the data sets' own antialiased filter."""
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    return torch.stack([to_tensor(resize(Image.fromarray(array), size)) for array in arrays])
