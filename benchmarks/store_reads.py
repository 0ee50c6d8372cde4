"""What reading a patch costs: from the store, and from the node's cache of decoded cases."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.cost import Cost, time_call
from benchmarks.report import report
from benchmarks.settings import StoreReadsBenchmark
from benchmarks.stores import ENOUGH_BYTES
from storage.cases.info import CaseArrays, Shape
from storage.cases.patch import cut_patch
from storage.store.cache import DecodedCaseCache
from storage.store.cohort_store import CohortStore, open_store


def run(config: StoreReadsBenchmark) -> None:
    """Read random patches and whole cases by each way there is."""
    opening = time_call(lambda: open_store(config.store))
    store = open_store(config.store)
    case_ids = store.case_ids[: config.cases]
    store.read_patch(case_ids[0], (0, 0, 0), (8, 8, 8))  # the event loop's start is not a read's cost
    cases = [(case_id,) for case_id in case_ids]
    shape = (config.patch_side,) * 3
    patches = [(case_id, origin, shape) for case_id, origin in random_places(store, case_ids, config)]
    with tempfile.TemporaryDirectory() as folder:
        cache, again = (
            DecodedCaseCache(each, Path(folder), max_bytes=ENOUGH_BYTES) for each in (store, open_store(config.store))
        )

        def cached_patch(case_id: str, origin: Shape, shape: Shape) -> CaseArrays:
            return cut_patch(cache.read_case(case_id), origin, shape)

        costs = {
            f"open the store ({len(store.case_ids)} cases)": opening,
            "patch from the store": median_cost(store.read_patch, patches),
            "whole case from the store": median_cost(store.read_case, cases),
            "case into the cache": median_cost(cache.read_case, cases),
            "patch from the cache": median_cost(cached_patch, patches),
            "first look of another process": median_cost(again.read_case, cases),
        }
    rows = [{"what": what, "CPU-ms": 1000 * cost.cpu, "wall-ms": 1000 * cost.wall} for what, cost in costs.items()]
    sides = " x ".join(map(str, (len(store.settings.modalities), *shape)))
    report(f"Reading {sides} patches and cases", rows, config.json)


def random_places(store: CohortStore, case_ids: Sequence[str], config: StoreReadsBenchmark) -> list[tuple[str, Shape]]:
    """Random patches that lie inside the stored box where it is large enough."""
    random = np.random.default_rng(0)
    places: list[tuple[str, Shape]] = []
    for _ in range(config.patches):
        case_id = case_ids[int(random.integers(len(case_ids)))]
        room = [max(1, side - config.patch_side + 1) for side in store.info(case_id).shape]
        z, y, x = (int(random.integers(side)) for side in room)
        places.append((case_id, (z, y, x)))
    return places


def median_cost(read: Callable[..., object], reads: Sequence[tuple[Any, ...]]) -> Cost:
    """Of one read; the median, since a busy machine disturbs some of them."""
    costs = [time_call(partial(read, *each)) for each in reads]
    return Cost(cpu=median(cost.cpu for cost in costs), wall=median(cost.wall for cost in costs))
