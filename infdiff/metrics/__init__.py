"""Metrics of images: from tensors to numbers."""

from infdiff.metrics.compare import METRICS, Comparison, Description, compare, describe
from infdiff.metrics.distances import Gaussian, frechet_distance, kernel_distance, squared_mmd
from infdiff.metrics.features import NETWORKS, FeatureNetwork, features_of, load_network
from infdiff.metrics.neighbours import mean_distance, memorisation, nearest, precision_and_recall
from infdiff.metrics.similarity import psnr, ssim
from infdiff.metrics.spectrum import radial_spectrum, spectrum_distance

__all__ = [
    "METRICS",
    "NETWORKS",
    "Comparison",
    "Description",
    "FeatureNetwork",
    "Gaussian",
    "compare",
    "describe",
    "features_of",
    "frechet_distance",
    "kernel_distance",
    "load_network",
    "mean_distance",
    "memorisation",
    "nearest",
    "precision_and_recall",
    "psnr",
    "radial_spectrum",
    "spectrum_distance",
    "squared_mmd",
    "ssim",
]
