"""Every test file is collected: a pattern of pytest's that hides a folder would hide it silently."""

import re
import subprocess
import sys

import pytest

from tests.conftest import COLLECTED, ROOT, all_tests_collected


def uncollected(root, collected):
    """Test files under root/tests that are not among the collected ones."""
    return {path.relative_to(root).as_posix() for path in (root / "tests").rglob("test_*.py")} - collected


def collected_in(root, *options):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options, "tests"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    return set(re.findall(r"^(tests/\S+?\.py)(?=:)", result.stdout, flags=re.MULTILINE))


def test_every_test_file_is_collected(request):
    if not all_tests_collected(request.config):
        pytest.skip("some of the tests were asked for")
    assert uncollected(ROOT, {path.relative_to(ROOT).as_posix() for path in request.config.stash[COLLECTED]}) == set()


def test_a_hidden_folder_would_be_noticed(tmp_path):
    for folder in ("tests/ops", "tests/build"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"test_{folder[6:]}.py").write_text("def test_nothing():\n    pass\n")
    # Pytest's own default skips folders of this name.
    assert uncollected(tmp_path, collected_in(tmp_path)) == {"tests/build/test_build.py"}
    assert uncollected(tmp_path, collected_in(tmp_path, "-o", "norecursedirs=ops")) == {"tests/ops/test_ops.py"}
