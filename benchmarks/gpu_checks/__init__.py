"""What gpu_check.py runs: each check of the path through a GPU, which knows nothing of the others and not of Ray."""
