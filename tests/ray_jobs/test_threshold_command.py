"""`python ray_jobs/threshold.py` and `tune.py --search threshold`: one pass over the cases gives the same answer."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from models import ThresholdCounts
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.evaluation.validation import CaseEvaluator, ThresholdCurves
from ray_jobs.searching import threshold_scan
from ray_jobs.searching.cases_to_score import Split, cases_of
from ray_jobs.searching.threshold_scan import most_on_cpus
from ray_jobs.settings.config import TrainConfig
from ray_jobs.training.plan import TrainPlan
from storage import CohortStore, DecodedCaseCache, InputError, open_store
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS

REGIONS = GLI_2021_TASK.region_names

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(
    small_config: TrainConfig,
    train_bare: Callable[[TrainConfig, Path], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TrainPlan, str]:
    """A trained network: the plan and the checkpoint's folder."""
    optimiser = dataclasses.replace(small_config.optimiser, learning_rate=1e-2)
    config = dataclasses.replace(small_config, epochs=4, optimiser=optimiser)
    done = train_bare(config, tmp_path_factory.mktemp("run"))
    return done.plan, done.result["checkpoint"]


def count_calls(plan: TrainPlan, checkpoint: str, case_ids: Sequence[str], folder: Path) -> int:
    """How often the network is called for these cases, counted without Ray."""
    from dali_pipelines import VolumeLoader

    network = open_trained(checkpoint, CPU)
    calls = []
    network.model.register_forward_hook(lambda *_: calls.append(1))
    evaluator: CaseEvaluator = network.evaluator()
    cache = DecodedCaseCache(open_store(plan.store), folder, max_bytes=10**9)
    for volume in VolumeLoader(cache, case_ids):
        evaluator.probabilities(volume.image_MDHW)
    return len(calls)


@pytest.mark.processes
def test_one_pass_gives_what_the_training_found(run: tuple[TrainPlan, str], tmp_path: Path, command) -> None:
    plan, checkpoint = run
    arguments = ["--checkpoint", checkpoint, "--store", plan.store, "--output", str(tmp_path / "o"), "--workers", "1"]
    done = command("threshold.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "o" / "thresholds.json").read_text())
    decision = json.loads((Path(checkpoint) / "decision.json").read_text())
    assert decision["thresholds"] == dict.fromkeys(REGIONS, 0.5)
    scores = json.loads((Path(checkpoint) / "record.json").read_text())["metrics"]
    assert found["cases"] == list(plan.splits.validation) and not found["bad_cases"]
    for region in REGIONS:
        best = found["per_region"][region]
        assert found["plain"][region]["iou"] == pytest.approx(scores[f"iou_{region}"])
        assert best["iou"] >= found["plain"][region]["iou"] and best["dice"] > 0
        assert found["shared"][region]["iou"] <= best["iou"] + 1e-12
        assert max(found["curves"]["iou"][region]) == pytest.approx(best["iou"], abs=1e-6)
    assert len({found["shared"][region]["threshold"] for region in REGIONS}) == 1
    calls = count_calls(plan, checkpoint, plan.splits.validation, tmp_path / "cache2")
    assert found["forward_passes"]["total"] == calls > 0
    assert found["grid"] == {"from": 0.0, "to": 1.0, "thresholds": 1001}
    assert (tmp_path / "o" / "thresholds.png").stat().st_size > 5000


@pytest.mark.processes
@pytest.mark.usefixtures("on_shared_head")
def test_trials_over_thresholds_find_the_same_to_their_step(
    run: tuple[TrainPlan, str], tmp_path: Path, run_here
) -> None:
    plan, checkpoint = run
    steps = 10
    arguments = ["--search", "threshold", "--checkpoint", checkpoint, "--store", plan.store, "--name", "thresholds"]
    done = run_here("tune.py", *arguments, "--threshold-steps", str(steps))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "runs" / "thresholds" / "results.json").read_text())
    assert [row["threshold"] for row in found["trials"]] == pytest.approx([k / steps for k in range(steps + 1)])
    curves = ThresholdCurves.from_json(json.loads((Path(checkpoint) / "curves.json").read_text()))
    on_grid_TR = curves.iou_TR[:: 1000 // steps]
    for index, region in enumerate(REGIONS):
        assert [row[f"iou_{region}"] for row in found["trials"]] == pytest.approx(on_grid_TR[:, index], abs=1e-6)
        best, exact = found["best"][region], found["exact"][region]
        assert best["iou"] <= exact["iou"] + 1e-12
        assert abs(best["threshold"] - exact["threshold"]) <= 1 / steps + 1e-6
    assert found["best"]["shared"]["iou"] == pytest.approx(on_grid_TR.mean(axis=1).max(), abs=1e-6)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_parts_of_another_store_than_the_runs_are_refused(
    split: Split, phantom_store: CohortStore, make_checkpoint: Callable[..., str]
) -> None:
    run = make_checkpoint("of-another-store", seed=0)
    with pytest.raises(InputError, match=f"--split {split} wanted the store that .* or --split all"):
        cases_of(phantom_store.uri, split, run)


def test_of_another_store_only_all_cases_are_scored(
    phantom_store: CohortStore, make_checkpoint: Callable[..., str], run_here
) -> None:
    run = make_checkpoint("of-another-store", seed=0)
    for script, more in (("threshold.py", []), ("tune.py", ["--search", "threshold"])):
        done = run_here(script, *more, "--checkpoint", run, "--store", phantom_store.uri, "--split", "test")
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--split all" in done.stderr, done.stderr
    assert cases_of(phantom_store.uri, "all", run) == phantom_store.case_ids


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, make_checkpoint: Callable[..., str], phantom_store: CohortStore, run_here, monkeypatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(threshold_scan, "ray_running", lambda: pytest.fail("the work began"))
    arguments = ["--checkpoint", make_checkpoint("run", seed=1), "--store", phantom_store.uri, "--split", "all"]
    done = run_here("threshold.py", *arguments, "--output", str(tmp_path / "file" / "scores"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "file/scores" in done.stderr and "or give another --output" in done.stderr


def test_what_was_found_is_printed_though_it_cannot_be_written(
    tmp_path: Path, make_checkpoint: Callable[..., str], phantom_store: CohortStore, run_here, monkeypatch
) -> None:
    counts = ThresholdCounts(num_regions=len(REGIONS))
    counts.update("one", torch.rand(len(REGIONS), 4, 4, 4), torch.ones(len(REGIONS), 4, 4, 4, dtype=torch.uint8))
    scan = threshold_scan.ThresholdScan(
        objective="iou",
        checkpoint="c",
        store="s",
        split="all",
        regions=GLIOMA_REGIONS,
        counts=counts,
        forward_passes={"one": 1},
        bad_cases={},
    )

    def scan_and_lose_the_folder(*_: object, **__: object) -> threshold_scan.ThresholdScan:
        shutil.rmtree(tmp_path / "scores")
        (tmp_path / "scores").touch()
        return scan

    monkeypatch.setattr(threshold_scan, "ray_running", nullcontext)
    monkeypatch.setattr(threshold_scan, "scan_thresholds", scan_and_lose_the_folder)
    arguments = ["--checkpoint", make_checkpoint("run", seed=1), "--store", phantom_store.uri, "--split", "all"]
    done = run_here("threshold.py", *arguments, "--output", str(tmp_path / "scores"))
    assert done.returncode == 2 and "scores" in done.stderr
    assert "1 all cases, each predicted once" in done.stdout and all(region in done.stdout for region in REGIONS)


def test_what_the_checkpoints_run_maximised_is_maximised_again_unless_told(
    make_checkpoint: Callable[..., str], small_config: TrainConfig, phantom_store: CohortStore, run_here, monkeypatch
) -> None:
    asked = []
    monkeypatch.setattr(threshold_scan, "find_thresholds", lambda *_, objective, **__: asked.append(objective) or 0)
    run = make_checkpoint("run", seed=1, config=dataclasses.replace(small_config, objective="dice"))
    for more in ([], ["--objective", "iou"]):
        done = run_here("threshold.py", "--checkpoint", run, "--store", phantom_store.uri, "--split", "all", *more)
        assert done.returncode == 0, done.stderr
    assert asked == ["dice", "iou"]


def test_as_many_workers_as_there_are_cpus_with_memory_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, gigabytes, most in ((16, 100, 16), (16, 30, 7), (0, 0, 0)):
        resources = {"CPU": cpus, "memory": gigabytes * 1e9}
        monkeypatch.setattr(ray, "cluster_resources", lambda resources=resources: resources)
        assert most_on_cpus() == most


def test_what_is_missing_is_one_line(tmp_path: Path, run_here, phantom_store) -> None:
    for arguments, says in (
        (["--checkpoint", str(tmp_path)], "--store"),
        (["--checkpoint", str(tmp_path), "--store", phantom_store.uri], "wanted a checkpoint"),
        (["--checkpoint", str(tmp_path), "--store", phantom_store.uri, "--workers", "0"], "--workers must be"),
    ):
        done = run_here("threshold.py", *arguments)
        assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
