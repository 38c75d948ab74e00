"""Training: objectives, the loop, and what it stores on disk."""

from infdiff.training.checkpoint import best_step, checkpoint_steps, load_tensors, save_checkpoint
from infdiff.training.ema import Ema
from infdiff.training.log import plot_losses, read_log
from infdiff.training.objectives import EDMObjective, LatentObjective, MollifiedObjective
from infdiff.training.settings import OptimiserSettings
from infdiff.training.step import Objective
from infdiff.training.trainer import Step, Trainer

__all__ = [
    "EDMObjective",
    "Ema",
    "LatentObjective",
    "MollifiedObjective",
    "Objective",
    "OptimiserSettings",
    "Step",
    "Trainer",
    "best_step",
    "checkpoint_steps",
    "load_tensors",
    "plot_losses",
    "read_log",
    "save_checkpoint",
]
