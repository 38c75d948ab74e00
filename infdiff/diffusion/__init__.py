"""Diffusion processes as pure functions over callables."""

from infdiff.diffusion.edm import EDM
from infdiff.diffusion.gaussian import GaussianDiffusion
from infdiff.diffusion.guidance import guided
from infdiff.diffusion.measurements import Mask, Measurement, Reduction
from infdiff.diffusion.mollified import TARGETS, MollifiedDiffusion
from infdiff.diffusion.mollifier import Mollifier
from infdiff.diffusion.process import Denoiser, ImageProcess, Network, Noise, PointNetwork, Process, Sample
from infdiff.diffusion.projection import projected
from infdiff.diffusion.samplers import (
    EDM_SAMPLERS,
    SAMPLERS,
    Sampler,
    ddim,
    ddim_inversion,
    ddpm,
    dpm_solver_2m,
    heun,
)
from infdiff.diffusion.schedules import SCHEDULES, alpha_bar, sampling_times, sigma_steps
from infdiff.diffusion.weighting import WEIGHTINGS, Weighting, min_snr, uniform

__all__ = [
    "EDM",
    "EDM_SAMPLERS",
    "SAMPLERS",
    "SCHEDULES",
    "TARGETS",
    "WEIGHTINGS",
    "Denoiser",
    "GaussianDiffusion",
    "ImageProcess",
    "Mask",
    "Measurement",
    "MollifiedDiffusion",
    "Mollifier",
    "Network",
    "Noise",
    "PointNetwork",
    "Process",
    "Reduction",
    "Sample",
    "Sampler",
    "Weighting",
    "alpha_bar",
    "ddim",
    "ddim_inversion",
    "ddpm",
    "dpm_solver_2m",
    "guided",
    "heun",
    "min_snr",
    "projected",
    "sampling_times",
    "sigma_steps",
    "uniform",
]
