"""The settings of a run: their names, types and limits; YAML files and `key.path=value`; errors in one line."""

from infdiff.config.files import changed, config_differences, load_config, save_config
from infdiff.config.settings import Config, EDMConfig, InfinityDiffConfig

__all__ = [
    "Config",
    "EDMConfig",
    "InfinityDiffConfig",
    "changed",
    "config_differences",
    "load_config",
    "save_config",
]
