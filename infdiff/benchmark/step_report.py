"""Report on the cost of training or sampling steps, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infdiff.benchmark.cost import Setting, StepCost, costs_as_text
from infdiff.benchmark.paper_tables import PaperTable
from infdiff.files import save_json

_LEGEND = """\
rate: the part of the pixels that is trained on. ms a step: the median; spread: between the quartiles.
FLOP: two for each multiply-add of matrix products, convolutions, attention and our operators. of matrix rate: over what
the device does in a product of large matrices; above 100 % where libraries convolve with fewer FLOP than are counted.
peak MB: of everything, weights and optimiser included."""


@dataclass(frozen=True)
class StepReport:
    """Costs of settings, and of the same settings with another configuration.

    about: record of the device; rate: its FLOP a second in matrix products; costs: one for each setting, None where
    memory does not suffice. others: costs of the same settings with `changed`, KEY=VALUE of the configuration.
    """

    about: dict[str, Any]
    rate: float
    settings: Sequence[Setting]
    costs: Sequence[StepCost | None]
    table: PaperTable | None = None
    changed: str = ""
    others: Sequence[StepCost | None] = ()

    def save(self, path: Path) -> None:
        """Write the report as JSON. Raises UserError when the file cannot be written."""
        content: dict[str, Any] = {
            "environment": self.about | {"matrix_tflop_per_s": self.rate / 1e12},
            "results": [cost.record(self.rate) for cost in self.costs if cost is not None],
            "left_out": [setting.describe() for setting in self._left_out],
        }
        if self.changed:
            others = [cost.record(self.rate) for cost in self.others if cost is not None]
            content["against"] = {"changed": self.changed, "results": others}
        if self.table is not None:
            factors = self.table.factors(self.costs, self.settings).items()
            content["table"] = {
                "title": self.table.title,
                "factors": [setting.record() | {"factor": factor} for setting, factor in factors],
            }
        save_json(path, content)

    def as_text(self) -> str:
        """Return the report as text."""
        about = self.about
        threads = f"{about['threads']} threads, " if about["device"] == "cpu" else ""
        lines = [f"{about['config']} on {about['device']}: {about['device_name']}, {threads}torch {about['torch']}"]
        lines += [f"products of matrices: {self.rate / 1e12:#.3g} TFLOP/s", ""]
        measured = [cost for cost in self.costs if cost is not None]
        lines += [costs_as_text(measured, self.rate), "", _LEGEND] if measured else []
        lines += [f"left out, too large for the memory: {setting.describe()}" for setting in self._left_out]
        if self.changed:
            lines += ["", f"With {self.changed}:", *self._comparison()]
        if self.table is not None:
            lines += ["", self.table.as_text(self.table.factors(self.costs, self.settings))]
        return "\n".join(lines)

    def _comparison(self) -> list[str]:
        """Return lines with the other costs, and the fraction of a step that they save."""
        pairs = [(own, other) for own, other in zip(self.costs, self.others, strict=True) if own and other]
        if not pairs:
            return []
        saved = [f"{1 - other.timing.median / own.timing.median:.1%}" for own, other in pairs]
        lines = costs_as_text([other for _, other in pairs], self.rate).splitlines()
        return [f"{line}  {cell:>10}" for line, cell in zip(lines, ["time saved", *saved], strict=True)]

    @property
    def _left_out(self) -> list[Setting]:
        return [setting for setting, cost in zip(self.settings, self.costs, strict=True) if cost is None]
