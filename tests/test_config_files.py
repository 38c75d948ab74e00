"""What is read is checked, what is saved reads back, and an error is one line."""

from pathlib import Path

import pytest

from infdiff.config import InfinityDiffConfig
from infdiff.config_files import config_differences, load_config, save_config
from infdiff.errors import UserError
from infdiff.shipped import CONFIG_FOLDER


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model: {chanels: 3}", ["model.chanels", "model.channels"]),
        ("modle: {channels: 3}", ["modle"]),
        ("train: {batch_size: many}", ["train.batch_size", "many"]),
        ("train: {batch_size: '8'}", ["train.batch_size", "'8'"]),
        ("train: {steps: 1.5}", ["train.steps"]),
        ("train: {compile: maybe}", ["train.compile"]),
        ("train: 5", ["train"]),
        ("model: {grid: {multipliers: 3}}", ["model.grid.multipliers"]),
        ("- 1", ["keys and values"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, parts):
    with pytest.raises(UserError) as error:
        load_config(write(tmp_path, text))
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("override", ["train.foo=1", "steps", "train.batch_size=x", "data.size=[1,2]"])
def test_mistakes_on_the_command_line_are_named(tmp_path, override):
    with pytest.raises(UserError) as error:
        load_config(write(tmp_path, ""), [override])
    assert override.split("=")[0] in str(error.value)


def test_a_missing_file_lists_what_there_is(tmp_path):
    with pytest.raises(UserError, match="demo"):
        load_config(tmp_path / "no.yaml")


def test_what_is_saved_reads_back(tmp_path):
    config = load_config(write(tmp_path, "data: {size: 32x48}"), ["model.grid.multipliers=[1,2,3]", "train.clip=2e-1"])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert config.train.clip == 0.2


def test_mappings_of_sizes_are_read_replaced_and_added_to(tmp_path):
    path = write(tmp_path, "data: {resolutions: {32: 1, 48x64: 5e-1}, batch_sizes: {32: 8}}")
    config = load_config(path)
    assert (config.data.resolutions, config.data.batch_sizes) == ({"32": 1.0, "48x64": 0.5}, {"32": 8})
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert load_config(path, ["data.resolutions={16: 1}"]).data.resolutions == {"16": 1.0}
    assert load_config(path, ["data.resolutions={}"]).data.resolutions == {}
    assert load_config(path, ["data.resolutions.64=2"]).data.resolutions == {"32": 1.0, "48x64": 0.5, "64": 2.0}
    differences = config_differences(config, load_config(path, ["data.resolutions.32=0"]))
    assert differences == ["data.resolutions: {'32': 1.0, '48x64': 0.5} -> {'32': 0.0, '48x64': 0.5}"]


@pytest.mark.parametrize("text", ["resolutions: [32]", "resolutions: {32: a}", "batch_sizes: {32: 1.5}"])
def test_mappings_of_another_kind_are_named(tmp_path, text):
    with pytest.raises(UserError, match=rf"wrong type for key 'data\.{text.split(':')[0]}.*sizes and"):
        load_config(write(tmp_path, f"data: {{{text}}}"))


def test_differences_are_named():
    other = load_config(CONFIG_FOLDER / "demo.yaml")
    assert config_differences(other, other) == []
    differences = config_differences(InfinityDiffConfig(), other, ignore=["train"])
    assert any(d.startswith("model.channels: 64 -> 32") for d in differences)
    assert not any(d.startswith("train") for d in differences)
