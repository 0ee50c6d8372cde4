"""The loader's benchmark runs to its end on a small cohort and says what it promises to."""

import json
from pathlib import Path

import pytest

from benchmarks.loader import run
from benchmarks.settings import LoaderBenchmark


@pytest.mark.processes
def test_the_figures_of_every_stage(store_uri: str, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    run(
        LoaderBenchmark(
            store=store_uri, patches=4, patch_shape=(24, 24, 24), slice_shape=(24, 24), device="cpu", json=target
        )
    )
    rows = {(row["sample"], row["stage"]): row for row in json.loads(target.read_text())["rows"]}
    for sample in ("4x24x24x24", "4x24x24"):
        for stage in ("gpu_feed", "cpu_full", "gpu_feed_quarter_cache", "gpu_feed_quarter_cache_4_per_case"):
            assert rows[sample, stage]["cpu_ms"] > 0
            assert rows[sample, stage]["wall_ms"] > 0
        assert rows[sample, "gpu_feed_quarter_cache"]["hits"].endswith(" %")
        assert (sample, "gpu_full") not in rows
