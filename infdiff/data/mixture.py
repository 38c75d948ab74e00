"""Mixed-resolution training (DFU section 3): the resolution of each training step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from infdiff.seeding import draw_part


class Mixture:
    """Draws one of several parts for each step, by their weights: a pure function of (seed, step).

    Every process draws the same, and resuming needs no state. weights: not negative, not all zero; they need not sum
    to 1. batch_sizes: one for each part. batches_a_step: number of batches in a step, all from one part.
    """

    def __init__(
        self, weights: Sequence[float], batch_sizes: Sequence[int], *, seed: int, batches_a_step: int = 1
    ) -> None:
        if len(weights) != len(batch_sizes) or not sum(weights) > 0 or min(weights) < 0:
            raise ValueError(
                f"weights {weights}: want one for each of {len(batch_sizes)} parts, not negative, not all 0"
            )
        self.batch_sizes, self.batches_a_step, self.seed = tuple(batch_sizes), batches_a_step, seed
        self.weights = tuple(weights)

    def part(self, step: int) -> int:
        """Return the number of the part that a step is trained on."""
        if len(self.batch_sizes) == 1:
            return 0
        return draw_part(self.weights, self.seed, "resolution", step)

    def images_before(self, step: int) -> int:
        """Return the number of images in the steps before this one, which is the position in the order of images."""
        if len(set(self.batch_sizes)) == 1:
            return step * self.batch_sizes[0] * self.batches_a_step
        return self.batches_a_step * sum(self.batch_sizes[self.part(earlier)] for earlier in range(step))

    def draws(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield (part, batch size) of every batch from a step on, without end."""
        for number in count(step):
            part = self.part(number)
            for _ in range(self.batches_a_step):
                yield part, self.batch_sizes[part]
