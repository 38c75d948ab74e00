"""Shared by the commands that make images of a condition: their options, and what a record says of them."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from infdiff.cli import Parser
from infdiff.commands.trainings import say
from infdiff.errors import OptionError
from infdiff.images.field_files import read_field
from infdiff.runs.trained import TrainedModel

_CONDITIONS = ("label", "vector", "condition")


def add_conditions(parser: Parser, weight: str) -> None:
    """Add the options that say what images are of, and the one of classifier-free guidance, which is named `weight`."""
    parser.add_argument("--label", help="of a run with classes: a class, or all for one after the other")
    parser.add_argument("--vector", help="of a run with vectors: its numbers, 1.5,2,3")
    parser.add_argument("--condition", type=Path, metavar="FILE", help="of a run with condition channels: their values")
    parser.add_argument(
        weight,
        type=float,
        help="of classifier-free guidance: 0 unconditional, 1 (default) conditional, more: more closely",
    )


def given_conditions(trained: TrainedModel, arguments: Namespace) -> dict[str, Any]:
    """Return label, vector and values of the condition channels, None where there are none.

    Raises OptionError for what cannot be read, and for condition channels that the run does not have.
    """
    vector, file, values = arguments.vector, arguments.condition, None
    if vector is not None:
        try:
            vector = [float(number) for number in vector.split(",")]
        except ValueError as error:
            raise OptionError("vector", vector, "want numbers: 1.5,2,3") from error
    if file is not None:
        if trained.known_field is None:
            raise OptionError("condition", file, "the run was trained without condition channels")
        values = read_field("condition", file, trained.known_field.channels)
        if missing := int(np.isnan(values).any(axis=0).sum()):
            say(f"note: {file}: {missing} pixels are missing; the network is told that nothing is known there")
    return {"label": arguments.label, "vector": vector, "condition": values}


def recorded_conditions(arguments: Namespace, weight: str) -> dict[str, str]:
    """Return the options of `add_conditions` that were given, for the record next to images."""
    given = {name: getattr(arguments, name) for name in (*_CONDITIONS, weight)}
    return {name: str(value) for name, value in given.items() if value is not None}
