"""The start of a training: settings that follow from the data, and the run's folder with what the data mean."""

from __future__ import annotations

from pathlib import Path

from infdiff.config.settings import Config
from infdiff.runs.conditions import labels_of, with_label_settings
from infdiff.runs.fields import field_of, with_field_settings
from infdiff.runs.folder import RunFolder
from infdiff.runs.kept_records import keep_record
from infdiff.runs.prepared_data import Say, with_prepared_data


def settled(config: Config, say: Say) -> Config:
    """Return the configuration with data that are prepared, and with the settings that follow from their store.

    say: given a line about each preparation. Raises UserError for data that cannot be read or contradict the settings.
    """
    return with_label_settings(with_field_settings(with_prepared_data(config, say)))


def open_run(folder: Path, config: Config) -> None:
    """Make the folder of a run, or check that it holds one of the same configuration, on data that mean the same.

    Raises UserError as `RunFolder.open_for_training`, and for a run that was trained on other values or labels.
    """
    run = RunFolder.open_for_training(folder, config)
    keep_record(run.field_file, field_of(config), "on fields of another kind or normalisation")
    keep_record(run.labels_file, labels_of(config), "with other labels")
