"""Fields to try the package with, made by a simulation: temperature and vorticity of a stirred sea.

Two-dimensional turbulence on a periodic square, by a pseudo-spectral method: random forcing stirs vorticity at one
scale, drag and hyperviscosity take it away, and the currents carry temperature, which falls from south to north.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from infdiff.seeding import derive_seed, generator_for

NAMES = ("temperature", "vorticity")
UNITS = ("degC", "1e-5/s")

_DAY = 86_400.0
_SIDE = 1.0e6  # of the periodic square, in metres
_MEAN, _GRADIENT = 15.0, 6.0e-6  # of temperature: degrees, and degrees a metre
_FORCED = (6.0, 14.0)  # wavelengths a side
_STRENGTH = 2.0e-5  # standard deviation of vorticity with forcing and drag alone, in 1/s
_DRAG = 6.0 * _DAY
_FINEST = 0.3 * _DAY  # time in which hyperviscosity damps the finest resolved scale
_STEP = 4_000.0
_SPIN_UP, _BETWEEN = 8.0 * _DAY, 1.5 * _DAY
_SNAPSHOTS = 16  # of each simulation
# Parts of the square that become fields: its quarters, which are not periodic.
_QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))
# Swaths that hide pixels: the most of them, and their narrowest and widest, in parts of a side.
_SWATHS, _WIDTHS = 2, (0.08, 0.22)


class Sea:
    """Simulations side by side, (count, 2, side, side)."""

    def __init__(self, count: int, side: int, generator: torch.Generator) -> None:
        self.count, self.side, self.generator = count, side, generator
        unit = 2 * math.pi / _SIDE * side
        rows, columns = unit * torch.fft.fftfreq(side)[:, None], unit * torch.fft.rfftfreq(side)
        squared = rows.square() + columns.square()
        finest = 2 / 3 * math.pi * side / _SIDE  # what products of two fields leave without aliases
        self.gradient = torch.stack([1j * rows.expand_as(squared), 1j * columns.expand_as(squared)])
        self.stream = torch.where(squared > 0, -1 / squared.clamp(min=1e-30), 0.0)
        self.resolved = (rows.abs() <= finest) & (columns.abs() <= finest)
        self.damping = torch.exp(-_STEP * (1 / _DRAG + (squared / finest**2) ** 2 / _FINEST))
        wavelengths = squared.sqrt() * _SIDE / (2 * math.pi)
        self.forced = (wavelengths >= _FORCED[0]) & (wavelengths <= _FORCED[1])
        both = 2 * self.forced[:, 1:].sum() + self.forced[:, 0].sum()  # of all waves, of which half are kept
        self.kick = _STRENGTH * math.sqrt(2 * _STEP / _DRAG) * side / math.sqrt(float(both))
        self.state = torch.zeros(count, 2, *squared.shape, dtype=torch.complex64)

    def snapshots(self, number: int) -> Iterator[Tensor]:
        """Yield float32 values of NAMES in UNITS, first after all began to swirl and then after equal times."""
        for snapshot in range(number):
            for _ in range(round((_BETWEEN if snapshot else _SPIN_UP) / _STEP)):
                self._step()
            vorticity, temperature = self._on_grid(self.state).unbind(1)
            yield torch.stack([_MEAN + temperature, 1e5 * vorticity], dim=1)

    def _step(self) -> None:
        """Move on by Runge and Kutta's method of fourth order; then damp, and force."""
        state, step = self.state, _STEP
        first = self._change(state)
        second = self._change(state + step / 2 * first)
        third = self._change(state + step / 2 * second)
        fourth = self._change(state + step * third)
        state = (state + step / 6 * (first + 2 * second + 2 * third + fourth)) * self.damping
        noise = torch.randn(self.count, self.side, self.side, generator=self.generator)
        state[:, 0] += torch.fft.rfft2(noise) * (self.kick * self.forced)
        self.state = state

    def _change(self, state: Tensor) -> Tensor:
        """Advection of vorticity and of temperature, anomaly and mean, by the currents."""
        down, across = self.gradient
        stream = state[:, :1] * self.stream
        # Rows go from north to south.
        south, east = self._on_grid(torch.cat([across * stream, -down * stream], dim=1)).split(1, dim=1)
        slopes = self._on_grid(torch.cat([down * state, across * state], dim=1))
        to_south, to_east = slopes.split(2, dim=1)
        moved = south * to_south + east * to_east
        moved[:, 1] += _GRADIENT * south[:, 0]
        return -torch.fft.rfft2(moved) * self.resolved

    def _on_grid(self, state: Tensor) -> Tensor:
        return torch.fft.irfft2(state, s=(self.side, self.side))


def simulated_fields(count: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield `count` fields (2, size, size) float32 without holes."""
    quarters = len(_QUARTERS)
    simulations = -(-count // (quarters * _SNAPSHOTS))
    sea = Sea(simulations, 2 * size, generator_for("cpu", seed, "sea"))
    made = 0
    for values in sea.snapshots(-(-count // (quarters * simulations))):
        for field in values.numpy():
            for row, column in _QUARTERS[: count - made]:
                made += 1
                yield field[:, row * size : (row + 1) * size, column * size : (column + 1) * size]


def seen_between_swaths(field: np.ndarray, seed: int, index: int) -> np.ndarray:
    """Return a field (C, H, W) with NaN in one or two straight swaths, which depend on the seed and the index."""
    random = np.random.default_rng(derive_seed(seed, "swaths", index))
    height, width = field.shape[1:]
    y, x = (np.arange(height)[:, None] + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5
    hidden = np.zeros((height, width), bool)
    for _ in range(random.integers(1, _SWATHS + 1)):
        angle, centre, breadth = random.uniform(0, math.pi), random.uniform(-0.5, 0.5), random.uniform(*_WIDTHS)
        hidden |= np.abs(math.cos(angle) * y + math.sin(angle) * x - centre) < breadth / 2
    return np.where(hidden, np.float32(np.nan), field)


def seen_by_gauges(field: np.ndarray, gauges: int, seed: int, index: int) -> np.ndarray:
    """Return a field (C, H, W) with NaN at all pixels but `gauges` of them, drawn from the seed and the index."""
    random = np.random.default_rng(derive_seed(seed, "gauges", index))
    height, width = field.shape[1:]
    hidden = np.ones(height * width, bool)
    hidden[random.choice(height * width, gauges, replace=False)] = False
    return np.where(hidden.reshape(height, width), np.float32(np.nan), field)
