"""Train the rows of a paper's table for equal time on small networks, and compare their images.

  infdiff ablate --table infinity-3 --budget 30m --data photos      # ∞-Diff: training on a part of the pixels
  infdiff ablate --table infinity-2 --budget 30m --data photos      # ∞-Diff: the parts of the network
  infdiff ablate --table dfu-1 --budget 30m --data photos           # DFU and its baselines across resolutions
  infdiff ablate --table dfu-3 --budget 30m --data photos           # DFU: ways of fine-tuning
  infdiff ablate --table infinity-3 --rows "all pixels;1/8 of the pixels" --budget 5m --data photos
  infdiff ablate --table dfu-1 --list                               # its rows, their settings, the paper's numbers

A step of each row is timed first, so that all rows train for the same time; other programs disturb that, and a budget
of steps does without. The same command again goes on where it stopped. The table is written as Markdown after every
row, and at the end also as a report.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from infdiff.ablation.budget import Budget
from infdiff.ablation.queue import Queue
from infdiff.ablation.tables import ALIASES, TABLES, AblationTable, table_of
from infdiff.ablation.write import as_markdown
from infdiff.cli import Parser, choose_device, positive
from infdiff.evaluation.evaluate import Request, evaluate, finish
from infdiff.files import save_text
from infdiff.metrics.features import DEFAULT, NETWORKS, load_network
from infdiff.runs.folder import RUNS


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff ablate`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser(prog)
    run(parser.parse_intermixed_args(given), [*parser.prog.split(), *given])


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff ablate")
    parser.add_argument("--table", required=True, choices=[*TABLES, *ALIASES], help="which table")
    parser.add_argument("--rows", default="", help="some of its rows, separated by ; (default: all)")
    parser.add_argument("--budget", default="30m", help="training of a row: 90s, 30m (default), 1.5h, or '500 steps'")
    parser.add_argument("--data", default="", help="LMDB, folder or zip of images (default: the embedded demo faces)")
    parser.add_argument("--n", type=int, default=256, help="images compared at each size (default 256)")
    parser.add_argument("--network", default=DEFAULT, choices=NETWORKS, help="of the features")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and noise (default 0)")
    parser.add_argument("--out", type=Path, help="folder (default runs/ablation-TABLE)")
    parser.add_argument("--list", action="store_true", help="say what the rows are, and train nothing")
    parser.add_device()
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="a setting of every row")
    return parser


def run(arguments: Namespace, command: Sequence[str]) -> None:
    """Train and compare the rows that the options name."""
    table = table_of(arguments.table)
    rows = table.chosen([name.strip() for name in arguments.rows.split(";") if name.strip()])
    if arguments.list:
        print(description(table))
        return
    budget, count = Budget.read("--budget", arguments.budget), positive("--n", arguments.n)
    device = choose_device(arguments.device)
    folder = arguments.out or RUNS / f"ablation-{ALIASES.get(arguments.table, arguments.table)}"
    queue = Queue(
        table,
        rows,
        folder,
        arguments.data,
        arguments.overrides,
        budget,
        arguments.seed,
        device,
        say=lambda line: print(line, flush=True),
    )
    networks = [load_network(arguments.network, device)]
    request = Request(
        task="generate",
        sizes=[(size, size) for size in table.sizes],
        count=count,
        metrics=["frechet", "kid"],
        device=device,
        latents=table.latents,
        seed=arguments.seed,
        keep_examples=True,
    )
    plan, found, markdown = queue.plan(), {}, folder / "table.md"
    for row, run_folder in queue.train():
        with tqdm(desc=row.name, unit="image", disable=None) as bar:
            compared = evaluate(request, run_folder, networks, bar.update)
        found[row.name] = replace(compared, name=row.name)
        results = {name: one.evaluation.results for name, one in found.items()}
        save_text(markdown, as_markdown(table, plan, results))
    report = folder / "report.html"
    files: dict[str, Path] = {"json": folder / "results.json", "report": report}
    print(finish(request, list(found.values()), networks, command, **files, title=table.title))
    print(f"{markdown}, {report}")


def description(table: AblationTable) -> str:
    """Return the rows of a table as text."""
    shared = " ".join([table.config, *table.settings])
    lines = [table.title, f"every row: {shared}"]
    for row in table.rows:
        start = f", {row.share:g} of the time, from {row.start!r}" if row.start else ""
        numbers = zip(table.published, row.published, strict=False)
        published = ", ".join(f"{heading} {value:g}" for heading, value in numbers if value is not None)
        lines.append(f"  {row.name}{start}: {' '.join([row.config, *row.settings]).strip() or 'as it is'}")
        if published:
            lines.append(f"      the paper's: {published}")
    return "\n".join(lines)
