"""Meaning of a configuration: ∞-Diff, or grid networks with EDM. Settings in, networks and processes out."""
