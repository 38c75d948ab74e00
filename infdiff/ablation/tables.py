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


# A side of half of the paper's 64 to 128 pixels, the encoder's sketch and the grid in the same proportion.
_POINTS = ("data.size=32", "model.grid_size=32", "model.sketch_side=8")
# Half of the paper's 32 to 160 pixels.
_DFU = ("data.size=48", "data.resolutions={16: 1, 24: 1, 32: 1, 40: 1, 48: 1}", "train.optimiser=muon")
_DFU_SIZES = (16, 24, 32, 48, 64, 80)
_SINGLE = ("data.resolutions={}", "model.grid.attention_sizes=[12]")
_TUNED = ("finetune.size=80", "data.batch_sizes={80: 6}", "train.learning_rate=1e-4", "train.warmup=0")

TABLES = {
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
        published=("FID 32", "FID 64", "FID 96", "FID 128", "FID 160"),
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
}
# The papers write ∞.
ALIASES = {"∞-3": "infinity-3"}


def table_of(name: str) -> AblationTable:
    """Return a table by its name. Raises OptionError for one that does not exist."""
    name = ALIASES.get(name, name)
    if name not in TABLES:
        raise OptionError("table", name, f"want one of {', '.join(TABLES)}")
    return TABLES[name]
