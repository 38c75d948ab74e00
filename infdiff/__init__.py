"""infdiff: diffusion models over functions, trained on subsets of pixels, sampled at any size."""

__version__ = "0.1.0"
