"""A run directory has one owner, whose lock ends with its process."""

import os
import signal
import socket
import time

import pytest

from infdiff import files
from infdiff.errors import UserError
from infdiff.runs.folder import RunFolder
from infdiff.runs.owner import owning
from tests.conftest import TINY, assert_one_line_error, copy_of
from tests.forking import Forked

HOLD = """
import os, pathlib, sys, time
from infdiff.runs.owner import owning
parent = os.getppid()
with owning(pathlib.Path(sys.argv[1]), force=False, say=print):
    pathlib.Path(sys.argv[2]).touch()
    while os.getppid() == parent:
        time.sleep(0.1)
"""


@pytest.fixture
def hold(tmp_path_factory):
    """Own a directory in another process, until it is killed or the test ends."""
    started, own = [], tmp_path_factory.mktemp("hold")
    (own / "hold.py").write_text(HOLD)

    def start(folder):
        owned = own / f"owned-{len(started)}"
        process = Forked(own / "hold.py", folder, owned, folder=own, environment=os.environ)
        started.append(process)
        while not owned.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_training_is_refused_until_the_first_one_ends(command, hold, tmp_path):
    owner = hold(tmp_path / "r")
    given = ("train", "--out", "r", "--steps", 1, *TINY)
    named = (f"process {owner.pid} on {socket.gethostname()} is training there", "--force")
    assert_one_line_error(command(*given), *named)
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["owner.lock"]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert command(*given).returncode == 0
    assert command(*given).returncode == 0  # its own lock is no obstacle either


def test_force_says_what_it_would_break_and_goes_on(command, hold, tmp_path):
    owner = hold(tmp_path / "r")
    result = command("train", "--out", "r", "--steps", 1, "--force", *TINY)
    assert result.returncode == 0
    assert f"warning: --force: process {owner.pid}" in result.stderr
    assert "in danger" in result.stderr


def test_readers_need_no_lock_and_the_latent_model_has_its_own(command, hold, points_run, tmp_path):
    run = copy_of(points_run, tmp_path)
    hold(run)
    assert command("sample", "--run", run, "--steps", 1, "--out", "o").returncode == 0
    small = ["latent.width=16", "latent.layers=3", "latent.train.batch_size=8"]
    assert command("train-latent", "--run", run, "--steps", 1, *small).returncode == 0
    hold(RunFolder(run).latents(2).path)
    assert_one_line_error(command("train-latent", "--run", run, "--steps", 2, *small), "is training there")


def test_without_locks_a_line_says_so_and_training_goes_on(tmp_path, monkeypatch):
    def none(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", none)
    said = []
    with owning(tmp_path / "r", force=False, say=said.append):
        said.append("training")
    assert len(said) == 2
    assert "without locks" in said[0]


def test_a_folder_of_something_else_gets_no_lock(command, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").touch()
    assert_one_line_error(command("train", "--out", "r", *TINY), "is not empty")
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path):
    (tmp_path / "owner.lock").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*owner.lock"), owning(tmp_path, force=False, say=print):
        pass


def test_a_model_too_large_for_the_memory_leaves_no_configuration(command, tmp_path):
    """So that the corrected call is not refused for its other settings."""
    assert_one_line_error(command("train", "--out", "r", *TINY, "model.channels=100000000"), "out of memory")
    assert not (tmp_path / "r" / "config.yaml").exists()
    assert command("train", "--out", "r", "--steps", 1, *TINY).returncode == 0
