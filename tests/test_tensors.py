"""Tensors come back as they were written, or not at all."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from infdiff.errors import UserError
from infdiff.tensors import DamagedFileError, read_tensors, save_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor(3), "c": torch.zeros(2, dtype=torch.bfloat16)}


@pytest.fixture(params=["atomic", "plain"])
def file(request, tmp_path):
    path = tmp_path / "a.safetensors"
    if request.param == "atomic":
        save_tensors(path, TENSORS, {"step": "3"})
    else:
        write_tensors(path, TENSORS)
    return path


def test_tensors_and_what_is_said_of_them_come_back(file):
    tensors, _ = read_tensors(file, ("a", "b"))
    assert tensors.keys() == TENSORS.keys()
    for found in (tensors, load_file(file)):  # as any program reads it, too
        assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert [path.name for path in file.parent.iterdir()] == ["a.safetensors"]


def test_metadata_comes_back(tmp_path):
    save_tensors(tmp_path / "a", TENSORS, {"step": "3"})
    assert read_tensors(tmp_path / "a")[1] == {"step": "3"}


def test_no_flipped_bit_and_no_missing_end_goes_unnoticed(file):
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            found, _ = read_tensors(file)
        except DamagedFileError:
            continue
        # A bit of the file's layout that changes nothing, such as a space for padding.
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError):
            read_tensors(file)


def test_files_without_a_checksum_are_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a")
    assert torch.equal(read_tensors(tmp_path / "a", ("a",))[0]["a"], torch.ones(2))
    with pytest.raises(DamagedFileError, match="no tensor b"):
        read_tensors(tmp_path / "a", ("a", "b"))
    with pytest.raises(OSError, match="No such file"):
        read_tensors(tmp_path / "b")


def test_tensors_that_cannot_be_written_are_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        save_tensors(tmp_path / "absent" / "a.safetensors", TENSORS)


def test_the_same_content_is_the_same_bytes(tmp_path):
    for number in range(8):
        save_tensors(tmp_path / str(number), TENSORS, {"title": "é", "step": "3", "encoder": "a", "from": '"'})
    contents = {(tmp_path / str(number)).read_bytes() for number in range(8)}
    assert len(contents) == 1
    found = load_file(tmp_path / "0")  # by the library, whose alignment it keeps
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert read_tensors(tmp_path / "0")[1] == {"title": "é", "step": "3", "encoder": "a", "from": '"'}
