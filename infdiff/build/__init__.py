"""Configuration -> objects. The only part of the package that knows the configuration and maps names to classes."""
