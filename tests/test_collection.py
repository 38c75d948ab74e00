"""Every test file is collected: a pattern of pytest's that hides a folder would hide it silently."""

import re
import subprocess
import sys

from tests.conftest import ROOT


def uncollected(root, *options):
    """Test files under root/tests in which pytest finds no test."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options, "tests"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    collected = set(re.findall(r"^(tests/\S+?\.py)(?=:)", result.stdout, flags=re.MULTILINE))
    return {path.relative_to(root).as_posix() for path in (root / "tests").rglob("test_*.py")} - collected


def test_every_test_file_is_collected():
    assert uncollected(ROOT, "-m", "long or not long") == set()


def test_a_hidden_folder_would_be_noticed(tmp_path):
    for folder in ("tests/ops", "tests/build"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"test_{folder[6:]}.py").write_text("def test_nothing():\n    pass\n")
    assert uncollected(tmp_path) == {"tests/build/test_build.py"}  # pytest's own default skips folders of this name
    assert uncollected(tmp_path, "-o", "norecursedirs=ops") == {"tests/ops/test_ops.py"}
