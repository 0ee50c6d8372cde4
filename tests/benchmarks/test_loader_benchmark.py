"""The loader's benchmark and the GPU check run to their end on a small cohort and say what they promise to."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.gpu_check import check_parity
from benchmarks.loader import run
from benchmarks.settings import GpuCheck, LoaderBenchmark
from storage import DecodedCaseCache, InputError, open_store


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


def test_a_graph_equals_itself(store_uri: str, tmp_path: Path) -> None:
    cache = DecodedCaseCache(open_store(store_uri), tmp_path, max_bytes=10**9)
    rows = list(check_parity(cache, GpuCheck(device="cpu", side=16)))
    assert [row["passed"] for row in rows] == ["yes", "yes"]
    assert all("0.0e+00 of unresampled" in row["figures"] for row in rows)


def test_without_a_gpu_the_check_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="wanted a GPU"):
        main(["gpu-check"])


def test_a_failed_check_is_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    for passed, status in ((True, 0), (False, 1)):
        monkeypatch.setattr("benchmarks.gpu_check.run", lambda config, passed=passed: passed)
        assert main(["gpu-check", "--device", "cpu"]) == status
