"""A sample that is drawn where one looks: tiles of a pyramid on disk, made when they are asked for."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infdiff.coordinates import Size
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.noise_pyramid import NoisePyramid
from infdiff.diffusion.point_noise import draw_keys
from infdiff.files import make_folder
from infdiff.images.pixels import from_uint8
from infdiff.images.pyramid import Pyramid, halved
from infdiff.images.write import save_png
from infdiff.methods.sampling import SamplingOptions
from infdiff.methods.sizes import training_size
from infdiff.pipelines.generate import generate
from infdiff.pipelines.windows import WindowModel
from infdiff.pipelines.zoom import REFINING_STEPS, Region, refine, with_surroundings
from infdiff.runs.trained import TrainedModel
from infdiff.seeding import generator_for
from infdiff.viewer.pages import write_page


@dataclass(frozen=True)
class Drawing:
    """Progress of the drawing of a tile: `step` of `steps` are done."""

    seed: int
    level: int
    row: int
    column: int
    step: int
    steps: int


Report = Callable[[Drawing], None]


@dataclass(frozen=True)
class Painter:
    """A trained model of ∞-Diff, as it draws an image level by level.

    halvings: levels between the largest one and that of the training size, which is sampled at once.
    """

    trained: TrainedModel
    options: SamplingOptions
    halvings: int

    @property
    def base(self) -> Size:
        """The training size."""
        return training_size(self.trained.config)

    @property
    def size(self) -> Size:
        """Size of the largest level."""
        return self.base[0] << self.halvings, self.base[1] << self.halvings

    @property
    def tile(self) -> int:
        """Pixels along a side of a tile: with its surroundings it is covered by three windows a side."""
        return 2 * max(self.base)

    @property
    def margin(self) -> int:
        """Pixels that a tile is drawn with on each side of it."""
        return max(self.base) // 4

    def window_model(self, size: Size) -> WindowModel:
        """The network in windows of regions of a size; what it precomputes is kept."""
        return self._models(size)

    @cached_property
    def _models(self) -> Callable[[Size], WindowModel]:
        @functools.cache
        def make(size: Size) -> WindowModel:
            model = self.trained.window_model(size, self.options)
            return dataclasses.replace(model, network_for=functools.cache(model.network_for))

        return make

    def latent(self, seed: int) -> Tensor:
        """The latent (1, z_dim) of an image. Raises UserError for a run without encoder."""
        self.trained.require_encoder()
        assert self.trained.latents is not None
        return self.trained.latents.sample(
            [generator_for(self.trained.device, seed, "latent", 0)], self.options.truncation
        )

    def noise(self, seed: int) -> NoisePyramid:
        """The noise of an image, at every size."""
        device = self.trained.device
        return NoisePyramid(draw_keys(1, generator_for("cpu", seed, "zoom"))[0].to(device), self.base)

    @torch.no_grad()
    def first(self, seed: int, on_step: Callable[[], object]) -> Tensor:
        """The image (1, 3, H, W) of the training size, in [-1, 1]."""
        method, size = self.trained.infinity_diff, self.base
        z, process = self.latent(seed), method.process
        network = method.sampled_network(
            self.trained.sampled_denoiser, size, 1, self.trained.device, self.trained.calls
        )
        images = generate(
            lambda x, t: network(x, t, z),
            process,
            size=size,
            seed=seed,
            indices=[0],
            device=self.trained.device,
            sample=method.sampler(self.options),
            start=self.noise(seed).mollified(0, (0, size[0]), (0, size[1]), process.mollifier)[None],
            denoiser=partial(process.denoiser, sharp_at=method.sharp_at(self.options)),
            on_step=on_step,
        )
        return method.deblurred(images, self.options)


class ZoomedImage:
    """One image: its tiles in a folder, each drawn at the first call for it, with those of coarser levels it needs."""

    def __init__(self, painter: Painter, seed: int, folder: Path) -> None:
        self.painter, self.seed = painter, seed
        self.pyramid = Pyramid(folder, painter.size, painter.tile)
        # Of the level that has the training size.
        self.first_level = self.pyramid.levels - painter.halvings
        self.drawn = 0

    def tile(self, level: int, row: int, column: int, report: Report) -> Path:
        """The file of a tile. report: called at each step of drawing; what it raises ends the drawing."""
        path = self.pyramid.path(level, row, column)
        if path.exists():
            return path
        if not (self.pyramid.folder / "index.html").exists():
            self.pyramid.describe()
            write_page(self.pyramid, f"seed {self.seed}")
        if level <= self.first_level:
            self._draw_first(report)
        else:
            self._draw(level, row, column, report)
        return path

    def region(self, level: int, region: Region, report: Report) -> Tensor:
        """A part of a level, (3, h, w) uint8."""
        out, side = torch.empty(3, *region.size, dtype=torch.uint8), self.pyramid.tile
        for row in range(region.top // side, -(-region.bottom // side)):
            for column in range(region.left // side, -(-region.right // side)):
                part = self._part(level, row, column)
                shared = Region(
                    max(part.top, region.top),
                    max(part.left, region.left),
                    min(part.bottom, region.bottom),
                    min(part.right, region.right),
                )
                with Image.open(self.tile(level, row, column, report)) as image:
                    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
                shared.within(region).of(out).copy_(shared.within(part).of(pixels))
        return out

    def _part(self, level: int, row: int, column: int) -> Region:
        side, size = self.pyramid.tile, self.pyramid.size_of(level)
        top, left = row * side, column * side
        return Region(top, left, min(top + side, size[0]), min(left + side, size[1]))

    def _draw_first(self, report: Report) -> None:
        """Sample the level of the training size, and write it and all smaller ones."""
        steps = self.painter.options.evaluations(self.painter.trained.method)
        done = itertools.count(1)
        image = self.painter.trained.as_asked(
            self.painter.first(
                self.seed, lambda: report(Drawing(self.seed, self.first_level, 0, 0, next(done), steps))
            ),
            rounded=True,
        )[0]
        levels = [image]
        for _ in range(self.first_level):
            levels.append(halved(levels[-1]))
        # The smallest first: the one that was asked for is there only when all are.
        for level, reduced in enumerate(reversed(levels)):
            self.pyramid.write_rows(level, 0, reduced)
        self.drawn += 1

    def _draw(self, level: int, row: int, column: int, report: Report) -> None:
        painter, size = self.painter, self.pyramid.size_of(level)
        part = self._part(level, row, column)
        region = with_surroundings(part, size, painter.margin)
        coarse = from_uint8(self.region(level - 1, region.halved(), report))[None].to(painter.trained.device)
        mollifier = Mollifier(painter.trained.infinity_diff.process.mollifier.sigma, size)
        rows, columns = (region.top, region.bottom), (region.left, region.right)
        noise = painter.noise(self.seed).mollified(level - self.first_level, rows, columns, mollifier)[None]
        report(Drawing(self.seed, level, row, column, 0, REFINING_STEPS))
        done = itertools.count(1)
        image = refine(
            coarse,
            noise,
            painter.window_model(region.size),
            on_step=lambda: report(Drawing(self.seed, level, row, column, next(done), REFINING_STEPS)),
        )
        path = self.pyramid.path(level, row, column)
        make_folder(path.parent)
        save_png(part.within(region).of(self.painter.trained.as_asked(image, rounded=True)[0]), path)
        self.drawn += 1
