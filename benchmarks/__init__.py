"""Measurements: `python -m benchmarks NAME` runs `benchmarks/NAME.py`. Never imported by the jobs themselves."""
