"""`make train` with other seeds: the scores at its end, and how far they lie apart. The synthetic cohort is the same.

Each seed is a run of its own, begun and gone on with by the command that anybody would type.

`python -m benchmarks demo-seeds --precisions float32`
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.demo import environment_in
from benchmarks.page import ROOT
from benchmarks.report import report
from benchmarks.settings import DemoSeedsBenchmark
from storage import InputError


def run(config: DemoSeedsBenchmark) -> None:
    """Train with each seed in each arithmetic, and table the ends."""
    folder = ROOT / ".bench" / "demo-seeds"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"seed": seed, **describe_end(train(folder, seed, precision))}
        for precision in config.precisions
        for seed in config.seeds
    ]
    reached = [float(row["validation IoU"]) for row in rows]
    title = f"The demo, seed by seed: mean IoU on validation {min(reached):.3f} to {max(reached):.3f}"
    report(title, rows, config.json)


def train(folder: Path, seed: int, precision: str) -> dict[str, Any]:
    """Do what is left of one run and return its summary."""
    name = f"{precision}-{seed}"
    words = [sys.executable, str(ROOT / "ray_jobs" / "train.py"), "--name", name]
    words += ["--sampling.seed", str(seed), "--precision", precision]
    done = subprocess.run(words, cwd=folder, env=environment_in(folder), capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    summary: dict[str, Any] = json.loads((folder / "runs" / name / "summary.json").read_text())
    return summary


def describe_end(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A row: what it computed in, and the mean IoU and that of each region on validation and test cases."""
    row: dict[str, Any] = {"precision": summary["throughput"]["precision"]}
    for part in ("validation", "test"):
        scores = dict(summary[part]["iou"])
        row[f"{part} IoU"] = round(scores.pop("mean"), 3)
        row[f"by region, {part}"] = ", ".join(f"{region} {value:.3f}" for region, value in scores.items())
    return row
