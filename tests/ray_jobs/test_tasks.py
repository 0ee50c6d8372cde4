"""From a folder of scans to a report, for tasks with other labels, regions and scans than the adult glioma of 2021.

All in this process: what the commands spread over a cluster is done here, one after the other.
"""

import csv
import dataclasses
import gzip
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dali_pipelines import AUGMENTATION_PRESETS
from models import LossConfig, RegionRules
from ray_jobs.on_ray.conversion import convert_cohort
from ray_jobs.on_ray.outcome import Outcome
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.on_ray.spread import Worker
from ray_jobs.predicting.finishing import CaseFinisher
from ray_jobs.predicting.predict_config import InferenceConfig
from ray_jobs.predicting.prediction import MakePredictor, PredictionPlan
from ray_jobs.predicting.reading import StoreInput
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.input_check import check_input, fit_to_store
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.train_loop import train
from ray_jobs.watching.summary import print_summary
from storage import TASKS, CohortStore, Task, open_store, split_cohort
from storage.labels.tasks import person_of
from storage.scans.phantom import write_phantom_cohort

pytestmark = pytest.mark.slow

Command = Callable[..., "subprocess.CompletedProcess[str]"]

NAMES = ("ped-2024", "gli-2024", "men-rt")
MADE = Path(__file__).parent / "data" / "made_at_55c76e5.tar.gz"


@dataclasses.dataclass(frozen=True)
class Cohort:
    """A task's phantoms as files and as a store."""

    task: Task
    source: Path
    store: CohortStore


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run on a cohort that is over."""

    cohort: Cohort
    result: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cohort]:
    """Coarse phantoms of each task, seven exams, converted without a flag: names and values say what they are."""
    made = {}
    for name in (*NAMES, "gli-2021"):
        folder = tmp_path_factory.mktemp(name)
        source = write_phantom_cohort(folder, task=name, cases=7, seed=1, spacing_mm=5.0)
        convert_cohort(source, str(folder / "store"))
        made[name] = Cohort(task=TASKS[name], source=source, store=open_store(str(folder / "store")))
    return made


def train_on(cohort: Cohort, config: TrainConfig, folder: Path) -> Trained:
    """Train to the end, as the commands' workers do; figures are left out."""
    config = fit_to_store(config, cohort.store)
    splits = split_cohort(cohort.store, config.splits)
    plan = TrainPlan(config=config, store=cohort.store.uri, splits=splits, cache=folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        result = train(plan, LocalSession(folder / "run", torch.device("cpu")))
    return Trained(cohort=cohort, result=result, folder=folder / "run")


@pytest.fixture(scope="module")
def runs(
    cohorts: dict[str, Cohort], small_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trained]:
    """A network of each task, with all that is done to patches; those of whole heads are deeper than the heads."""
    turned = dataclasses.replace(small_config, augmentation=AUGMENTATION_PRESETS["nnunet"])
    sampling = dataclasses.replace(turned.sampling, patch_shape=(32, 16, 16))
    configs = {"men-rt": dataclasses.replace(turned, sampling=sampling)}
    return {
        name: train_on(cohorts[name], configs.get(name, turned), tmp_path_factory.mktemp(f"{name}-run"))
        for name in NAMES
    }


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Draw one empty panel: what pictures of the tasks show is tested where they are drawn."""
    for drawing in (
        "ray_jobs.pictures.figures.sections_figure",
        "ray_jobs.watching.monitoring.draw_threshold_curves",
        "ray_jobs.searching.threshold_scan.draw_threshold_curves",
    ):
        patch.setattr(drawing, lambda *_, **__: Figure(figsize=(1, 1)))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that would join a cluster do all the work here."""

    def spread_here(
        make: Callable[[], Any], items: Sequence[Any], **_: Any
    ) -> Generator[Outcome[Any, Any], None, None]:
        worker = Worker(make)
        for item in items:
            result, error = worker.do(item)
            yield Outcome(item=item, result=result, error=error)

    def finish_here(
        make: Callable[[], Callable[[Any], Any]], finish: Callable[[Any], Any], items: Sequence[Any], **settings: Any
    ) -> Generator[Outcome[Any, Any], None, None]:
        yield from spread_here(lambda: lambda item: finish(make()(item)), items, **settings)

    monkeypatch.setattr("ray_jobs.predicting.job.spread_and_finish", finish_here)
    for place in ("predicting.input", "searching.threshold_scan"):
        monkeypatch.setattr(f"ray_jobs.{place}.spread", spread_here)
    for place in ("predicting.job", "predicting.input", "searching.threshold_scan"):
        monkeypatch.setattr(f"ray_jobs.{place}.refuse_hidden_folder", lambda *_: None)
    monkeypatch.setattr("ray_jobs.predicting.input.refuse_hidden_source", lambda *_: None)
    for place in ("ray_jobs.predicting.job", "ray_jobs.searching.threshold_scan"):
        monkeypatch.setattr(f"{place}.choose_workers", lambda *_, **__: (1, False))
    for place in ("ray_jobs.on_ray.ray_start", "ray_jobs.searching.threshold_scan"):
        monkeypatch.setattr(f"{place}.ray_running", nullcontext)
    monkeypatch.setattr("ray_jobs.searching.threshold_scan.most_on_cpus", lambda: 1)
    monkeypatch.setattr("ray_jobs.predicting.case_by_case.git_commit", lambda: "here")
    draw_nothing(monkeypatch)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_values_say_the_task(name: str, cohorts: dict[str, Cohort], small_config: TrainConfig) -> None:
    cohort = cohorts[name]
    store, task = cohort.store, cohort.task
    check_input(dataclasses.replace(small_config, source=str(cohort.source)))
    assert store.task == task and store.settings.modalities == task.scans and len(store.case_ids) == 7
    seen: set[int] = set()
    for info in store.infos():
        image_MDHW, label_DHW = store.read_case(info.case_id)
        assert label_DHW is not None and len(image_MDHW) == len(task.scans)
        assert info.task == name and info.subject == person_of(info.case_id)
        seen |= {*np.unique(label_DHW).tolist()}
        assert set(store.foreground(info.case_id)) == set(task.region_names)
        if task.skull_stripped:
            assert info.brain_voxels < label_DHW.size and info.shape < info.original_shape
        else:  # nothing is left out, and nothing cut off
            assert info.brain_voxels == label_DHW.size and info.shape == info.original_shape
            assert info.mean == pytest.approx(image_MDHW.mean(axis=(1, 2, 3)))
    assert seen == {0, *task.labels}
    splits = split_cohort(store)
    parts = [{person_of(case_id) for case_id in part} for part in (splits.train, splits.validation, splits.test)]
    assert all(parts) and sum(map(len, parts)) == len(set.union(*parts)) == (7 if name == "ped-2024" else 5)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_has_the_tasks_regions(name: str, runs: dict[str, Trained]) -> None:
    run, regions = runs[name], TASKS[name].region_names
    assert [row["epoch"] for row in run.result["history"]] == [1, 2]
    for part in ("validation", "test"):
        assert tuple(run.result[part]["iou"]) == (*regions, "mean")
    assert tuple(run.result["baseline_iou"]) == (*regions, "mean")
    assert tuple(run.result["validation"]["threshold"]) == regions
    scalars = {
        tag for file in run.folder.glob("events.*") for tag in EventAccumulator(str(file)).Reload().Tags()["scalars"]
    }
    shown = {tag for tag in scalars if tag.startswith("validation/iou_")}
    assert shown == {f"validation/iou_{region}" for region in (*regions, "mean")}
    saved = json.loads((Path(run.result["checkpoint"]) / "config.json").read_text())
    assert saved["task"]["name"] == name and saved["regions"] == list(regions)
    assert saved["modalities"] == list(TASKS[name].scans)
    console = Console(record=True, width=200, file=io.StringIO())
    print_summary({"run": name, "folder": str(run.folder), "store": "here", **run.result}, console)
    printed = console.export_text()
    assert all(region in printed for region in regions)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_and_its_store_are_predicted_alike(
    name: str, runs: dict[str, Trained], tmp_path: Path, run_here: Command
) -> None:
    """And so is what has no label yet: by its name it is of the network's task."""
    run, task = runs[name], TASKS[name]
    unlabelled = tmp_path / "validation"
    shutil.copytree(
        run.cohort.source, unlabelled, ignore=shutil.ignore_patterns("*seg.nii.gz", "*gtv.nii.gz", "*[3-7]-*")
    )
    written = {}
    places = {"folder": str(run.cohort.source), "store": run.cohort.store.uri, "unlabelled": str(unlabelled)}
    for kind, place in places.items():
        output = tmp_path / kind
        arguments = ["--checkpoint", run.result["checkpoint"], "--input", place, "--output", str(output)]
        done = run_here("predict.py", *arguments, "--no-figures")
        assert done.returncode == 0, done.stdout + done.stderr
        written[kind] = {file.name: file.read_bytes() for file in output.glob("*_seg.nii.gz")}
    assert len(written["folder"]) == 7 and written["folder"] == written["store"]
    assert 0 < len(written["unlabelled"]) < 7 and written["unlabelled"].items() <= written["folder"].items()
    for case_id in run.cohort.store.case_ids:
        made = nib.load(tmp_path / "folder" / f"{case_id}_seg.nii.gz")
        scan = nib.load(next((run.cohort.source / case_id).glob("*t1c.nii.gz")))
        assert made.shape == scan.shape and np.array_equal(made.affine, scan.affine)
        assert set(np.unique(made.dataobj)) <= set(task.convention.stored_by_source)
    metrics, regions = json.loads((tmp_path / "folder" / "metrics.json").read_text()), task.region_names
    assert tuple(metrics["mean"]) == (*regions, "mean") and not metrics["refused"]
    assert all(tuple(case["regions"]) == regions and case["labelled"] for case in metrics["cases"])
    rows = list(csv.DictReader((tmp_path / "folder" / "metrics.csv").read_text().splitlines()))
    assert [row["region"] for row in rows[: len(regions)]] == list(regions) and len(rows) == 10 * len(regions) + 1
    page = (tmp_path / "folder" / "report.html").read_text()
    assert all(region in page for region in regions)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", NAMES)
def test_each_region_gets_a_threshold(name: str, runs: dict[str, Trained], tmp_path: Path, run_here: Command) -> None:
    run = runs[name]
    arguments = ["--checkpoint", run.result["checkpoint"], "--store", run.cohort.store.uri]
    done = run_here("threshold.py", *arguments, "--output", str(tmp_path / "scored"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "scored" / "thresholds.json").read_text())
    assert set(found["per_region"]) == set(TASKS[name].region_names) == set(found["shared"])
    saved = json.loads((Path(run.result["checkpoint"]) / "decision.json").read_text())
    assert saved["thresholds"] == {region: plain["threshold"] for region, plain in found["plain"].items()}


def predict_one(run: Trained) -> set[int]:
    """The values of a segmentation of the first case; each region where it is likelier than not."""
    regions = run.cohort.task.regions
    plan = PredictionPlan(
        checkpoints=(run.result["checkpoint"],),
        source=StoreInput(uri=run.cohort.store.uri),
        rules=RegionRules(labels=tuple(region.labels for region in regions), thresholds=(0.5,) * len(regions)),
        inference=InferenceConfig(),
        probabilities=False,
    )
    case_id = run.cohort.store.case_ids[0]
    finish = CaseFinisher(scored_by="plain", written=None, figures=False, viewer=False)
    files = finish(MakePredictor(plan=plan, use_gpu=False)()(case_id)).files
    return set(np.unique(nib.Nifti1Image.from_bytes(gzip.decompress(files[f"{case_id}_seg.nii.gz"])).dataobj))


def test_a_head_of_labels_learns_regions_that_do_not_nest(
    cohorts: dict[str, Cohort], small_config: TrainConfig, tmp_path: Path
) -> None:
    model = dataclasses.replace(small_config.model, head="labels")
    run = train_on(
        cohorts["ped-2024"], dataclasses.replace(small_config, model=model, loss=LossConfig(voxel="ce")), tmp_path
    )
    assert tuple(run.result["validation"]["iou"]) == (*TASKS["ped-2024"].region_names, "mean")
    assert predict_one(run) <= {0, 1, 2, 3, 4}


@pytest.mark.parametrize("name", ["gli-2024", "men-rt"])
def test_slices_of_other_tasks_are_trained_on(
    name: str, cohorts: dict[str, Cohort], small_config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        small_config,
        epochs=1,
        augmentation=AUGMENTATION_PRESETS["nnunet"],
        sampling=dataclasses.replace(small_config.sampling, dimensions=2, patch_shape=(64, 32)),  # wider than a head
        model=dataclasses.replace(small_config.model, dimensions=2),
    )
    run = train_on(cohorts[name], config, tmp_path)
    assert tuple(run.result["test"]["iou"]) == (*TASKS[name].region_names, "mean")
    assert predict_one(run) <= set(TASKS[name].convention.stored_by_source)


@pytest.mark.usefixtures("alone")
def test_a_network_refuses_another_tasks_cohort_by_name(
    cohorts: dict[str, Cohort], runs: dict[str, Trained], tmp_path: Path, run_here: Command
) -> None:
    """Whether it comes as a folder or a store, and the network from this version or from before tasks were named."""
    with tarfile.open(MADE) as archive:
        archive.extractall(tmp_path, filter="data")
    old, glioma = str(tmp_path / "runs" / "half"), cohorts["gli-2021"]
    paediatric, treated = (runs[name].result["checkpoint"] for name in ("ped-2024", "gli-2024"))
    for network, own, cohort in (
        (old, "an unnamed task (WT, TC, ET)", cohorts["ped-2024"]),
        (old, "an unnamed task (WT, TC, ET)", cohorts["gli-2024"]),
        (paediatric, "ped-2024 (WT, TC, ET, NET, CC, ED)", glioma),
        (paediatric, "ped-2024 (WT, TC, ET, NET, CC, ED)", cohorts["gli-2024"]),
        (treated, "gli-2024 (WT, TC, ET, NETC, SNFH, RC)", glioma),
    ):
        other = f"{cohort.task.name} ({', '.join(cohort.task.region_names)})"
        output = ("--output", str(tmp_path / "out"))
        commands = [
            ("threshold.py", "--store", cohort.store.uri, "--split", "all"),
            *(("predict.py", "--input", place, *output) for place in (cohort.store.uri, str(cohort.source))),
        ]
        for script, *arguments in commands:
            done = run_here(script, "--checkpoint", network, *arguments)
            assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stdout + done.stderr
            assert f"was trained on {own}" in done.stderr and f"is {other}: a network predicts its own" in done.stderr
    assert not (tmp_path / "out").exists()
    for kind, place in {"from-store": glioma.store.uri, "from-folder": str(glioma.source)}.items():
        # What it was made for it still predicts.
        done = run_here(
            "predict.py", "--checkpoint", old, "--input", place, "--output", str(tmp_path / kind), "--no-figures"
        )
        assert done.returncode == 0, done.stdout + done.stderr
    made = [
        {file.name: file.read_bytes() for file in (tmp_path / kind).glob("*_seg.nii.gz")}
        for kind in ("from-store", "from-folder")
    ]
    assert len(made[0]) == 7 and made[0] == made[1]


@pytest.mark.usefixtures("alone")
def test_a_network_of_one_scan_refuses_cohorts_of_four_and_the_other_way(
    cohorts: dict[str, Cohort], runs: dict[str, Trained], tmp_path: Path, run_here: Command
) -> None:
    heads, glioma = cohorts["men-rt"], cohorts["gli-2021"]
    of_heads, of_children = (runs[name].result["checkpoint"] for name in ("men-rt", "ped-2024"))
    for network, place, said in (
        (of_heads, str(glioma.source), "trained on men-rt (GTV)"),
        (of_heads, glioma.store.uri, "trained on men-rt (GTV)"),
        (of_children, str(heads.source), "is men-rt (GTV)"),
        (of_children, heads.store.uri, "is men-rt (GTV)"),
    ):
        done = run_here("predict.py", "--checkpoint", network, "--input", place, "--output", str(tmp_path / "out"))
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
