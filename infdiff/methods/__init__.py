"""Meaning of a configuration: ∞-Diff, or grid networks with EDM. Settings in, networks and processes out."""

from infdiff.methods.checks import check_config, config_warnings
from infdiff.methods.edm import EDMMethod
from infdiff.methods.infinity_diff import InfinityDiff
from infdiff.methods.method import Method, build_modules, method_of
from infdiff.methods.sampling import SamplingOptions

__all__ = [
    "EDMMethod",
    "InfinityDiff",
    "Method",
    "SamplingOptions",
    "build_modules",
    "check_config",
    "config_warnings",
    "method_of",
]
