"""Measuring what the package does: how good its images are, and how fast its operators."""
