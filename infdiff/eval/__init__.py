"""Measuring what the package does: the speed of its operators."""
