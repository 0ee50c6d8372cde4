"""Measurements: `python -m benchmarks NAME` runs `benchmarks/NAME.py`. Never imported by the jobs themselves."""

import ray_jobs  # noqa: F401 - first of all: from here on Ctrl-C is answered in a word
