"""One training run, on disk and in memory."""

from infdiff.runs.checkpoint_scores import SmallEvaluation
from infdiff.runs.data import Data, TrainingData, build_data
from infdiff.runs.folder import RUNS, RunFolder
from infdiff.runs.latent_training import build_latent_trainer, encode_run, open_latent_folder
from infdiff.runs.latents import LatentGaussian, LatentModel, LatentSource, latents_of
from infdiff.runs.library import Model
from infdiff.runs.previews import Previews
from infdiff.runs.trained import TrainedModel
from infdiff.runs.training import build_trainer

__all__ = [
    "RUNS",
    "Data",
    "LatentGaussian",
    "LatentModel",
    "LatentSource",
    "Model",
    "Previews",
    "RunFolder",
    "SmallEvaluation",
    "TrainedModel",
    "TrainingData",
    "build_data",
    "build_latent_trainer",
    "build_trainer",
    "encode_run",
    "latents_of",
    "open_latent_folder",
]
