"""The loader's benchmark and the GPU check run to their end on a small cohort and say what they promise to."""

import json
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import GpuCheck, check_parity
from benchmarks.loader import LoaderBenchmark, run
from storage import DecodedCaseCache, convert_case, create_store, find_cases, open_store


@pytest.fixture(scope="module")
def store_uri(phantom_source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three synthetic cases, converted."""
    store = create_store(tmp_path_factory.mktemp("store") / "phantom.zarr")
    for case in find_cases(phantom_source).cases[:3]:
        convert_case(case, store)
    store.rebuild_index()
    return store.uri


def test_the_figures_of_every_stage(store_uri: str, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    run(
        LoaderBenchmark(
            store=store_uri, patches=4, patch_shape=(24, 24, 24), slice_shape=(24, 24), device="cpu", json=target
        )
    )
    rows = {(row["sample"], row["stage"]): row for row in json.loads(target.read_text())["rows"]}
    for sample in ("4x24x24x24", "4x24x24"):
        for stage in ("read_cold", "fill_cache", "read_warm", "gpu_feed", "cpu_full", "gpu_feed_quarter_cache"):
            assert rows[sample, stage]["cpu_ms"] > 0
            assert rows[sample, stage]["wall_ms"] > 0
        assert rows[sample, "gpu_feed_quarter_cache"]["hits"].endswith(" %")
        assert (sample, "gpu_full") not in rows


def test_a_graph_equals_itself(store_uri: str, tmp_path: Path) -> None:
    cache = DecodedCaseCache(open_store(store_uri), tmp_path, max_bytes=10**9)
    rows = list(check_parity(cache, GpuCheck(device="cpu", side=16)))
    assert [row["passed"] for row in rows] == ["yes", "yes"]
    assert all("0.0e+00 of unresampled" in row["figures"] for row in rows)


def test_without_a_gpu_the_check_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_check.main([]) == 2
    assert "wanted a GPU" in capsys.readouterr().err
