"""Training: the objective, the loop, and what it keeps on disk."""
