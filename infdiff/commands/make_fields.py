"""Simulate a stirred sea: fields of temperature and vorticity to try the package with, with pixels that nobody saw.

  infdiff make-fields --out sea
  infdiff make-fields --out sea128 --size 128 --n 500 --gauges 800

Writes OUT/seen (--n fields, with NaN in swaths), OUT/truth (the same without holes, to compare samples with),
OUT/complete (--held-out fields of other simulations, without holes) and OUT/gauges (these, known at --gauges pixels).
prepare-data takes these folders. Fields depend on --seed alone.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from infdiff.cli import Parser, positive
from infdiff.data.simulated_fields import NAMES, UNITS, seen_between_swaths, seen_by_gauges, simulated_fields
from infdiff.errors import OptionError, UserError
from infdiff.files import is_empty, make_folder
from infdiff.images.field_files import save_field

HOW_TO_PREPARE = (
    f"--size {{size}} --names {','.join(NAMES)} --units {','.join(UNITS)} --normalise meanstd --min-valid 0.65"
)
# Folders of the same fields.
_PAIRS = (("seen", "truth"), ("complete", "gauges"))
_SMALLEST = 32  # pixels that a field takes to show its eddies


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run `infdiff make-fields`."""
    run(make_parser(prog).parse_args(arguments))


def make_parser(prog: str | None) -> Parser:
    """Every option of the command."""
    parser = Parser(__doc__, prog or "infdiff make-fields")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, which is new or empty")
    parser.add_argument("--n", type=int, default=2000, help="fields with holes (default 2000)")
    parser.add_argument("--held-out", type=int, default=200, help="complete fields, of other simulations (default 200)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default 64)")
    parser.add_argument("--gauges", type=int, default=200, help="known pixels of each held-out field (default 200)")
    parser.add_seed("the simulations and of what is seen")
    return parser


def run(arguments: Namespace) -> None:
    """Simulate, and write the folders."""
    out, size, seed, gauges = arguments.out, arguments.size, arguments.seed, arguments.gauges
    count, held_out = positive("--n", arguments.n), positive("--held-out", arguments.held_out)
    if size < _SMALLEST:
        raise OptionError("size", size, f"want at least {_SMALLEST} pixels")
    if not 1 <= gauges <= size**2:
        raise OptionError("gauges", gauges, f"want 1 to {size**2}, the pixels of a field")
    if out.exists() and not is_empty(out):
        raise UserError(f"{out} is not empty: choose another folder")
    folders = {name: make_folder(out / name) for pair in _PAIRS for name in pair}
    fields = tqdm(simulated_fields(count, size, seed), total=count, unit="field", disable=None)
    for index, field in enumerate(fields):
        save_field(field, folders["truth"] / f"{index:06}.npy")
        save_field(seen_between_swaths(field, seed, index), folders["seen"] / f"{index:06}.npy")
    for index, field in enumerate(simulated_fields(held_out, size, seed + 1)):
        save_field(field, folders["complete"] / f"{index:06}.npy")
        save_field(seen_by_gauges(field, gauges, seed, index), folders["gauges"] / f"{index:06}.npy")
    of_these, others = (" and ".join(str(folders[name]) for name in pair) for pair in _PAIRS)
    print(f"{count} fields in {of_these}, {held_out} others in {others}")
    print(f"to train on: infdiff prepare-data {folders['seen']} {HOW_TO_PREPARE.format(size=size)} --out {out}.lmdb")
