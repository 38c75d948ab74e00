"""Distances between two sets of images, from their features (N, D): Fréchet distance and kernel distance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# A covariance that was computed in float32 is symmetric, and has no negative eigenvalue, to this part of its largest
# entry.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian of a set's features, in float64: mean (D,), and root (R, D), root^T root = covariance."""

    mean: Tensor
    root: Tensor

    @classmethod
    def fit(cls, features: Tensor) -> Gaussian:
        """Fit the mean and the unbiased covariance of features (N, D). Raises ValueError for fewer than two."""
        if len(features) < 2:
            raise ValueError(f"{len(features)} image: a covariance takes at least two")
        features = features.double()
        mean = features.mean(dim=0)
        root = (features - mean) / (len(features) - 1) ** 0.5
        if len(root) > root.shape[1]:
            # The R of root = QR has the same R^T R, and D rows.
            root = torch.linalg.qr(root, mode="r").R
        return cls(mean, root)

    @classmethod
    def of_moments(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """Return the Gaussian of a mean (D,) and a covariance (D, D). Raises ValueError where they are none."""
        if mean.ndim != 1 or covariance.shape != (len(mean),) * 2 or len(mean) == 0:
            raise ValueError(f"shapes {(*mean.shape,)} and {(*covariance.shape,)}: want (D,) and (D, D)")
        mean, covariance = mean.double(), covariance.double()
        if not (mean.isfinite().all() and covariance.isfinite().all()):
            raise ValueError("numbers that are not finite")
        largest = covariance.abs().max()
        if (covariance - covariance.mT).abs().max() > _ROUNDING * largest:
            raise ValueError("a matrix that is not symmetric is no covariance")
        variances, axes = torch.linalg.eigh(covariance)
        if variances.min() < -_ROUNDING * largest:
            raise ValueError("a matrix with negative eigenvalues is no covariance")
        return cls(mean, variances.clamp(min=0).sqrt()[:, None] * axes.mT)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^(1/2) S_b S_a^(1/2))^(1/2)) (Heusel et al. 2017, Eq. 6).

    With S = R^T R, the last trace is the sum of the singular values of R_a R_b^T. They are the square roots of the
    eigenvalues of a symmetric matrix of the smaller side: seconds for 2048 features, and also right for fewer images
    than features. Exact to about 1e-8 of the largest variance for each feature.
    """
    product = a.root @ b.root.mT
    if product.shape[0] > product.shape[1]:
        product = product.mT
    eigenvalues = torch.linalg.eigvalsh(product @ product.mT)
    overlap = eigenvalues.clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.root.square().sum() + b.root.square().sum() - 2 * overlap
    return max(0.0, float(distance))


def squared_mmd(a: Tensor, b: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy of features (N, D) and (M, D), kernel (x^T y / D + 1)^3.

    Bińkowski et al. 2018, Eq. 4. It can be negative for similar sets. Raises ValueError for fewer than two.
    """
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"{min(n, m)} image: the kernel distance takes at least two")
    within_a, within_b, between = _kernel(a, a), _kernel(b, b), _kernel(a, b)
    pairs_a = (within_a.sum() - within_a.trace()) / (n * (n - 1))
    pairs_b = (within_b.sum() - within_b.trace()) / (m * (m - 1))
    return float(pairs_a + pairs_b - 2 * between.mean())


def kernel_distance(
    a: Tensor, b: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return KID: mean and standard deviation of `squared_mmd` over random subsets of `size` images of each set.

    Sets of up to `size` images are compared once in full, with deviation 0. Unlike that of the Fréchet distance, the
    expectation of KID does not depend on the number of images.
    """
    if max(len(a), len(b)) <= size:
        return squared_mmd(a, b), 0.0
    generator = torch.Generator().manual_seed(seed)

    def draw(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=generator)[:size]]

    values = torch.tensor([squared_mmd(draw(a), draw(b)) for _ in range(subsets)], dtype=torch.float64)
    return float(values.mean()), float(values.std()) if subsets > 1 else 0.0


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) float64."""
    return (a @ b.mT / a.shape[1] + 1).double().pow(3)
