"""Modules that a search made before the rooms names in its pickles, and where they are now: the only place that knows.

Tune pickles our scheduler and callback into tuner.pkl. Stores, checkpoints and runs hold JSON and tensors, no module.
"""

import importlib
import sys

MOVED = {
    "ray_jobs.search_scheduler": "ray_jobs.searching.scheduler",
    "ray_jobs.search_progress": "ray_jobs.searching.trial_progress",
}


def know_old_names() -> None:
    """Let pickles find what they name under its old module."""
    for old, new in MOVED.items():
        sys.modules.setdefault(old, importlib.import_module(new))
