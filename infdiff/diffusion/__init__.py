"""Diffusion processes as pure functions over callables."""
