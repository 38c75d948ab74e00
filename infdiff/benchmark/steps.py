"""Measure the cost of a configuration: steps of its training and of its sampling, on images of noise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from infdiff.benchmark.cost import Setting, StepCost
from infdiff.benchmark.flops import flop_of
from infdiff.benchmark.paper_tables import PaperTable
from infdiff.benchmark.timing import WARM_UP_STEPS, StepTimer, step_repeats, time_steps
from infdiff.config.files import changed
from infdiff.config.settings import Config, DataSettings, InfinityDiffConfig, InfinityDiffModel, UNetSettings
from infdiff.coordinates import Size, format_size
from infdiff.cuda_graphs import RepeatedCalls, recorder_for
from infdiff.errors import OptionError, UserError
from infdiff.memory import PeakMemory
from infdiff.methods.checks import check_config
from infdiff.methods.method import build_modules, method_of
from infdiff.methods.sampling import SamplingOptions, default_batch
from infdiff.methods.sizes import batch_sizes, training_size
from infdiff.precision import with_bfloat16_weights
from infdiff.runs.data import Data
from infdiff.runs.training import build_trainer

# Images to draw batches from: fewer of large ones.
_IMAGES = 64
_FEWEST_IMAGES = 2
_PIXELS = 1 << 24
# Batch sizes from which the growth of memory is estimated.
_TRIED = (2, 6)
# Attempts to find a larger batch, and the least factor by which it has to grow.
_TRIES = 5
_CLOSE = 1.1
# A model of a thousand weights. Its steps load the libraries of any first step, 100 MB on a CPU.
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
# Memory budgets of Table 4 in bytes: that of the paper, and one that a small model on a CPU fills in seconds.
BUDGETS = {"cuda": 10_000_000_000, "cpu": 1_000_000_000}


@dataclass(frozen=True)
class StepPlan:
    """Settings to measure; measure(setting) returns its cost, or None if it does not fit into memory."""

    settings: list[Setting]
    measure: Callable[[Setting], StepCost | None]
    device: torch.device
    dtype: torch.dtype  # of the matrix products that a step's FLOP are compared with

    def run(self, on_setting: Callable[[], object] = lambda: None) -> list[StepCost | None]:
        """Return the cost of each setting."""
        costs: list[StepCost | None] = []
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
    points: int | None = None,
) -> StepPlan:
    """Plan every size with every subsampling, by default those that the configuration trains on.

    points: instead, this many of an image of any size, on one grid, with a mollifier of one width on the unit square.
    Raises UserError when the configuration cannot work there.
    """
    own = batch_sizes(config)
    if points is not None:
        if subsamples:
            raise OptionError("points", points, "sets the rates itself; leave out --subsample")
        given = [
            Setting(size, method_of(config).grid(), prod(size) / points, batch or config.train.batch_size)
            for size in sizes or own
        ]
        return _checked(config, given, lambda s: training_cost(_widened(config, s.size), s, device, repeat), device)
    settings = [
        Setting(size, _grid_of(config, size), subsample, batch or own.get(size, config.train.batch_size))
        for size in sizes or own
        for subsample in subsamples or config.subsample_rates
    ]
    return _checked(config, settings, lambda setting: training_cost(config, setting, device, repeat), device)


def _widened(config: Config, size: Size) -> Config:
    """The configuration with a mollifier as wide, on images of a size, as it is on those of the training size."""
    if not isinstance(config, InfinityDiffConfig):
        return config
    return changed(config, {"diffusion.sigma": config.diffusion.sigma * size[0] / training_size(config)[0]})


def _grid_of(config: Config, size: Size) -> Size:
    """Return the size of the grid, in the same proportion to every size."""
    full, cells = training_size(config), method_of(config).grid()
    return round(size[0] * cells[0] / full[0]), round(size[1] * cells[1] / full[1])


def plan_table(
    table: PaperTable, config: Config, device: torch.device, repeat: int, *, batch: int | None, budget: float | None
) -> StepPlan:
    """Plan a table of the paper for the training size of the configuration. budget: in GB, if the table has one.

    Raises UserError when the configuration cannot work at one of the settings.
    """
    if budget is not None and not (table.fitted and budget > 0):
        raise OptionError("budget", f"{budget:g}", "want more than 0, with --table 4")
    most = int(1e9 * budget) if budget is not None else BUDGETS[device.type]
    grid = method_of(config).grid()
    # If the batch is fitted, a setting that is left out does not even fit with the smallest batch.
    count = _TRIED[0] if table.fitted else batch or table.batch or config.train.batch_size
    settings = table.settings(training_size(config), grid, count)

    def measure(setting: Setting) -> StepCost | None:
        if table.fitted:
            return fitted_cost(config, setting, device, repeat, most)
        return training_cost(config, setting, device, repeat)

    return _checked(config, settings, measure, device)


def plan_sampling(
    config: Config, device: torch.device, repeat: int, *, sizes: Sequence[Size] = (), batch: int | None = None
) -> StepPlan:
    """Plan the sampler of the configuration at every size, by default the training size and the batch of `sample`."""
    check_config(config)
    method = method_of(config)
    settings = [
        Setting(size, method.grid(), 1.0, batch or default_batch(method, size))
        for size in sizes or [training_size(config)]
    ]
    dtype = torch.bfloat16 if config.train.samples_in_bfloat16(device) else torch.float32
    return StepPlan(settings, lambda setting: sampling_cost(config, setting, device, repeat), device, dtype)


def _checked(
    config: Config, settings: list[Setting], measure: Callable[[Setting], StepCost | None], device: torch.device
) -> StepPlan:
    for setting in settings:
        at_setting(config, setting)
    dtype = torch.bfloat16 if config.train.uses_bfloat16(device) else torch.float32
    return StepPlan(settings, measure, device, dtype)


def at_setting(config: Config, setting: Setting) -> Config:
    """Return the configuration with the sizes of a setting. Raises UserError when it cannot work with them."""
    settings = {
        "data.size": format_size(setting.size),
        "data.resolutions": {},
        "data.batch_sizes": {},
        "train.batch_size": setting.batch,
    }
    if config.subsample_rates.keys() != {setting.subsample}:
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


def training_cost(config: Config, setting: Setting, device: torch.device, repeat: int) -> StepCost:
    """Measure training steps: loading a batch, forward, backward, clipping, optimiser, EMA.

    The memory is that of the steps, without the data set's.
    """
    config = at_setting(config, setting)
    images = _Noise(training_size(config), config.seed)
    memory = PeakMemory(device)
    trainer = build_trainer(config, Data(images, images), Path(), device)
    batches = trainer.batches(0)
    memory.reset()

    def step() -> None:
        trainer.train_step(batches)

    timing = time_steps(step, device, repeat)
    peak = memory.bytes()
    parameters = sum(p.numel() for p in trainer.parameters)
    return StepCost(setting, timing, flop_of(step), peak, parameters, setting.batch * config.train.accumulate)


def sampling_cost(config: Config, setting: Setting, device: torch.device, repeat: int) -> StepCost:
    """Measure evaluations of the network by the sampler, with untrained weights and random latents."""
    check_config(config)
    memory = PeakMemory(device)
    modules = {name: module.to(device).eval() for name, module in build_modules(config).items()}
    method = method_of(config)
    options = SamplingOptions.of(method, setting.size, upscale="none")
    if method.most_steps is not None and method.most_steps <= WARM_UP_STEPS:
        raise UserError(f"diffusion.steps: {method.most_steps}: timing takes more than {WARM_UP_STEPS}")
    z = torch.randn(setting.batch, config.latent_dim, device=device) if config.latent_dim else None
    evaluations = options.evaluations(method)
    denoiser, recorder = modules["denoiser"], recorder_for(device)
    calls = None if recorder is None else RepeatedCalls(recorder, most=1)
    if config.train.samples_in_bfloat16(device):
        denoiser = with_bfloat16_weights(denoiser)

    def sample(steps: int, on_step: Callable[[], None]) -> None:
        method.generate(
            denoiser,
            size=setting.size,
            seed=config.seed,
            indices=range(setting.batch),
            z=z,
            device=device,
            options=replace(options, steps=min(steps, method.most_steps or steps)),
            on_step=on_step,
            calls=calls,
        )

    warm, timer = StepTimer(device), StepTimer(device)
    sample(WARM_UP_STEPS + 1, warm.tick)
    sample(1 + step_repeats(warm.timing().minimum / 1000, repeat), timer.tick)
    peak = memory.bytes()
    parameters = sum(p.numel() for p in modules["denoiser"].parameters())
    flop = flop_of(lambda: sample(1, lambda: None))
    return StepCost(setting, timer.timing(), flop, peak, parameters, setting.batch, evaluations)


def fitted_cost(config: Config, setting: Setting, device: torch.device, repeat: int, budget: int) -> StepCost | None:
    """Measure training with the largest batch that fits into `budget` bytes, to within a tenth.

    Returns None if not even two images fit.
    """

    def cost(batch: int, most: int) -> tuple[StepCost, int]:
        found = training_cost(config, replace(setting, batch=batch), device, most)
        if found.peak_bytes is None:
            raise OptionError("table", 4, "needs the peak memory, which this system does not report")
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

    labels: Tensor | None = None

    def __init__(self, size: Size, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        count = min(_IMAGES, max(_FEWEST_IMAGES, _PIXELS // prod(size)))
        self.images: Tensor = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)

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
