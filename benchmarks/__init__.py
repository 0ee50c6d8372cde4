"""Measurements, each a command of `python ray_jobs/benchmark.py`. Never imported by the jobs themselves."""
