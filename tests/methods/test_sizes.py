"""The sizes that a configuration names."""

from infdiff.config.files import load_config
from infdiff.methods.sizes import point_count, reads_points, resolutions
from infdiff.shipped import CONFIG_FOLDER


def test_weights_of_resolutions_are_normalised():
    config = load_config(CONFIG_FOLDER / "demo.yaml", ["data.resolutions={32: 1, 48x64: 3, 64: 0}"])
    assert resolutions(config) == {(32, 32): 0.25, (48, 64): 0.75}
    assert resolutions(load_config(CONFIG_FOLDER / "demo.yaml")) == {(64, 64): 1.0}


def test_points_are_a_part_of_the_pixels():
    assert point_count(load_config(CONFIG_FOLDER / "ffhq_256.yaml")) == 256 * 256 // 4


def test_points_alone_are_read_where_there_are_many_pixels_for_each():
    """The published settings make noise of all pixels; only large images at a few points do not."""
    for path in sorted(CONFIG_FOLDER.glob("*.yaml")):
        config = load_config(path)
        if config.name != "landscapes_native":
            assert not any(reads_points(config, size, 64) for size in resolutions(config))
    config = load_config(CONFIG_FOLDER / "demo.yaml")
    assert reads_points(config, (720, 1440), 100)
    assert reads_points(config, (512, 512), 32)
    assert not reads_points(config, (720, 1440), 31)
    assert not reads_points(config, (511, 512), 100)
    white = load_config(CONFIG_FOLDER / "demo.yaml", ["diffusion.target=noise"])
    assert not reads_points(white, (720, 1440), 100)
    assert not reads_points(load_config(CONFIG_FOLDER / "dfu_ffhq_96.yaml"), (720, 1440), 100)
