"""Configuration -> objects. The only part of the package that knows the configuration and maps names to classes."""

from infdiff.build.check import (
    UPSCALES,
    check_config,
    check_enlarging,
    check_guidance,
    check_latent,
    config_warnings,
    default_batch,
    sampling_options,
    tile_rows,
)
from infdiff.build.dry_run import dry_run
from infdiff.build.latent_training import build_latent_trainer, encode_run, open_latent_folder
from infdiff.build.objects import Data, build_data, build_modules
from infdiff.build.run import RUNS, Run, newest_run, open_for_training
from infdiff.build.sizes import describe_points, grid_size, point_count, training_size
from infdiff.build.system import SAMPLERS, System, system_of
from infdiff.build.training import build_trainer

__all__ = [
    "RUNS",
    "SAMPLERS",
    "UPSCALES",
    "Data",
    "Run",
    "System",
    "build_data",
    "build_latent_trainer",
    "build_modules",
    "build_trainer",
    "check_config",
    "check_enlarging",
    "check_guidance",
    "check_latent",
    "config_warnings",
    "default_batch",
    "describe_points",
    "dry_run",
    "encode_run",
    "grid_size",
    "newest_run",
    "open_for_training",
    "open_latent_folder",
    "point_count",
    "sampling_options",
    "system_of",
    "tile_rows",
    "training_size",
]
