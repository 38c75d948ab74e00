"""What a configuration costs: steps of its own training, and of its own sampling, on images of noise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from infdiff.benchmark.cost import Cost, Setting
from infdiff.benchmark.flops import flop_of
from infdiff.benchmark.paper_tables import PaperTable
from infdiff.benchmark.timing import WARM_UP_STEPS, StepTimer, step_repeats, time_steps
from infdiff.config import Config, DataSettings, InfinityDiffConfig, InfinityDiffModel, UNetSettings
from infdiff.config_files import changed
from infdiff.coordinates import Size, format_size
from infdiff.errors import UserError
from infdiff.memory import PeakMemory
from infdiff.methods.checks import check_config, default_batch, sampling_options, tile_rows
from infdiff.methods.method import build_modules, method_of
from infdiff.methods.sizes import batch_sizes, training_size
from infdiff.runs.data import Data
from infdiff.runs.training import build_trainer

# Images to draw batches from: reading them is part of a step, what they show is not.
_IMAGES = 64
# Batches whose memory says how it grows.
_TRIED = (2, 6)
# How often a better batch is looked for, and how much larger it has to be.
_TRIES = 5
_CLOSE = 1.1
# Of a thousand weights: its steps load what the first step of any model loads, 100 MB of libraries on a CPU.
_TINY = InfinityDiffConfig(
    data=DataSettings(size=8),
    model=InfinityDiffModel(
        channels=4,
        kernel_size=3,
        blocks=1,
        condition_dim=4,
        z_dim=4,
        grid_size=4,
        grid=UNetSettings(channels=4, multipliers=(1,), blocks=1, attention_sizes=(4,)),
    ),
)
# Of Table 4 in bytes: the paper's, and one that a small model on a CPU fills in seconds.
BUDGETS = {"cuda": 10_000_000_000, "cpu": 1_000_000_000}


@dataclass(frozen=True)
class Plan:
    """What is measured, and how: measure(setting) gives its cost, None where it does not fit into memory."""

    settings: list[Setting]
    measure: Callable[[Setting], Cost | None]
    device: torch.device
    dtype: torch.dtype  # of the matrix products that a step's FLOP are compared with

    def run(self, on_setting: Callable[[], object] = lambda: None) -> list[Cost | None]:
        """One cost for each setting."""
        costs: list[Cost | None] = []
        small = Setting((8, 8), (4, 4), 4.0, 2)
        training_cost(_TINY, small, self.device, 1)
        sampling_cost(_TINY, small, self.device, 1)
        for setting in self.settings:
            try:
                costs.append(self.measure(setting))
            except torch.OutOfMemoryError:
                costs.append(None)
            on_setting()
        return costs


def plan_training(
    config: Config,
    device: torch.device,
    repeat: int,
    *,
    sizes: Sequence[Size] = (),
    subsamples: Sequence[float] = (),
    batch: int | None = None,
) -> Plan:
    """Every size with every part of the pixels, by default those that the configuration trains on.

    Raises UserError when the configuration cannot work there.
    """
    own = batch_sizes(config)
    settings = [
        Setting(size, _grid_of(config, size), subsample, batch or own.get(size, config.train.batch_size))
        for size in sizes or own
        for subsample in subsamples or [config.subsample]
    ]
    return _checked(config, settings, lambda setting: training_cost(config, setting, device, repeat), device)


def _grid_of(config: Config, size: Size) -> Size:
    """What the grid network works on: the same part of every size."""
    whole, cells = training_size(config), method_of(config).grid()
    return round(size[0] * cells[0] / whole[0]), round(size[1] * cells[1] / whole[1])


def plan_table(
    table: PaperTable, config: Config, device: torch.device, repeat: int, *, batch: int | None, budget: float | None
) -> Plan:
    """A table of the paper for the configuration's training size. budget: in GB, where the table has one.

    Raises UserError when the configuration cannot work at one of the settings.
    """
    if budget is not None and not (table.fitted and budget > 0):
        raise UserError(f"--budget {budget:g}: want more than 0, with --table 4")
    most = int(1e9 * budget) if budget is not None else BUDGETS[device.type]
    grid = method_of(config).grid()
    # Where the batch is fitted, what is left out could not even hold the smallest.
    count = _TRIED[0] if table.fitted else batch or table.batch or config.train.batch_size
    settings = table.settings(training_size(config), grid, count)

    def measure(setting: Setting) -> Cost | None:
        if table.fitted:
            return fitted_cost(config, setting, device, repeat, most)
        return training_cost(config, setting, device, repeat)

    return _checked(config, settings, measure, device)


def plan_sampling(
    config: Config, device: torch.device, repeat: int, *, sizes: Sequence[Size] = (), batch: int | None = None
) -> Plan:
    """The configuration's sampler at every size, by default the training size; batch: by default as `sample.py`'s."""
    check_config(config)
    settings = [
        Setting(size, method_of(config).grid(), 1.0, batch or default_batch(config, size))
        for size in sizes or [training_size(config)]
    ]
    return Plan(settings, lambda setting: sampling_cost(config, setting, device, repeat), device, torch.float32)


def _checked(
    config: Config, settings: list[Setting], measure: Callable[[Setting], Cost | None], device: torch.device
) -> Plan:
    for setting in settings:
        at_setting(config, setting)
    autocast = config.train.bfloat16 and device.type == "cuda"
    return Plan(settings, measure, device, torch.bfloat16 if autocast else torch.float32)


def at_setting(config: Config, setting: Setting) -> Config:
    """The configuration with a setting's size as its only one. Raises UserError when it cannot work there."""
    settings = {
        "data.size": format_size(setting.size),
        "data.resolutions": {},
        "data.batch_sizes": {},
        "train.batch_size": setting.batch,
    }
    if setting.subsample != config.subsample:
        settings["train.subsample"] = setting.subsample
    if isinstance(config, InfinityDiffConfig):
        settings["model.grid_size"] = format_size(setting.grid)
    else:
        settings |= {"finetune.run": "", "finetune.size": 0}
    try:
        at = changed(config, settings)
        check_config(at)
    except UserError as error:
        raise UserError(f"{setting.describe()}: {error}") from error
    return at


def training_cost(config: Config, setting: Setting, device: torch.device, repeat: int) -> Cost:
    """Of whole training steps: loading a batch, forward, backward, clipping, optimiser, average."""
    config = at_setting(config, setting)
    memory = PeakMemory(device)
    images = _Noise(training_size(config), config.seed)
    trainer = build_trainer(config, Data(images, images), Path(), device)
    batches = trainer.batches(0)

    def step() -> None:
        trainer.train_step(batches)

    timing = time_steps(step, device, repeat)
    peak = memory.bytes()
    parameters = sum(p.numel() for p in trainer.parameters)
    return Cost(setting, timing, flop_of(step), peak, parameters, setting.batch * config.train.accumulate)


def sampling_cost(config: Config, setting: Setting, device: torch.device, repeat: int) -> Cost:
    """Of evaluations of the network by the configuration's sampler, with fresh weights and codes of noise."""
    check_config(config)
    memory = PeakMemory(device)
    modules = {name: module.to(device).eval() for name, module in build_modules(config).items()}
    method, options = method_of(config), sampling_options(config)
    if method.most_steps is not None and method.most_steps <= WARM_UP_STEPS:
        raise UserError(f"diffusion.steps: {method.most_steps}: timing takes more than {WARM_UP_STEPS}")
    z = torch.randn(setting.batch, config.latent_dim, device=device) if config.latent_dim else None
    evaluations = method.evaluations(options["steps"])
    for name in ("upscale", "truncation"):
        options.pop(name, None)

    def sample(steps: int, on_step: Callable[[], None]) -> None:
        fixed = {"size": setting.size, "seed": config.seed, "indices": range(setting.batch), "device": device}
        fixed |= {"steps": min(steps, method.most_steps or steps), "tile": tile_rows(config, setting.size)}
        method.generate(modules["denoiser"], z=z, on_step=on_step, **(options | fixed))

    warm, timer = StepTimer(device), StepTimer(device)
    sample(WARM_UP_STEPS + 1, warm.tick)
    sample(1 + step_repeats(warm.timing().minimum / 1000, repeat), timer.tick)
    peak = memory.bytes()
    parameters = sum(p.numel() for p in modules["denoiser"].parameters())
    flop = flop_of(lambda: sample(1, lambda: None))
    return Cost(setting, timer.timing(), flop, peak, parameters, setting.batch, evaluations)


def fitted_cost(config: Config, setting: Setting, device: torch.device, repeat: int, budget: int) -> Cost | None:
    """With a batch whose training takes `budget` bytes, or at most a tenth of its images fewer than would fit.

    None where not even two images fit.
    """

    def cost(batch: int, most: int) -> tuple[Cost, int]:
        found = training_cost(config, replace(setting, batch=batch), device, most)
        if found.peak_bytes is None:
            raise UserError("--table 4 needs to know how much memory is taken, which this method does not tell")
        return found, found.peak_bytes

    (few, more), images = _TRIED, {batch: cost(batch, 1)[1] for batch in _TRIED}
    if images[few] > budget:
        return None
    best, fits, too_large = None, few, sys.maxsize
    each = (images[more] - images[few]) / (more - few)
    for _ in range(_TRIES):
        batch = min(few + int((budget - images[few]) / max(1.0, each)), too_large - 1)
        if batch <= fits * _CLOSE:
            break
        found, peak = cost(batch, repeat)
        each = (peak - images[few]) / (batch - few)
        if peak <= budget:
            best, fits = found, batch
        else:
            too_large = batch
    return best if best is not None else cost(few, repeat)[0]


class _Noise:
    """Images of noise, held in memory, as training examples."""

    def __init__(self, size: Size, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images: Tensor = torch.randint(0, 256, (_IMAGES, 3, *size), dtype=torch.uint8, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Tensor:
        return self.images[place]

    def at(self, size: Size) -> _Noise:
        """These images are of the one size there is."""
        return self

    def take(self, places: Tensor) -> Tensor:
        """(B, 3, H, W) uint8."""
        return self.images[places]
