"""Codes of a data set, and the Gaussian fitted to them that stands in until a latent model is trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor


@torch.no_grad()
def encode_images(encode: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
    """Codes (N, z_dim) float32 on the CPU, of batches of images (B, 3, H, W) uint8."""
    return torch.cat([encode(batch).float().cpu() for batch in batches])


@dataclass(frozen=True)
class LatentGaussian:
    """z = mean + factor^T xi: mean (z_dim,), factor (K, z_dim). Fitted to `count` codes."""

    mean: Tensor
    factor: Tensor
    count: int

    @classmethod
    def fit(cls, codes: Tensor) -> LatentGaussian:
        """The Gaussian with the mean and covariance of codes (N, z_dim), whatever N."""
        mean = codes.mean(dim=0)
        centred = (codes - mean) / max(1, len(codes) - 1) ** 0.5
        # centred^T centred is the covariance; R of centred = QR has the same and never more rows than columns.
        factor = torch.linalg.qr(centred, mode="r").R if len(codes) > codes.shape[1] else centred
        return cls(mean, factor, len(codes))

    def sample(self, generators: list[torch.Generator], truncation: float = 1.0) -> Tensor:
        """(B, z_dim): row i from generators[i] alone. truncation scales the spread about the mean."""
        noise = torch.cat([torch.randn(1, self.factor.shape[0], device=g.device, generator=g) for g in generators])
        return self.mean.to(noise) + truncation * noise @ self.factor.to(noise)

    def describe(self) -> str:
        return f"a Gaussian fitted to the codes of {self.count} training images (no latent model is trained)"

    def save(self, path: Path) -> None:
        # Processes that sample side by side may all fit it at once.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        safetensors.torch.save_file(
            {"mean": self.mean, "factor": self.factor.contiguous(), "count": torch.tensor(self.count)}, temporary
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> LatentGaussian:
        tensors = safetensors.torch.load_file(path)
        return cls(tensors["mean"], tensors["factor"], int(tensors["count"]))
