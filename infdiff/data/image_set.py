"""Images of a store at one size, and the split into training and validation images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from infdiff.coordinates import Size
from infdiff.data.store import ImageStore
from infdiff.errors import UserError
from infdiff.seeding import generator_for

CACHES = ("none", "ram", "device")


class ImageSet(Dataset[Tensor]):
    """Some images of a store, at one size, optionally all cached in memory.

    RGB images are uint8, fields float32, normalised, with NaN at missing pixels. Images of another size are cropped
    centrally to the aspect ratio and resized, antialiased. labelled: they come with their labels.
    """

    def __init__(
        self,
        store: ImageStore,
        indices: list[int],
        size: Size,
        *,
        cache: str = "none",
        device: torch.device | str = "cpu",
        labelled: bool = False,
    ) -> None:
        if cache not in CACHES:
            raise UserError(f"data.cache: {cache}: choose one of {', '.join(CACHES)}")
        self.store, self.indices, self.size, self.cache, self.device = store, indices, size, cache, device
        self.images: Tensor | None = None
        self.labels: Tensor | None = store.label_rows(indices) if labelled else None
        if cache != "none":
            field = store.field
            channels, dtype = (3, torch.uint8) if field is None else (field.channels, torch.float32)
            images = torch.empty(len(indices), channels, *size, dtype=dtype)
            for place in range(len(indices)):
                images[place] = self._read(place)
            self.images = images.to(device) if cache == "device" else images

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Tensor:
        return self._read(place) if self.images is None else self.images[place]

    def take(self, places: Tensor) -> Tensor:
        """Return images (B, C, H, W) at `places` (B,)."""
        if self.images is None:
            return torch.stack([self._read(int(p)) for p in places])
        return self.images[places.to(self.images.device)]

    def at(self, size: Size) -> ImageSet:
        """Return the same images at another size, made from the stored ones."""
        if size == self.size:
            return self
        labelled = self.labels is not None
        return ImageSet(self.store, self.indices, size, cache=self.cache, device=self.device, labelled=labelled)

    def around(self, place: int, ids: Tensor, reach: int) -> Tensor:
        """Return an image (H, W, 3) uint8 in which pixels `ids` (L,) are right, and those up to `reach` away."""
        if self.images is not None:
            return self.images[place].permute(1, 2, 0)
        if self.native(place):
            return self.store.around(self.indices[place], ids, reach)
        return self._read(place).permute(1, 2, 0)

    def smooth_copy(self, place: int) -> Tensor | None:
        """Return the smooth copy (h, w, 3) float16 that is stored with an image of just this size, or None."""
        return self.store.smooth_copy(self.indices[place]) if self.native(place) else None

    def native(self, place: int) -> bool:
        """Return True if the image is stored at just this size."""
        return self.store.size_of(self.indices[place]) == self.size

    def _read(self, place: int) -> Tensor:
        return self.store.read_at(self.indices[place], self.size)


def split(store: ImageStore, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of training and of validation images. Crops of one photograph stay together.

    Raises UserError when either part would be empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"data.validation_fraction: {fraction}: want a part of the data, above 0 and below 1")
    crops = store.header.crops
    groups = -(-len(store) // crops)
    if groups < 2:
        raise UserError(f"{store.path} holds {groups} image: training needs at least 2, one of them held out")
    order = torch.randperm(groups, generator=generator_for("cpu", seed, "split"))
    held_out = set(order[: max(1, round(groups * fraction))].tolist())
    train = [i for i in range(len(store)) if i // crops not in held_out]
    return train, [i for i in range(len(store)) if i // crops in held_out]
