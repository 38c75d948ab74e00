"""Measure how fast infdiff is on this machine.

  python scripts/benchmark.py ops                                    # every operator, in minutes
  python scripts/benchmark.py train --subsample 1,2,4,8,16           # training steps of the demo configuration
  python scripts/benchmark.py train --table 4                        # the paper's Table 4 (3 and 5 likewise)
  python scripts/benchmark.py sample --res 64,256,1024 --batch 1     # sampling steps at these sizes
  python scripts/benchmark.py train --help                           # what can be chosen, with more examples

The numbers are printed as a table; with --json FILE they are kept, too.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from infdiff import __version__
from infdiff.benchmark import operator_table, operators, paper_tables, steps, timing
from infdiff.benchmark.step_report import StepReport
from infdiff.cli import Parser, choose_device, numbers, output_file, positive, run, size_argument
from infdiff.config import CONFIG_FOLDER, Config, load_config
from infdiff.errors import UserError

OPS = """Time every operator with every backend that runs here, forward and with backward.

  python scripts/benchmark.py ops                                   # the whole sweep, three minutes on two CPU cores
  python scripts/benchmark.py ops --quick --device cpu
  python scripts/benchmark.py ops --only sparse_depthwise_conv2d --repeat 50 --json conv.json
  python scripts/benchmark.py ops --quick --profile trace.json      # to be opened in ui.perfetto.dev

Each case is timed with all that depends on coordinates alone handed over: ids, index, neighbours, counts.
"""
TRAIN = """Time whole training steps: batch, forward, backward, clipping, optimiser, average. Images are noise.

  python scripts/benchmark.py train --config configs/ffhq_256.yaml --subsample 1,2,4,8,16
  python scripts/benchmark.py train --res 64,128 --batch 4 --json train.json model.channels=48
  python scripts/benchmark.py train --table 3                       # speed at each part of the pixels, ffhq_128
  python scripts/benchmark.py train --table 4 --budget 0.5 --config configs/demo.yaml
  python scripts/benchmark.py train --table 5 --batch 2 --config configs/demo.yaml
  python scripts/benchmark.py train --config configs/dfu_ffhq_96.yaml --against model.grid.modes=0

Tables 4 and 5 vary the data's resolution (half, once and twice the configuration's) and the grid's (a quarter and a
half of that). Their own configurations are the published ones and want a GPU. FID_CLIP, a column of Table 3, takes
trained runs: scripts/evaluate.py --network clip.
"""
SAMPLE = """Time the steps of a configuration's sampler, with fresh weights.

  python scripts/benchmark.py sample --res 64,256,1024 --batch 1
  python scripts/benchmark.py sample --config configs/ffhq_256.yaml --res 256 --batch 8 --json sample.json
"""


class Command(Parser):
    """The parser of one subcommand."""

    def __init__(self, description: str | None = None, prog: str | None = None, **options: Any) -> None:
        super().__init__(description)
        self.prog = prog or self.prog


def main() -> None:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="WHAT", dest="WHAT", parser_class=Command)
    ops = commands.add_parser("ops", help="the operators on points", description=OPS)
    ops.add_argument("--quick", action="store_true", help="only a handful of cases")
    ops.add_argument("--only", choices=operators.OPERATORS, metavar="NAME", help=", ".join(operators.OPERATORS))
    ops.add_argument("--profile", type=Path, metavar="FILE", help="write a Chrome trace of one pass over the cases")
    train = commands.add_parser("train", help="training steps of a configuration", description=TRAIN)
    train.add_argument("--subsample", default="", help="1,2,4: one pixel in so many (default: the configuration's)")
    train.add_argument("--table", type=int, choices=paper_tables.TABLES, help="a table of the paper")
    train.add_argument("--budget", type=float, help="of Table 4 in GB (default 10, as the paper's; on a CPU 1)")
    sample = commands.add_parser("sample", help="sampling steps of a configuration", description=SAMPLE)
    for command in (train, sample):
        command.add_argument("--config", type=Path, help="YAML file (default configs/demo.yaml, or the table's own)")
        command.add_argument("--res", default="", help="64,128,512x256: sizes (default: the configuration's)")
        command.add_argument("--batch", type=int, help="images at once (default: the configuration's, of Table 5 16)")
        command.add_argument("--against", default="", metavar="KEY=VALUE", help="the same with this changed, beside it")
        command.add_argument("overrides", nargs="*", metavar="key.path=value", help="any setting of the configuration")
    for command, repeat, call in ((ops, 20, time_operators), (train, 10, time_steps), (sample, 10, time_steps)):
        command.add_argument("--repeat", type=int, default=repeat, help=f"times that it is timed (default {repeat})")
        command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers and where they were measured")
        command.add_argument("--seed", type=int, default=0, help="of all that is random (default 0)")
        command.add_device()
        command.set_defaults(call=call)
    arguments = parser.parse_args()
    positive("--repeat", arguments.repeat)
    output_file("--json", arguments.json)
    output_file("--profile", getattr(arguments, "profile", None))
    if not 0 <= arguments.seed < 2**63:
        raise UserError(f"--seed {arguments.seed}: want 0 to 2^63 - 1")
    arguments.call(arguments)


def time_operators(arguments: Namespace) -> None:
    """`benchmark.py ops`."""
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
    """`benchmark.py train` and `benchmark.py sample`."""
    device = choose_device(arguments.device)
    paper = paper_tables.TABLES[arguments.table] if getattr(arguments, "table", None) else None
    default = CONFIG_FOLDER / f"{paper.config if paper else 'demo'}.yaml"
    overrides = [*arguments.overrides, f"seed={arguments.seed}"]
    config = load_config(arguments.config or default, overrides)
    plans = [plan_of(arguments, config, paper, device)]
    if arguments.against:
        if paper is not None:
            raise UserError("--against: goes with --subsample and --res, not with --table")
        changed = load_config(arguments.config or default, [*overrides, arguments.against])
        plans.append(plan_of(arguments, changed, paper, device))
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


def plan_of(
    arguments: Namespace, config: Config, paper: paper_tables.PaperTable | None, device: torch.device
) -> steps.Plan:
    """What the arguments say is to be measured."""
    sizes = [size_argument("--res", text) for text in arguments.res.split(",") if text]
    batch = None if arguments.batch is None else positive("--batch", arguments.batch)
    if arguments.WHAT == "sample":
        return steps.plan_sampling(config, device, arguments.repeat, sizes=sizes, batch=batch)
    if paper is None:
        parts = numbers("--subsample", arguments.subsample)
        return steps.plan_training(config, device, arguments.repeat, sizes=sizes, subsamples=parts, batch=batch)
    if sizes or arguments.subsample:
        raise UserError("--table: it says the sizes and the parts of the pixels itself; give no --res and --subsample")
    return steps.plan_table(paper, config, device, arguments.repeat, batch=batch, budget=arguments.budget)


if __name__ == "__main__":
    run(main)
