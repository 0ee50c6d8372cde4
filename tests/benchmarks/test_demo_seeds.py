"""The demo's range over seeds: each run's own command, and the table of their ends."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import demo_seeds
from benchmarks.settings import DemoSeedsBenchmark
from storage import InputError

ENDS = {0: 0.8, 1: 0.85}


def test_the_title_has_the_range_and_each_run_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(words: list[str], *, cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        name, seed = words[words.index("--name") + 1], int(words[words.index("--sampling.seed") + 1])
        assert words[words.index("--precision") + 1] == "float32"
        iou = {"WT": ENDS[seed] - 0.1, "TC": ENDS[seed] + 0.1, "mean": ENDS[seed]}
        summary = {"throughput": {"precision": "float32"}, "validation": {"iou": iou}, "test": {"iou": iou}}
        (cwd / "runs" / name).mkdir(parents=True)
        (cwd / "runs" / name / "summary.json").write_text(json.dumps(summary))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(demo_seeds, "ROOT", tmp_path)
    monkeypatch.setattr(demo_seeds.subprocess, "run", train)
    monkeypatch.setattr("benchmarks.report.git_commit", lambda: "abc")
    demo_seeds.run(DemoSeedsBenchmark(seeds=(0, 1), precisions=("float32",), json=tmp_path / "record.json"))
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["title"].endswith("mean IoU on validation 0.800 to 0.850")
    assert [(row["seed"], row["test IoU"]) for row in found["rows"]] == [(0, 0.8), (1, 0.85)]
    assert found["rows"][0]["by region, validation"] == "WT 0.700, TC 0.900"


def test_a_run_that_fails_says_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 2, "", "error: no room\n")
    monkeypatch.setattr(demo_seeds.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InputError, match=r"--name float32-3 .*ended with 2: error: no room"):
        demo_seeds.train(tmp_path, 3, "float32")
