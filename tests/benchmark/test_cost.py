"""Costs of steps, and the paper's tables made of them."""

from dataclasses import replace

import pytest

from infdiff.benchmark.cost import Setting, StepCost
from infdiff.benchmark.paper_tables import TABLES
from infdiff.benchmark.step_report import StepReport
from infdiff.benchmark.timing import Timing

SETTING = Setting((64, 64), (32, 32), 4.0, 8)
COST = StepCost(SETTING, Timing(500.0, 450.0, 20.0, 5), 4_000_000_000, 300_000_000, 1000, 16)
ABOUT = {"config": "demo", "device": "cpu", "device_name": "a processor", "threads": 2, "torch": "2.13"}


def test_a_cost_in_plain_values():
    record = COST.record(rate=32e9)
    assert record["images_per_second"] == 32  # 16 images in half a second
    assert record["flop_per_image"] == 250_000_000
    assert record["share_of_matrix_rate"] == pytest.approx(0.25)  # 8 GFLOP a second of 32
    assert (record["size"], record["grid"], record["batch"]) == ("64", "32", 8)
    # Of sampling: an image takes all steps.
    assert replace(COST, steps_per_image=50).images_per_second == pytest.approx(0.64)


@pytest.mark.parametrize("number", TABLES)
def test_the_published_numbers_fill_the_papers_table(number):
    table = TABLES[number]
    assert len(table.published) == len(table.rates)
    assert {len(row) for row in table.published} == {len(table.headings)}
    settings = table.settings((256, 256), (128, 128), 16)
    columns = list(dict.fromkeys((s.size[0], s.grid[0]) for s in settings))
    if number == 3:
        assert columns == [(256, 128)]
    else:
        assert [f"{size} / {grid}" for size, grid in columns] == list(table.headings)
    assert {s.subsample for s in settings} == {table.base, *table.rates}


def costs_of(settings, value):
    """Of steps that take value(setting) milliseconds, and as many megabytes."""
    made = []
    for setting in settings:
        amount = value(setting)
        timing = Timing(amount, amount, 0.0, 3)
        cost = StepCost(setting, timing, 10**9, int(amount * 1e6), 1000, setting.batch)
        made.append(None if amount == 0 else cost)
    return made


def test_factors_are_over_the_base_of_their_column():
    def value(setting):
        return 1000 / setting.subsample + setting.grid[0]

    for number, base in ((3, 1.0), (4, 2.0), (5, 1.0)):
        table = TABLES[number]
        settings = table.settings((64, 64), (32, 32), 4)
        factors = table.factors(costs_of(settings, value), settings)
        for setting in settings:
            expected = value(replace(setting, subsample=base)) / value(setting)
            assert factors[setting] == pytest.approx(expected)


def test_what_does_not_fit_is_said_and_so_is_all_that_would_be_compared_with_it():
    table = TABLES[4]
    settings = table.settings((256, 256), (128, 128), 16)
    costs = costs_of(settings, lambda s: 0 if (s.size[0], s.grid[0], s.subsample) == (512, 256, 2.0) else 100)
    text = StepReport(ABOUT, 1e12, settings, costs, table).as_text()
    measured, published = text.split("The paper's:")
    assert measured.count("none fits") == 4  # the base and the three rates over it
    assert "left out, too large for the memory: 16 images of 512, grid 256, 1/2" in measured
    assert "11.78x" in published
    assert " ".join(published.splitlines()[1].split()) == " ".join(["rate", *table.headings])


def test_the_report_of_a_table_prints_its_rows_beside_the_papers():
    table = TABLES[3]
    settings = table.settings((128, 128), (64, 64), 4)
    costs = costs_of(settings, lambda s: 1000 / s.subsample)
    measured, published = StepReport(ABOUT, 1e12, settings, costs, table).as_text().split("The paper's:")
    assert [line.split() for line in measured.rstrip().splitlines()[-4:]] == [
        ["1x", "1.00x"],
        ["2x", "2.00x"],
        ["4x", "4.00x"],
        ["8x", "8.00x"],
    ]
    assert published.splitlines()[-1].split() == ["8x", "1.60x", "6.48"]
