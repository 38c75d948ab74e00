"""The tables' rows: every one can be trained, and differs from the others."""

import pytest
import torch

from infdiff.ablation import budget
from infdiff.ablation.budget import Budget, seconds_a_step
from infdiff.ablation.queue import Queue
from infdiff.ablation.tables import ALIASES, TABLES, table_of
from infdiff.ablation.write import as_markdown
from infdiff.benchmark.timing import Timing
from infdiff.config.files import flatten, load_config
from infdiff.errors import OptionError
from infdiff.methods.checks import check_config
from infdiff.shipped import CONFIG_FOLDER
from tests.conftest import TINY, TINY_GRID

CPU = torch.device("cpu")


def queue(name, folder):
    table = TABLES[name]
    return Queue(table, table.rows, folder, "", [], Budget(60.0), 0, CPU)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_can_be_trained_and_differs_from_the_others(name, tmp_path):
    rows = queue(name, tmp_path)
    configs = [rows._unstarted(row) for row in rows.rows]
    for config in configs:
        check_config(config)
    assert len({str(flatten(config)) for config in configs}) == len(configs)
    assert len({rows.run_folder(row) for row in rows.rows}) == len(configs)
    assert all(len(row.published) <= len(rows.table.published) for row in rows.rows)


def test_rows_are_chosen_by_name_with_those_they_start_from():
    for table in TABLES.values():
        assert table.chosen([]) == table.rows
        for row in table.rows:
            names = [chosen.name for chosen in table.chosen([row.name])]
            assert set(names) == {row.name, row.start} - {""}
        with pytest.raises(OptionError, match="rows: nothing: want some of"):
            table.chosen(["nothing"])


def test_tables_go_by_the_papers_names_too():
    assert all(table_of(alias) is TABLES[name] for alias, name in ALIASES.items())
    with pytest.raises(OptionError, match="table: 9: want one of"):
        table_of("9")


@pytest.mark.parametrize(
    ("text", "budget"),
    [("90s", Budget(90)), ("30m", Budget(1800)), ("1.5h", Budget(5400)), ("500 steps", Budget(steps=500))],
)
def test_budgets(text, budget):
    assert Budget.read("--budget", text) == budget


@pytest.mark.parametrize("text", ["30", "0m", "-1m", "m", "soon", "", "0 steps", "1.5 steps"])
def test_what_is_no_budget(text):
    with pytest.raises(OptionError, match="want a time, as 90s"):
        Budget.read("--budget", text)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Rates 1 and 4, one to three: 1 s and 1/4 s.
        ([*TINY, "train.subsample={1: 1, 4: 3}"], 0.25 * 1 + 0.75 / 4),
        # Sizes 8 and 16, three to one: 1/4 s and 1 s.
        ([*TINY_GRID, "data.resolutions={8: 3, 16: 1}"], 0.75 / 4 + 0.25),
    ],
)
def test_the_mean_step_is_weighted_as_training_draws(settings, expected, monkeypatch):
    """Steps that take as many seconds as they have pixels in units of all of 16 x 16."""

    class Cost:
        def __init__(self, pixels):
            self.timing = Timing.of([1000 * pixels / 256, 3000.0])

    class Plan:
        def __init__(self, plan):
            self.settings = plan.settings

        def run(self):
            return [Cost(s.size[0] * s.size[1] / s.subsample) for s in self.settings]

    plan_training = budget.plan_training
    monkeypatch.setattr(budget, "plan_training", lambda *args: Plan(plan_training(*args)))
    assert seconds_a_step(load_config(CONFIG_FOLDER / "demo.yaml", settings), CPU) == pytest.approx(expected)


def test_the_table_as_markdown():
    table = TABLES["infinity-3"]
    plan = {"all pixels": {"steps": 1200, "seconds_a_step": 0.25}, "1/2 of the pixels": {"steps": 7}}
    results = {"all pixels": [{"size": "32", "frechet": 91.04, "kid": 0.1109}], "1/2 of the pixels": [{"size": "32"}]}
    lines = as_markdown(table, plan, results).splitlines()
    assert "| all pixels | 1,200 | 250 | 91.0 | 0.111 |" in lines
    assert "| 1/2 of the pixels | 7 | – | – | – |" in lines
    assert "| 1/8 of the pixels | 6.48 | 1.6 |" in lines
    untimed = {name: {"steps": row["steps"]} for name, row in plan.items()}
    assert "| all pixels | 1,200 | 91.0 | 0.111 |" in as_markdown(table, untimed, results).splitlines()
