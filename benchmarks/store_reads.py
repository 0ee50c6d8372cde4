"""What reading a patch costs: from the store, for each layout that was considered, and from the node's cache."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.convert import LAYOUTS
from benchmarks.report import report
from storage.cases.info import CaseInfo, Shape
from storage.store.cache import DecodedCaseCache
from storage.store.case_conversion import write_case_array
from storage.store.cohort_store import CohortStore, create_store, open_store
from storage.store.layout import Layout


@dataclass(frozen=True, kw_only=True)
class StorageBenchmark:
    """Measure reads of random patches: from the store by layout, and from the cache of decoded cases."""

    store: str
    """A store made by ray_jobs/convert.py, a path or s3:// URL."""
    cases: int = 4
    """How many of its cases to read."""
    patches: int = 16
    """How many random patches to read in each row."""
    patch_side: int = 128
    """Voxels a side."""
    seed: int = 0
    """Of the patches' places."""
    json: Path | None = None
    """Write the figures to this file, too."""


def run(config: StorageBenchmark) -> None:
    """Measure what reading a patch costs: from the store in each layout considered, and from the node's cache."""
    cpu, wall = time.process_time(), time.perf_counter()
    store = open_store(config.store)
    opened = {"CPU-ms": (time.process_time() - cpu) * 1e3, "wall-ms": (time.perf_counter() - wall) * 1e3}
    case_ids = store.case_ids[: config.cases]
    places = _places(store, case_ids, config)
    shape = (config.patch_side,) * 3
    rows: list[dict[str, Any]] = [{"what": f"open the store ({len(store.case_ids)} cases)", **opened}]
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, layout) in enumerate(LAYOUTS.items()):
            copy = _copy(store, case_ids, layout, Path(folder) / str(number))
            copy.read_patch(case_ids[0], (0, 0, 0), (8, 8, 8))  # the event loop's start is not a read's cost
            rows.append({"what": f"patch from the store: {name}", **_time(copy.read_patch, places, shape)})
            if number == 0:
                cases = [(case_id,) for case_id in case_ids]
                rows.append({"what": "whole case from the store: ours", **_time(copy.read_case, cases)})
        cache = DecodedCaseCache(store, Path(folder) / "cache", max_bytes=1 << 40)
        rows.append({"what": "case into the cache", **_time(cache.read_case, [(case_id,) for case_id in case_ids])})
        rows.append({"what": "patch from the cache", **_time(cache.read_patch, places, shape)})
        again = DecodedCaseCache(open_store(config.store), Path(folder) / "cache", max_bytes=1 << 40)
        rows.append(
            {"what": "first look of another process", **_time(again.read_case, [(case_id,) for case_id in case_ids])}
        )
    side = config.patch_side
    report(f"Reading {len(store.settings.modalities)} x {side} x {side} x {side} patches and cases", rows, config.json)


def _places(store: CohortStore, case_ids: Sequence[str], config: StorageBenchmark) -> list[tuple[str, Shape]]:
    """Random patches that lie inside the stored box where it is large enough."""
    random = np.random.default_rng(config.seed)
    places: list[tuple[str, Shape]] = []
    for _ in range(config.patches):
        case_id = case_ids[int(random.integers(len(case_ids)))]
        room = [max(1, side - config.patch_side + 1) for side in store.info(case_id).shape]
        z, y, x = (int(random.integers(side)) for side in room)
        places.append((case_id, (z, y, x)))
    return places


def _copy(store: CohortStore, case_ids: Sequence[str], layout: Layout, folder: Path) -> CohortStore:
    """The same cases in another layout."""
    copy = create_store(folder, modalities=store.settings.modalities, convention=store.settings.convention)
    infos: dict[str, CaseInfo] = {}
    for case_id in case_ids:
        arrays = store.read_case(case_id)
        records = {"image": write_case_array(copy, case_id, "image", arrays.image_MDHW, layout)}
        if arrays.label_DHW is not None:
            records["label"] = write_case_array(copy, case_id, "label", arrays.label_DHW, layout)
        infos[case_id] = replace(store.info(case_id), arrays=records)
    copy.rebuild_index(infos)
    return copy


def _time(read: Callable[..., Any], places: Sequence[tuple[Any, ...]], *more: Any) -> dict[str, float]:
    """CPU and wall time of one read; the median, since a busy machine disturbs some of them."""
    cpus, walls = [], []
    for place in places:
        cpu, wall = time.process_time(), time.perf_counter()
        read(*place, *more)
        cpus.append(time.process_time() - cpu)
        walls.append(time.perf_counter() - wall)
    return {"CPU-ms": float(np.median(cpus)) * 1e3, "wall-ms": float(np.median(walls)) * 1e3}
