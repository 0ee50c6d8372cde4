import json
from pathlib import Path

import pytest

from benchmarks.settings import StoreReadsBenchmark
from benchmarks.store_reads import run


@pytest.mark.processes
def test_every_way_to_read_has_its_cost(store_uri: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    run(StoreReadsBenchmark(store=store_uri, patches=3, patch_side=16, json=file))
    record = json.loads(file.read_text())
    assert record["title"] == "Reading 4 x 16 x 16 x 16 patches and cases"
    assert [row["what"] for row in record["rows"]] == [
        "open the store (3 cases)",
        "patch from the store",
        "whole case from the store",
        "case into the cache",
        "patch from the cache",
        "first look of another process",
    ]
    assert all(row["CPU-ms"] > 0 and row["wall-ms"] > 0 for row in record["rows"])
