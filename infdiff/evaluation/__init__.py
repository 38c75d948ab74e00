"""What `evaluate.py` does: images of runs and folders compared with real ones, and reports on them."""
