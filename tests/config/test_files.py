"""What is read is checked, what is saved reads back, and an error is one line."""

from pathlib import Path

import pytest

from infdiff.config.files import changed, config_differences, load_config, save_config
from infdiff.config.settings import InfinityDiffConfig
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
        ("train: {steps: 1, steps: 2}", ["not valid YAML", "steps is there twice"]),
        ("data: {resolutions: {32: 1, '32': 2}}", ["not valid YAML", "32 is there twice"]),
        ("a: &a {b: *a}", ["not valid YAML"]),
        ("a: " * 2000 + "1", ["not valid YAML"]),
        ("a: " + "{b: " * 5000 + "1" + "}" * 5000, ["nested too deeply"]),
        ("a: " + "[" * 20 + "]" * 20, ["nested too deeply"]),
        ("method: edm\nmodel: {kind: grid}", ["unknown key 'model.kind'", "it is now 'method'"]),
        ("model: {kind: neither}", ["method: 'neither'"]),
        ("model: {grid: {modes: 4}}", ["model.grid.modes: goes with model.grid.kind: dfu (here it is unet)"]),
        ("method: edm\nmodel: {z_dim: 8}", ["model.z_dim: goes with method: infinity_diff (here it is edm)"]),
        ("train: {learning_rate: .nan}", ["train.learning_rate: nan: want a finite number"]),
        ("name: !!python/object/apply:os.system [ls]", ["not valid YAML"]),
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


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00n", "name: ü".encode("utf-16"), b"\x80", b"name: \x00", b"a" * (2 << 20)]
)
def test_what_is_no_text_is_refused_with_one_line(tmp_path, content):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(UserError) as error:
        load_config(tmp_path / "c.yaml")
    assert str(error.value).startswith(f"config {tmp_path / 'c.yaml'} ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_device_that_never_ends_is_refused():
    with pytest.raises(UserError, match="larger than a configuration"):
        load_config("/dev/zero")


def test_nothing_in_a_file_is_interpolated(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "s3cret")
    config = load_config(write(tmp_path, "name: ${oc.env:SECRET}"), ["data.path=${oc.env:SECRET}"])
    assert (config.name, config.data.path) == ("${oc.env:SECRET}", "${oc.env:SECRET}")
    save_config(config, tmp_path / "saved.yaml")
    assert "s3cret" not in (tmp_path / "saved.yaml").read_text()
    assert load_config(tmp_path / "saved.yaml") == config


def test_names_of_all_languages_are_kept(tmp_path):
    config = load_config(write(tmp_path, ""), ["name=Gesichter für ∞"])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


def test_numbers_are_numbers_and_text_is_text(tmp_path):
    path = write(tmp_path, "train: {learning_rate: 1e-3, steps: 400_000}")
    train = load_config(path, ["train.clip=2E+1", "train.beta2=.5", "train.subsample=8"]).train
    assert (train.learning_rate, train.steps, train.clip, train.beta2) == (0.001, 400_000, 20.0, 0.5)
    for text in ("train.learning_rate='1e-3'", "train.steps='8'", "train.steps=8.0", "data.flip=1"):
        with pytest.raises(UserError, match="wrong type"):
            load_config(path, [text])
    assert load_config(path, ["data.path="]).data.path == ""


def test_another_kind_on_the_command_line_leaves_out_what_the_file_says_of_the_one_that_it_replaces(tmp_path):
    path = write(tmp_path, "model: {channels: 8, grid: {channels: 24, attention_sizes: [4]}}\ndiffusion: {target: v}")
    config = load_config(path, ["method=edm", "model.grid.kind=dfu", "model.grid.modes=3"])
    assert (config.method, config.model.grid.channels, config.model.grid.modes) == ("edm", 24, 3)
    with pytest.raises(UserError, match="attention_sizes: goes with"):
        load_config(path, ["model.grid.kind=dfu", "model.grid.attention_sizes=[4]"])


def test_a_section_on_the_command_line_adds_to_the_files(tmp_path):
    path = write(tmp_path, "latent: {width: 8, train: {steps: 5}}")
    latent = load_config(path, ["latent={layers: 3, train: {clip: 2}}"]).latent
    assert (latent.width, latent.layers, latent.train.steps, latent.train.clip) == (8, 3, 5, 2)
    # What the file does not say of the latent model's training is as the defaults are there.
    assert (latent.train.batch_size, latent.train.weight_decay, latent.train.bfloat16) == (256, 0.04, False)


def test_a_changed_configuration_is_checked(tmp_path):
    config = load_config(write(tmp_path, ""))
    assert changed(config, {"train.steps": 7, "data.resolutions": {"16": 1}}).data.resolutions == {"16": 1.0}
    assert config.train.steps != 7
    with pytest.raises(UserError, match=r"^train\.steps: 0: want at least 1$"):
        changed(config, {"train.steps": 0})
