"""Tables 3, 4 and 5 of ∞-Diff: what training on fewer of the pixels saves, in time and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infdiff.benchmark.cost import Setting, StepCost
from infdiff.coordinates import Size, format_size
from infdiff.tables import text_table


@dataclass(frozen=True)
class PaperTable:
    """Layout and published numbers of a table.

    rates: one pixel in `rate` is trained on, one row each; base: the rate that the others are compared with.
    sizes: data and inner resolution of each column relative to the training size; empty: the training size and its own
    grid. memory: compare memory instead of speed. fitted: use the largest batch that a budget allows. batch: None for
    that of the configuration.
    published: a row of factors for each rate, None where the paper has ∞; fid_clip: a value for each rate, if the paper
    has that column.
    """

    title: str
    config: str
    rates: tuple[float, ...]
    base: float
    sizes: tuple[tuple[float, float], ...]
    memory: bool
    fitted: bool
    batch: int | None
    published: tuple[tuple[float | None, ...], ...]
    headings: tuple[str, ...]
    fid_clip: tuple[float, ...] = ()

    def settings(self, size: Size, grid: Size, batch: int) -> list[Setting]:
        """Return all settings to measure for a training size and its grid, including the base of every column."""
        found = [(_times(size, data), _times(size, inner)) for data, inner in self.sizes] or [(size, grid)]
        rates = sorted({self.base, *self.rates})
        return [Setting(data, inner, rate, batch) for data, inner in found for rate in rates]

    def factors(self, costs: Sequence[StepCost | None], settings: Sequence[Setting]) -> dict[Setting, float | None]:
        """Return the factor of improvement over the base of the column; None if either does not fit into memory."""
        known = {(s.size, s.grid, s.subsample): c for s, c in zip(settings, costs, strict=True)}
        factors: dict[Setting, float | None] = {}
        for setting in settings:
            base, own = (known[setting.size, setting.grid, rate] for rate in (self.base, setting.subsample))
            factors[setting] = None if base is None or own is None else self._factor(base, own)
        return factors

    def _factor(self, base: StepCost, own: StepCost) -> float | None:
        if not self.memory:
            return own.images_per_second / base.images_per_second
        return base.peak_bytes / own.peak_bytes if base.peak_bytes and own.peak_bytes else None

    def as_text(self, factors: dict[Setting, float | None]) -> str:
        """Return the measured factors in the columns of the paper, followed by the published numbers."""
        columns = list(dict.fromkeys((s.size, s.grid) for s in factors))
        by_place = {(s.size, s.grid, s.subsample): factor for s, factor in factors.items()}
        rows = [[by_place[(*column, rate)] for column in columns] for rate in self.rates]
        heading = [f"{format_size(size)} / {format_size(grid)}" for size, grid in columns]
        measured = self._table(heading, rows, none="none fits")
        paper = self._table(self.headings, self.published, none="∞")
        for row, value in zip(paper, self.fid_clip or [None] * len(paper), strict=True):
            row["FID_CLIP"] = "" if value is None else f"{value:.2f}"
        return "\n".join([self.title, text_table(measured), "", "The paper's:", text_table(paper)])

    def _table(self, heading: Sequence[str], rows: Sequence[Sequence[float | None]], none: str) -> list[dict[str, str]]:
        """Rows for `text_table`, one for each rate; `none` stands for a factor that is not known."""
        return [
            {"rate": f"{rate:g}x"} | {name: _cell(factor, none) for name, factor in zip(heading, row, strict=True)}
            for rate, row in zip(self.rates, rows, strict=True)
        ]


def _times(size: Size, factor: float) -> Size:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _cell(factor: float | None, none: str) -> str:
    return none if factor is None else f"{factor:.2f}x"


_HEADINGS = ("128 / 32", "128 / 64", "256 / 64", "256 / 128", "512 / 128", "512 / 256")
_SIZES = tuple((data, data * inner) for data in (0.5, 1.0, 2.0) for inner in (0.25, 0.5))
_RATES = (2.0, 4.0, 8.0, 16.0)

TABLES = {
    3: PaperTable(
        "Table 3: speed of a training step, over that on all pixels",
        config="ffhq_128",
        rates=(1.0, 2.0, 4.0, 8.0),
        base=1.0,
        sizes=(),
        memory=False,
        fitted=False,
        batch=None,
        published=((1.0,), (1.0,), (1.3,), (1.6,)),
        headings=("128 / 64",),
        fid_clip=(3.15, 4.12, 4.75, 6.48),
    ),
    4: PaperTable(
        "Table 4: images a second with the batch that a memory budget allows, over those at half of the pixels "
        "(data / inner resolution)",
        config="ffhq_256",
        rates=_RATES,
        base=2.0,
        sizes=_SIZES,
        memory=False,
        fitted=True,
        batch=None,
        published=(
            (1.00, 1.00, 1.00, 1.00, 1.00, None),
            (1.64, 1.53, 1.97, 2.08, 3.61, None),
            (2.65, 2.17, 3.51, 3.18, 7.98, None),
            (2.89, 2.49, 4.57, 3.83, 11.78, None),
        ),
        headings=_HEADINGS,
    ),
    5: PaperTable(
        "Table 5: memory of training on all pixels, over that on a part of them (data / inner resolution)",
        config="ffhq_256",
        rates=_RATES,
        base=1.0,
        sizes=_SIZES,
        memory=True,
        fitted=False,
        batch=16,
        published=(
            (1.56, 1.44, 1.42, 1.52, 1.43, 1.32),
            (2.44, 2.02, 1.99, 1.66, 2.00, 1.67),
            (3.27, 2.46, 2.44, 1.88, 2.44, 1.90),
            (3.90, 2.75, 2.73, 2.01, 2.73, 2.03),
        ),
        headings=_HEADINGS,
    ),
}
