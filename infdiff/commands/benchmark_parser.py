"""Options of `infdiff benchmark` and its five subcommands."""

from pathlib import Path

from infdiff.benchmark import operators, paper_tables
from infdiff.cli import Parser
from infdiff.data.store import FORMATS

BENCHMARK = """Measure how fast infdiff is on this machine.

  infdiff benchmark ops                                    # every operator, in minutes
  infdiff benchmark train --subsample 1,2,4,8,16           # training steps of the demo configuration
  infdiff benchmark train --table 4                        # the paper's Table 4 (also 3 and 5)
  infdiff benchmark sample --res 64,256,1024 --batch 1     # sampling steps at these sizes
  infdiff benchmark data photos --shards 0,8               # preparing and reading images, by worker processes
  infdiff benchmark kernels --arch sm_90                   # instructions of the CUDA kernels, without a GPU
  infdiff benchmark train --help                           # all options, with more examples

The numbers are printed as a table; --json FILE saves them, too.
"""
OPS = """Time every operator with every backend that runs here, forward and with backward.

  infdiff benchmark ops                                   # the full sweep, three minutes on two CPU cores
  infdiff benchmark ops --quick --device cpu
  infdiff benchmark ops --only sparse_depthwise_conv2d --repeat 50 --json conv.json
  infdiff benchmark ops --quick --profile trace.json      # open it in ui.perfetto.dev

Each case is timed with everything precomputed that depends on coordinates alone: ids, index, neighbours, counts.
"""
TRAIN = """Time complete training steps on noise images: batch, forward, backward, clipping, optimiser, EMA.

  infdiff benchmark train --config ffhq_256 --subsample 1,2,4,8,16
  infdiff benchmark train --res 64,128 --batch 4 --json train.json model.channels=48
  infdiff benchmark train --points 4096 --res 256,1024,4096 --batch 1
  infdiff benchmark train --table 3                       # speed at each subsampling, ffhq_128
  infdiff benchmark train --table 4 --budget 0.5 --config demo
  infdiff benchmark train --table 5 --batch 2 --config demo
  infdiff benchmark train --config dfu_ffhq_96 --against model.grid.modes=0
  infdiff benchmark train --config ffhq_256 --count       # FLOP, launches, bytes: in seconds, without a GPU

Tables 4 and 5 vary the data's resolution (half, once and twice the configuration's) and the grid's (a quarter and a
half of that). Their default configurations are the published ones and need a GPU. FID_CLIP, a column of Table 3, needs
trained runs: infdiff evaluate --network clip.
"""
SAMPLE = """Time the steps of a configuration's sampler, with untrained weights.

  infdiff benchmark sample --res 64,256,1024 --batch 1
  infdiff benchmark sample --config ffhq_256 --res 256 --batch 8 --json sample.json
  infdiff benchmark sample --config ffhq_256 --count
"""
DATA = """Time how fast images are prepared, and read by training with data.cache: none, from one file and from shards.

  infdiff benchmark data photos --size 256 --shards 0,8 --workers 1,2,4
  infdiff benchmark data photos.zip --size 128 --crops 16 --format webp --json data.json

The images are prepared into a folder that is deleted again. Printed are medians of images a second, the least and the
most. Cases take turns.
"""
KERNELS = """Count what the CUDA kernels need and run: registers, spills, shared memory, instructions. Needs no GPU.

  infdiff benchmark kernels --arch sm_90
  infdiff benchmark kernels --arch sm_100 --json kernels.json   # without what runs, which was checked for sm_90 alone

Kernels are compiled for an architecture and disassembled. The instructions of each basic block count as often as the
loops around it turn, with the turns of a real draw of points at the shapes of a training step of ffhq_256. Ifs without
an else count as run, two alternatives as half each; called functions (slow cases of divisions) are left out, and so are
waiting, caches and memory: these are counts, no times. "ms at full issue" divides by what an H100 issues at most.

Instructions need nvdisasm, of the CUDA toolkit or of the package nvidia-cuda-nvdisasm; the rest does not.
"""


def make_parser(prog: str | None) -> Parser:
    """Every option; `WHAT` is the subcommand."""
    parser = Parser(BENCHMARK, prog or "infdiff benchmark")
    commands = parser.add_subparsers(required=True, metavar="WHAT", dest="WHAT", parser_class=Parser)
    ops = commands.add_parser("ops", help="operators on points", description=OPS)
    ops.add_argument("--quick", action="store_true", help="only a handful of cases")
    ops.add_argument("--only", choices=operators.OPERATORS, metavar="NAME", help=", ".join(operators.OPERATORS))
    ops.add_argument("--profile", type=Path, metavar="FILE", help="write a Chrome trace of one pass over the cases")
    train = commands.add_parser("train", help="training steps of a configuration", description=TRAIN)
    train.add_argument("--subsample", default="", help="1,2,4: one pixel in this many (default: the configuration's)")
    train.add_argument("--points", type=int, metavar="N", help="N points of each image, at every size of --res")
    train.add_argument("--table", type=int, choices=paper_tables.TABLES, help="measure a table of the paper")
    train.add_argument("--budget", type=float, help="memory for Table 4 in GB (default 10 as in the paper; CPU: 1)")
    sample = commands.add_parser("sample", help="sampling steps of a configuration", description=SAMPLE)
    kernels = commands.add_parser(
        "kernels", help="instructions of the CUDA kernels, without a GPU", description=KERNELS
    )
    kernels.add_argument("--arch", default="sm_90", help="architecture: sm_80, sm_90, sm_100 (default sm_90)")
    data = commands.add_parser("data", help="preparing and reading images", description=DATA)
    data.add_argument("source", metavar="SRC", help="folder, zip or LMDB of images, as prepare-data takes it")
    data.add_argument("--size", default="256", help="256, or 192x256 (default 256)")
    data.add_argument("--crops", type=int, default=0, help="random crops of each image (default 0: one centre crop)")
    data.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="as prepare-data's (default png)")
    data.add_argument("--shards", default="0,8", help="0,8: numbers of shards; 0: one file (default 0,8)")
    data.add_argument("--workers", default="1,2,4", help="1,2,4: numbers of worker processes (default 1,2,4)")
    data.add_argument("--repeat", type=int, default=3, help="number of timed repeats (default 3)")
    for command in (train, sample):
        command.add_argument("--config", type=Path, help="YAML file or name (default demo, or the table's own)")
        command.add_argument("--res", default="", help="64,128,512x256: sizes (default: the configuration's)")
        command.add_argument("--batch", type=int, help="batch size (default: the configuration's; 16 for Table 5)")
        command.add_argument(
            "--count", action="store_true", help="count FLOP, launches, bytes moved and kept; time nothing"
        )
        command.add_argument("--against", default="", metavar="KEY=VALUE", help="compare with this setting changed")
        command.add_argument("overrides", nargs="*", metavar="key.path=value", help="any setting of the configuration")
    for command, repeat in ((ops, 20), (train, 10), (sample, 10)):
        command.add_argument("--repeat", type=int, default=repeat, help=f"number of timed repeats (default {repeat})")
        command.add_seed("all random data")
        command.add_device()
    for command in (ops, train, sample, kernels, data):
        command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers and the environment")
    return parser
