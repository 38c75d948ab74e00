"""The trainings of a table, one after the other, each for the same time.

The number of steps of every row is measured once and kept: a queue that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from infdiff.ablation.budget import Budget, seconds_a_step
from infdiff.ablation.tables import AblationTable, Row
from infdiff.config.files import load_config
from infdiff.config.settings import Config
from infdiff.errors import UserError
from infdiff.files import make_folder, save_json
from infdiff.methods.checks import check_config
from infdiff.runs.data import Data, build_data
from infdiff.runs.folder import RunFolder
from infdiff.runs.opening import open_run, settled
from infdiff.runs.owner import owning
from infdiff.runs.training import build_trainer

# Checkpoints of a row: an interruption costs at most this part of it.
_CHECKPOINTS = 4


@dataclass(frozen=True)
class Queue:
    """The trainings of a table in a folder. overrides: further settings of every row; budget: of each."""

    table: AblationTable
    rows: Sequence[Row]
    folder: Path
    data: str
    overrides: Sequence[str]
    budget: Budget
    seed: int
    device: torch.device
    say: Callable[[str], None] = lambda line: None

    def run_folder(self, row: Row) -> Path:
        """The run directory of a row."""
        plain = "".join(c if c.isalnum() else "-" for c in row.name.lower())
        return self.folder / "-".join(part for part in plain.split("-") if part)

    def config(self, row: Row, steps: int = 1) -> Config:
        """The configuration of a row. Raises UserError when it cannot work."""
        settings = [*self.table.settings, *row.settings, f"seed={self.seed}", f"train.steps={steps}"]
        settings += [f"train.checkpoint_every={max(1, steps // _CHECKPOINTS)}", f"train.sample_every={steps}"]
        if self.data:
            settings.append(f"data.path={json.dumps(self.data, ensure_ascii=False)}")
        if row.start:
            start = self.run_folder(next(other for other in self.table.rows if other.name == row.start))
            settings.append(f"finetune.run={json.dumps(str(start), ensure_ascii=False)}")
        return load_config(row.config or self.table.config, [*settings, *self.overrides])

    def plan(self) -> dict[str, dict[str, Any]]:
        """Return the steps of each row: decided at the first call, and read from plan.json later.

        Raises UserError when the folder holds a queue of other options.
        """
        asked = {"table": self.table.title, "budget": asdict(self.budget), "data": self.data, "seed": self.seed}
        asked |= {"overrides": list(self.overrides), "device": str(self.device)}
        file = self.folder / "plan.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"asked": asked, "rows": {}}
        if found["asked"] != asked:
            differing = [key for key, value in asked.items() if found["asked"].get(key) != value]
            raise UserError(f"{self.folder} holds an ablation of another {', '.join(differing)}: choose another --out")
        # What cannot work is said before anything is timed.
        configs = {row.name: self._unstarted(row) for row in self.rows}
        self._open(configs[self.rows[0].name])
        make_folder(self.folder)
        for row in self.rows:
            if row.name not in found["rows"]:
                found["rows"][row.name] = self._steps(row, configs[row.name])
                save_json(file, found)
        kept: dict[str, dict[str, Any]] = found["rows"]
        return {row.name: kept[row.name] for row in self.rows}

    def _steps(self, row: Row, config: Config) -> dict[str, Any]:
        if self.budget.seconds is None:
            return {"steps": max(1, round(row.share * self.budget.steps))}
        seconds = seconds_a_step(config, self.device)
        steps = max(1, round(row.share * self.budget.seconds / seconds))
        self.say(f"{row.name}: {seconds:.3f} s a step, {steps} steps")
        return {"steps": steps, "seconds_a_step": seconds}

    def _unstarted(self, row: Row) -> Config:
        """The configuration of a row without the run that it starts from, which need not exist yet."""
        config = self.config(Row(row.name, row.settings, config=row.config))
        check_config(config)
        return config

    def _open(self, config: Config) -> tuple[Config, Data]:
        """The configuration with prepared data, and the data."""
        config = settled(config, self.say)
        return config, build_data(config, self.device)

    def train(self) -> Iterator[tuple[Row, Path]]:
        """Train every row, from where it was; yield it with its run directory when it is done."""
        plan = self.plan()
        for row in self.rows:
            config = self.config(row, plan[row.name]["steps"])
            check_config(config)
            config, data = self._open(config)
            folder = self.run_folder(row)
            RunFolder(folder).check_for_training(config)
            with owning(folder, force=False, say=self.say):
                open_run(folder, config)
                trainer = build_trainer(config, data, folder, self.device)
                self.say(f"{row.name}: {trainer.settings.steps} steps in {folder}")
                trainer.run()
            yield row, folder
