"""The command `infdiff doctor`, the same as `python -m infdiff.doctor`."""

from infdiff.doctor import main

__all__ = ["main"]
