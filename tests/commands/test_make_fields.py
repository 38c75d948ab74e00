"""`infdiff make-fields` as users run it."""

import shlex

import numpy as np

from tests.conftest import assert_one_line_error, command_in


def fields_in(folder):
    return np.stack([np.load(path) for path in sorted(folder.iterdir())])


def test_folders_of_fields_that_can_be_prepared(tmp_path):
    command = command_in(tmp_path)
    options = ["--out", "sea", "--n", 9, "--held-out", 5, "--size", 32, "--gauges", 40]
    result = command("make-fields", *options)
    assert result.returncode == 0, result.stderr
    for name, count in (("seen", 9), ("truth", 9), ("complete", 5), ("gauges", 5)):
        fields = fields_in(tmp_path / "sea" / name)
        assert fields.shape == (count, 2, 32, 32)
        missing = np.isnan(fields).all(axis=1).sum(axis=(1, 2))
        assert (missing > 0).all() if name == "seen" else (missing == (984 if name == "gauges" else 0)).all()
    seen, truth = (fields_in(tmp_path / "sea" / name) for name in ("seen", "truth"))
    assert (np.isnan(seen) | (seen == truth)).all()
    # The line that says how to prepare them is true.
    words = shlex.split(result.stdout.partition("to train on: ")[2])
    assert words[0] == "infdiff"
    prepared = command(*words[1:])
    assert prepared.returncode == 0, prepared.stderr
    assert "temperature (degC): normalised (meanstd)" in prepared.stdout
    assert_one_line_error(command("make-fields", *options), "sea is not empty")


def test_bad_options(tmp_path):
    command = command_in(tmp_path)
    assert_one_line_error(command("make-fields", "--out", "a", "--size", 8), "--size 8", "at least 32")
    assert_one_line_error(command("make-fields", "--out", "a", "--gauges", 5000), "--gauges 5000", "1 to 4096")
    assert not (tmp_path / "a").exists()
