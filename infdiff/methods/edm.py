"""DFU and its baselines (method: edm): a grid network alone, on whole images, with EDM."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from infdiff.config import EDMConfig
from infdiff.coordinates import Size, format_size
from infdiff.diffusion.edm import EDM
from infdiff.diffusion.mollifier import Mollifier
from infdiff.errors import UserError
from infdiff.methods.finetune import check_finetune
from infdiff.methods.grid_networks import grid_network
from infdiff.methods.sizes import largest, resolutions, training_size
from infdiff.models import GridDenoiser
from infdiff.pipelines.generate_edm import generate_edm
from infdiff.training.objectives import EDMObjective


class EDMMethod:
    """See `build.method.Method`."""

    samplers = ("heun",)
    options = ("sampler", "steps", "churn")

    def __init__(self, config: EDMConfig) -> None:
        self.config = config

    @cached_property
    def process(self) -> EDM:
        e = self.config.edm
        mollified = e.noise == "mollified"
        mollifier = Mollifier(e.mollifier_sigma, training_size(self.config)) if mollified else None
        return EDM(sigma_data=e.data_std, P_mean=e.log_mean, P_std=e.log_std, mollifier=mollifier)

    def check(self) -> None:
        config = self.config
        top, size = largest(resolutions(config)), training_size(config)
        if size != top:
            raise UserError(
                f"data.size: {format_size(size)} is not the largest of data.resolutions: with method: edm, set it to "
                f"{format_size(top)}"
            )
        check_finetune(config)

    def grid(self) -> Size:
        return training_size(self.config)

    def top_grid(self) -> Size:
        return self.grid()

    @property
    def most_steps(self) -> None:
        return None

    def check_options(self, options: Mapping[str, Any], deblur: bool) -> None:
        if not options["churn"] >= 0:
            raise UserError(f"--churn {options['churn']:g}: want 0 (deterministic) or more")
        if deblur and self.config.edm.noise != "mollified":
            raise UserError("--deblur: the run was trained with edm.noise white, so there is no mollifier to undo")

    def networks(self) -> dict[str, nn.Module]:
        model = self.config.model
        network = grid_network(
            model.grid,
            in_channels=3,
            out_channels=3,
            size=self.top_grid(),
            condition_dim=model.condition_dim,
            layout=False,
        )
        return {"denoiser": GridDenoiser(network, condition_dim=model.condition_dim)}

    def trace(self, modules: Mapping[str, nn.Module], size: Size) -> Tensor:
        return modules["denoiser"](torch.empty(1, 3, *size, device="meta"), torch.empty(1, device="meta"))

    def objective(self) -> EDMObjective:
        return EDMObjective(self.process, flip=self.config.data.flip)

    def generate(self, denoiser: nn.Module, *, z: None, sampler: str, tile: None = None, **options: Any) -> Tensor:
        edm = self.config.edm
        levels = {"sigma_min": edm.sigma_min, "sigma_max": edm.sigma_max, "rho": edm.rho}
        return generate_edm(denoiser, self.process, **levels, **options)

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def deblur(self, images: Tensor) -> Tensor:
        return self.process.mollifier.wiener_inverse(images, self.config.sample.deblur_epsilon)

    def strip_rows(self, size: Size) -> None:
        return None

    def feature_bytes(self, size: Size) -> int:
        # Skip connections of all levels, the lower ones a quarter of the one above, and what a block works on.
        grid = self.config.model.grid
        features_held = 2 * grid.blocks + 8
        return size[0] * size[1] * grid.channels * grid.multipliers[0] * 4 * features_held
