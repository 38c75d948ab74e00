"""The rows of the papers' tables: their settings, and the numbers that were published for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infdiff.errors import OptionError


@dataclass(frozen=True)
class Row:
    """One training. published: the paper's numbers, in the order of `AblationTable.published`.

    config: the configuration's name, if not the table's. start: the row that fine-tuning starts from. share: part of
    the budget that it gets.
    """

    name: str
    settings: tuple[str, ...] = ()
    published: tuple[float | None, ...] = ()
    config: str = ""
    start: str = ""
    share: float = 1.0


@dataclass(frozen=True)
class AblationTable:
    """A table of a paper, for small networks.

    config, settings: what all rows share; settings are written as on the command line. sizes: evaluated at these.
    latents: of the images compared, "model" or "real". published: headings of the paper's columns.
    """

    title: str
    config: str
    settings: tuple[str, ...]
    sizes: tuple[int, ...]
    latents: str
    published: tuple[str, ...]
    rows: tuple[Row, ...]

    def chosen(self, names: Sequence[str]) -> tuple[Row, ...]:
        """Return the rows of these names, and those that they start from; all of them for no name.

        Raises OptionError for a row that does not exist.
        """
        known = {row.name: row for row in self.rows}
        for name in names:
            if name not in known:
                raise OptionError("rows", name, f"want some of: {'; '.join(known)}")
        wanted = {*names, *(known[name].start for name in names)}
        return tuple(row for row in self.rows if not names or row.name in wanted)


def _rate(text: str, rate: int, *published: float | None) -> tuple[Row, Row]:
    """A rate alone, and with every eighth step on all pixels."""
    alone = Row(text, (f"train.subsample={rate}",), published)
    return alone, Row(f"{text}, all in every eighth step", (f"train.subsample={{1: 1, {rate}: 7}}",))


# A side of half of the paper's 64 to 128 pixels, the encoder's sketch and the grid in the same proportion. Batches are
# those of the figures in docs/quality.md.
_POINTS = ("data.size=32", "model.grid_size=32", "model.sketch_side=8", "train.batch_size=16", "train.warmup=100")
# Half of the paper's 32 to 160 pixels.
_DFU = ("data.size=48", "data.resolutions={16: 1, 24: 1, 32: 1, 40: 1, 48: 1}", "train.optimiser=muon")
_DFU_SIZES = (16, 24, 32, 48, 64, 80)
_SINGLE = ("data.resolutions={}", "model.grid.attention_sizes=[12]")
_DFU_PUBLISHED = ("FID 32", "FID 64", "FID 96", "FID 128", "FID 160")
_PRETRAINED = "pretrained"


def _tuned(name: str, weight: float, freeze: str, *published: float) -> Row:
    """A fine-tuning, for a quarter of the budget, at a tenth of the learning rate."""
    settings = (
        "finetune.size=80",
        f"finetune.weight={weight}",
        f"finetune.freeze={freeze}",
        "data.batch_sizes={80: 6}",
        "train.learning_rate=1e-4",
        "train.warmup=0",
    )
    return Row(name, settings, published, start=_PRETRAINED, share=0.25)


TABLES = {
    "infinity-2": AblationTable(
        "∞-Diff, Table 2: the parts of the network",
        config="landscapes_64",
        settings=(*_POINTS, "train.subsample={1: 1, 4: 7}"),
        sizes=(32,),
        latents="real",
        published=("FID_CLIP",),
        rows=(
            Row(
                "sparse downsampling",
                ("model.grid={kind: sparse, channels: 32, multipliers: [1, 2, 2], blocks: 1}",),
                (85.99,),
            ),
            Row("nonlinear kernel", ("model.nonlinear_kernel=true",), (24.49,)),
            Row("quasi-Monte Carlo", ("train.points=halton",), (7.63,)),
            Row("regular convolutions", ("model.depthwise=false",), (5.63,)),
            Row("∞-Diff", (), (4.75,)),
        ),
    ),
    "infinity-3": AblationTable(
        "∞-Diff, Table 3: training on a part of the pixels",
        config="landscapes_64",
        settings=_POINTS,
        sizes=(32,),
        latents="real",
        published=("FID_CLIP", "speedup"),
        rows=(
            Row("all pixels", ("train.subsample=1",), (3.15, 1.0)),
            *_rate("1/2 of the pixels", 2, 4.12, 1.0),
            *_rate("1/4 of the pixels", 4, 4.75, 1.3),
            *_rate("1/8 of the pixels", 8, 6.48, 1.6),
            *_rate("1/16 of the pixels", 16),
        ),
    ),
    "dfu-1": AblationTable(
        "DFU, Table 1: networks across resolutions, trained up to 48 pixels",
        config="dfu_landscapes_64",
        settings=_DFU,
        sizes=_DFU_SIZES,
        latents="model",
        published=_DFU_PUBLISHED,
        rows=(
            Row(
                "single-resolution U-Net, bilinear",
                _SINGLE,
                (2.9, 5.3, 6.4, 14.5, 31.9),
                config="unet_single_landscapes_64",
            ),
            Row("multi-resolution U-Net", (), (2.5, 4.3, 7.5, 25.2, 45.5), config="unet_landscapes_64"),
            Row("FNO U-Net", (), (30.5, 40.1, 31.4, 53.5, 64.1), config="fno_landscapes_64"),
            Row("DFU", ("sample.upscale=none",), (1.47, 2.92, 4.96, 7.85, 14.8)),
        ),
    ),
    "dfu-3": AblationTable(
        "DFU, Table 3: fine-tuning for 80 pixels, trained up to 48",
        config="dfu_landscapes_64",
        settings=(*_DFU, "sample.upscale=none"),
        sizes=_DFU_SIZES,
        latents="model",
        published=_DFU_PUBLISHED,
        rows=(
            Row(_PRETRAINED, (), (1.47, 2.92, 4.96, 7.85, 14.8)),
            _tuned("vanilla fine-tuning (w_R = 1)", 1.0, "none", 20.92, 12.94, 14.96, 32.21, 27.1),
            _tuned("mixed (w_R = 0.2)", 0.2, "none", 1.41, 2.44, 4.66, 7.69, 12.4),
            _tuned("frozen spatial convolutions", 1.0, "spatial", 1.46, 2.85, 4.76, 7.62, 11.9),
            _tuned("frozen and mixed", 0.2, "spatial", 1.36, 2.46, 4.54, 7.06, 11.3),
        ),
    ),
}
# The papers write ∞.
ALIASES = {"∞-2": "infinity-2", "∞-3": "infinity-3"}


def table_of(name: str) -> AblationTable:
    """Return a table by its name. Raises OptionError for one that does not exist."""
    name = ALIASES.get(name, name)
    if name not in TABLES:
        raise OptionError("table", name, f"want one of {', '.join(TABLES)}")
    return TABLES[name]
