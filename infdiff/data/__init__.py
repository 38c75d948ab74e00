"""Images on disk: the LMDB store, what fills it, and batches in a reproducible order."""
