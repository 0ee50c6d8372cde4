"""The cores that this process may compute on."""

import os


def share_of_cores(workers: int) -> int:
    """Return how many threads each of `workers` on this machine may compute with."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)
