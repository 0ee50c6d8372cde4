"""One training run, from its decisions to its summary. Knows nothing of searches."""
