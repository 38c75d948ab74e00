"""Installs from pyproject.toml; kept for tools that call it."""

from setuptools import setup

setup()
