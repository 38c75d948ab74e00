"""What a configuration means: ∞-Diff, and grid networks with EDM. Settings in, networks and processes out."""
