"""The sizes that a configuration names."""

from infdiff.config.files import load_config
from infdiff.methods.sizes import point_count, resolutions
from infdiff.shipped import CONFIG_FOLDER


def test_weights_of_resolutions_are_normalised():
    config = load_config(CONFIG_FOLDER / "demo.yaml", ["data.resolutions={32: 1, 48x64: 3, 64: 0}"])
    assert resolutions(config) == {(32, 32): 0.25, (48, 64): 0.75}
    assert resolutions(load_config(CONFIG_FOLDER / "demo.yaml")) == {(64, 64): 1.0}


def test_points_are_a_part_of_the_pixels():
    assert point_count(load_config(CONFIG_FOLDER / "ffhq_256.yaml")) == 256 * 256 // 4
