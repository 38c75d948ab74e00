"""Evaluation of runs and of folders of images: comparison with real images, and reports."""

from infdiff.evaluation.evaluate import Evaluated, Request, evaluate, finish
from infdiff.evaluation.real_images import SPLITS, RealImages, describe_real, open_real_images
from infdiff.evaluation.report import ReportSubject, save_report
from infdiff.evaluation.results import Evaluation
from infdiff.evaluation.tasks import TASKS

__all__ = [
    "SPLITS",
    "TASKS",
    "Evaluated",
    "Evaluation",
    "RealImages",
    "ReportSubject",
    "Request",
    "describe_real",
    "evaluate",
    "finish",
    "open_real_images",
    "save_report",
]
