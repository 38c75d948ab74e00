"""The settings of a run: their names, types and limits; YAML files and `key.path=value`; errors in one line."""
