"""A page that shows a run while it trains: curves, time left, samples and evaluations."""
