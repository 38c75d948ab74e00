"""The command `infdiff benchmark`. Its options and help are in `benchmark_parser`."""

import os
import re
from argparse import Namespace
from collections.abc import Sequence

import torch
from tqdm import tqdm

from infdiff import __version__
from infdiff.benchmark import (
    counted,
    data,
    kernel_counts,
    kernel_table,
    operator_table,
    operators,
    paper_tables,
    steps,
    timing,
)
from infdiff.benchmark.disassembly import find_disassembler
from infdiff.benchmark.step_report import StepReport
from infdiff.cli import choose_device, numbers, output_file, positive, size_argument
from infdiff.commands.benchmark_parser import make_parser
from infdiff.config.files import load_config
from infdiff.config.settings import Config
from infdiff.data.prepare import Recipe
from infdiff.data.prepare_fields import without_arrays
from infdiff.data.sources import open_source
from infdiff.errors import UserError
from infdiff.files import save_json


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff benchmark`."""
    run(make_parser(prog).parse_args(arguments))


def run(arguments: Namespace) -> None:
    """Measure what the subcommand names."""
    output_file("--json", arguments.json)
    if arguments.WHAT == "kernels":
        count_instructions(arguments)
        return
    positive("--repeat", arguments.repeat)
    if arguments.WHAT == "data":
        time_data(arguments)
        return
    output_file("--profile", getattr(arguments, "profile", None))
    if arguments.WHAT == "ops":
        time_operators(arguments)
    else:
        time_steps(arguments)


def count_instructions(arguments: Namespace) -> None:
    """Run `infdiff benchmark kernels`."""
    if not re.fullmatch(r"sm_\d{2,3}[af]?", arguments.arch):
        raise UserError(f"--arch {arguments.arch}: want an architecture such as sm_90")
    compiler, counts = kernel_counts.count_kernels(arguments.arch, find_disassembler())
    if arguments.json is not None:
        kernel_table.save(arguments.json, arguments.arch, compiler, counts)
    print(kernel_table.as_text(arguments.arch, compiler, counts))


def time_data(arguments: Namespace) -> None:
    """Run `infdiff benchmark data`."""
    source = without_arrays(open_source(arguments.source))
    recipe = Recipe(size_argument("--size", arguments.size), arguments.crops, format=arguments.format)
    shards, workers = whole("--shards", arguments.shards, 0), whole("--workers", arguments.workers, 1)
    repeat = arguments.repeat
    with tqdm(total=2 * repeat * len(shards) * len(workers), unit="case", disable=None) as bar:
        rates = data.measure_data(source, recipe, shards=shards, workers=workers, repeat=repeat, on_case=bar.update)
    if arguments.json is not None:
        about = {"infdiff": __version__, "cores": os.cpu_count(), "repeats": repeat}
        save_json(arguments.json, {"environment": about, "results": data.as_records(rates)})
    print(f"images/s, median (least to most) of {repeat}, {os.cpu_count()} cores\n{data.as_text(rates)}")


def whole(option: str, text: str, least: int) -> list[int]:
    """Return the whole numbers that an option lists. Raises UserError for others, and for none."""
    found = [int(number) for number in numbers(option, text) if number == int(number) >= least]
    if not found or len(found) != len(text.split(",")):
        raise UserError(f"{option} {text}: want whole numbers from {least} on, with commas between them")
    return found


def time_operators(arguments: Namespace) -> None:
    """Run `infdiff benchmark ops`."""
    repeat, seed, device = arguments.repeat, arguments.seed, choose_device(arguments.device)
    plan = (operators.QUICK_PLANS if arguments.quick else operators.PLANS)[device.type]
    pairs, left_out = timing.split(operators.cases_of(plan, arguments.only), device)
    copy = timing.copy_bandwidth(device) if device.type == "cuda" else None
    with tqdm(total=len(pairs), unit="case", disable=None) as bar:
        rows, too_large = timing.time_cases(pairs, device, seed, repeat, bar.update)
    left_out += too_large
    about = {"infdiff": __version__} | operator_table.environment(device, seed, repeat)
    if arguments.json is not None:
        operator_table.save_rows(arguments.json, about, rows, left_out, copy)
    if arguments.profile is not None:
        timing.trace(pairs, device, seed, arguments.profile)
    print(operator_table.as_text(about, rows, left_out, copy))


def time_steps(arguments: Namespace) -> None:
    """Run `infdiff benchmark train` or `infdiff benchmark sample`."""
    if arguments.count:
        count_steps(arguments)
        return
    device = choose_device(arguments.device)
    paper = paper_tables.TABLES[arguments.table] if getattr(arguments, "table", None) else None
    path = arguments.config or (paper.config if paper else "demo")
    overrides = [*arguments.overrides, f"seed={arguments.seed}"]
    config = load_config(path, overrides)
    plans = [plan_of(arguments, config, paper, device)]
    if arguments.against:
        if paper is not None:
            raise UserError("--against: goes with --subsample and --res, not with --table")
        plans.append(plan_of(arguments, load_config(path, [*overrides, arguments.against]), paper, device))
    with tqdm(total=sum(len(plan.settings) for plan in plans), unit="setting", disable=None) as bar:
        before = timing.matrix_rate(device, plans[0].dtype)
        costs, *others = [plan.run(bar.update) for plan in plans]
    rate = max(before, timing.matrix_rate(device, plans[0].dtype))
    about = {"infdiff": __version__} | operator_table.environment(device, arguments.seed, arguments.repeat)
    about |= {"config": config.name}
    report = StepReport(about, rate, plans[0].settings, costs, paper, arguments.against, *others)
    if arguments.json is not None:
        report.save(arguments.json)
    print(report.as_text())


def count_steps(arguments: Namespace) -> None:
    """Run `infdiff benchmark train --count` or `infdiff benchmark sample --count`."""
    if arguments.against or getattr(arguments, "table", None):
        raise UserError("--count: goes with --config, --res, --subsample and --batch, not with --against or --table")
    config = load_config(arguments.config or "demo", [*arguments.overrides, f"seed={arguments.seed}"])
    count = counted.count_sampling if arguments.WHAT == "sample" else counted.count_training
    counts = [count(config, setting) for setting in plan_of(arguments, config, None, torch.device("cpu")).settings]
    if arguments.json is not None:
        about = {"infdiff": __version__, "torch": torch.__version__, "config": config.name}
        save_json(arguments.json, {"environment": about, "results": [step.record() for step in counts]})
    print("\n\n".join(step.as_text() for step in counts))


def plan_of(
    arguments: Namespace, config: Config, paper: paper_tables.PaperTable | None, device: torch.device
) -> steps.StepPlan:
    """Return the measurements that the options ask for."""
    sizes = [size_argument("--res", text) for text in arguments.res.split(",") if text]
    batch = None if arguments.batch is None else positive("--batch", arguments.batch)
    if arguments.WHAT == "sample":
        return steps.plan_sampling(config, device, arguments.repeat, sizes=sizes, batch=batch)
    if paper is None:
        parts = numbers("--subsample", arguments.subsample)
        points = None if arguments.points is None else positive("--points", arguments.points)
        return steps.plan_training(
            config, device, arguments.repeat, sizes=sizes, subsamples=parts, batch=batch, points=points
        )
    if sizes or arguments.subsample or arguments.points:
        raise UserError("--table: sets the sizes and points itself; leave out --res, --subsample and --points")
    return steps.plan_table(paper, config, device, arguments.repeat, batch=batch, budget=arguments.budget)
