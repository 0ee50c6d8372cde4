"""What is trained on a store has a network for its scans and regions, whatever its task."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from benchmarks.end_to_end import make_plan, training_config
from benchmarks.gpu_checks.feed import shape_in_words
from benchmarks.gpu_checks.short_run import make_short_plan
from benchmarks.settings import EndToEndBenchmark
from dali_pipelines import SamplingConfig
from storage import TASKS, DecodedCaseCache, create_store


@pytest.mark.parametrize("name", ["gli-2021", "ped-2024", "men-rt"])
def test_the_network_has_the_scans_and_regions_of_the_store(name: str, tmp_path: Path) -> None:
    store, task = create_store(tmp_path / "store", task=TASKS[name]), TASKS[name]
    cache = DecodedCaseCache(store, tmp_path / "cache", max_bytes=0)
    bench = Mock(cache=cache, cases=("one", "two"), on_gpu=False, full_side=16)
    for plan in (make_plan(cache, ("one",), training_config(EndToEndBenchmark())), make_short_plan(bench)):
        assert (plan.config.model.modalities, plan.config.model.regions) == (len(task.scans), len(task.regions))
    assert shape_in_words(bench, SamplingConfig(patch_shape=(8, 16), dimensions=2)) == f"2 x {len(task.scans)} x 8 x 16"
