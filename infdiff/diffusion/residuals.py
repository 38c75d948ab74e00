"""Conjugate residuals (Stiefel 1955): a few steps towards the solution of M w = r, M symmetric, for images at once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

_SMALLEST = 1e-20


def conjugate_residuals(
    apply: Callable[[Tensor], tuple[Tensor, Tensor]], residual: Tensor, iterations: int, weight: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The effect of w after some iterations from w = 0, and what remains of the residual (B, ...), r - M w.

    apply: p -> (effect of p, M p); it is called once in each iteration, at least one. Each makes the residual as small
    as it can be within what was applied so far, and with weight, between 0 and 2, it never grows.
    """
    if iterations < 1:
        raise ValueError(f"{iterations} iterations: want at least 1")
    total: Tensor | None = None
    effect, applied = apply(residual)
    along = per_image(residual * applied)
    for left in reversed(range(iterations)):
        length = weight * along / per_image(applied.square()).clamp(min=_SMALLEST)
        change = _times(length, effect)
        total = change if total is None else total + change
        residual = residual - _times(length, applied)
        if left:
            new_effect, new_applied = apply(residual)
            along, before = per_image(residual * new_applied), along
            share = along / before.where(before != 0, 1.0)
            effect, applied = new_effect + _times(share, effect), new_applied + _times(share, applied)
    assert total is not None
    return total, residual


def per_image(values: Tensor) -> Tensor:
    """(B,): the sums of values (B, ...)."""
    return values.flatten(1).sum(dim=1)


def _times(factors: Tensor, values: Tensor) -> Tensor:
    return factors.view(-1, *[1] * (values.dim() - 1)) * values
