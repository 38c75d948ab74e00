"""Files appear whole or not at all."""

import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from infdiff.errors import UserError
from infdiff.files import clean_partials, is_empty, make_folder, save_json, save_text, whole_file


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as partial:
        assert partial.parent == tmp_path
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with whole_file(path) as partial:
            partial.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_each_writer_has_a_partial_file_of_its_own(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as first, whole_file(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def test_what_cannot_be_written_is_one_line_that_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"^cannot write .*/absent/a.json: No such file or directory$"):
        save_json(tmp_path / "absent" / "a.json", {})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cannot write .*/file/folder: Not a directory$"):
        make_folder(tmp_path / "file" / "folder")


def test_a_disk_that_is_full_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_text(tmp_path / "a.txt", "text")
    assert not list(tmp_path.iterdir())


def test_devices_pipes_and_folders_are_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    for path in (pipe, link, tmp_path):
        with pytest.raises(UserError, match=r"^cannot write .*: it is not a regular file$"):
            save_text(path, "text")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    file, link = tmp_path / "folder" / "a.txt", tmp_path / "link.txt"
    link.symlink_to(file)
    for text in ("new", "newer"):  # the link's target is first absent, then a file
        save_text(link, text)
        assert link.is_symlink()
        assert file.read_text() == text


def test_a_long_name_has_room_for_its_partial_file(tmp_path):
    save_text(tmp_path / ("n" * 255), "text")


def test_a_new_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other").touch()
    save_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_json_holds_no_number_that_json_lacks(tmp_path):
    path = tmp_path / "a.json"
    save_json(path, {"a": float("nan"), "b": [1.5, (float("inf"), "x")]})
    assert json.loads(path.read_text()) == {"a": None, "b": [1.5, [None, "x"]]}


def test_a_folder_of_partial_files_is_empty(tmp_path):
    with whole_file(tmp_path / "config.yaml") as partial:
        partial.touch()
        assert is_empty(tmp_path)
    assert not is_empty(tmp_path)


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    texts = [str(number) * 10_000 for number in range(8)]
    threads = [threading.Thread(target=save_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    program = f"""
import os, pathlib, sys
from infdiff.files import whole_file
with whole_file(pathlib.Path({str(tmp_path)!r}) / "data.lmdb") as partial:
    partial.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for process in started:
        assert process.stdout.readline() == b"writing\n"
    dead, living = started
    dead.kill()
    dead.communicate()
    other = tmp_path / ".other.1-0a.partial"
    other.touch()
    clean_partials(tmp_path, "data.lmdb")
    left = [path for path in tmp_path.iterdir() if path != other]
    assert len(left) == 1
    assert f".{living.pid}-" in left[0].name
    living.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.1-0a.partial", "data.lmdb"]
    clean_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data.lmdb"]
