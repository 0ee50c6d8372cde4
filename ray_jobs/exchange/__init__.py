"""Networks given to other programs, and theirs brought here. Knows nothing of training, searches or Ray."""
