"""A search whose trials pretend to train: what so many of them leave behind, and what they cost the head."""

import io
import json
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.console import Console

from benchmarks.cost import resident_mib, time_call
from benchmarks.growth import Figures, write_small_cases
from ray_jobs.checkpoints.checkpoint import CURVES, MODEL, CheckpointRecord
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.evaluation.validation import ThresholdCurves
from ray_jobs.searching.search_config import SearchConfig
from ray_jobs.settings.presets import preset
from ray_jobs.training.plan import TrainPlan
from storage.labels.tasks import TASKS

REGIONS = TASKS["gli-2023"].region_names
EPOCHS = 4
_WEIGHTS = bytes(1000)
_THRESHOLDS = 1001


def measure_search(trials: int) -> Figures:
    """Search with Optuna and ASHA, as by default, two trials at a time."""
    # Here: benchmarks can be imported without Ray. Ray's own last: ray_jobs tells it what it reads when it is imported.
    from ray_jobs.on_ray.conversion import convert_cohort
    from ray_jobs.on_ray.ray_start import ray_running
    from ray_jobs.searching import search
    from ray_jobs.searching.figure import save_search_figure
    from ray_jobs.searching.results import RESULTS
    from ray import tune  # isort: skip

    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        quiet = Console(quiet=True)
        convert_cohort(write_small_cases(Path(folder) / "scans", 8), store, console=quiet)
        training = replace(preset("demo"), store=store, epochs=EPOCHS, workers=1, runs=str(Path(folder) / "runs"))
        asked = SearchConfig(training=replace(training, name="search"), trials=trials, max_concurrent=2)
        # Trials share two processes: starting a hundred would take most of the time, and is not what grows otherwise.
        shared = patch.object(tune, "TuneConfig", partial(tune.TuneConfig, reuse_actors=True))
        pretending = patch.object(search, "fit", pretend_to_fit)
        with ray_running(tune_drivers=2), pretending, shared, redirect_stdout(io.StringIO()):
            before = resident_mib("VmRSS") or 0.0
            found: list[search.Searched] = []
            driver = time_call(lambda: found.append(search.run_search(asked, quiet))).cpu
            grown = (resident_mib("VmHWM") or 0.0) - before
        searched = found[0]
        drawing = time_call(lambda: save_search_figure(searched.rows, searched.regions, searched.folder, "iou")).cpu
        place = Path(searched.folder.uri)
        files = [path for path in place.rglob("*") if path.is_file()]
        return {
            "searching: head, CPU-s": driver,
            "searching: head's memory grows by, MB": grown * 2**20 / 1e6,
            "drawing search.png, CPU-s": drawing,
            "results.json, MB": (place / RESULTS).stat().st_size / 1e6,
            "checkpoints kept": float(len(list(place.rglob("checkpoint_*/record.json")))),
            "files of a search": float(len(files)),
            "files of a search but for weights, MB": sum(path.stat().st_size for path in files if path.name != MODEL)
            / 1e6,
        }


def pretend_to_fit(plan: TrainPlan, folder: RunFolder, **_: Any) -> dict[str, Any]:
    """In `fit`'s place: report and leave a checkpoint for each epoch, as a training does, without training."""
    from ray import tune

    store = CheckpointStore(folder.uri)
    history: list[dict[str, Any]] = []
    for epoch in range(1, plan.config.epochs + 1):
        scores = pretend_scores(plan.config.optimiser.learning_rate, epoch)
        store.save(CheckpointRecord(epoch=epoch, step=0, metrics=scores), {MODEL: _WEIGHTS, CURVES: _curves(REGIONS)})
        history.append({"epoch": epoch, "patches_per_second": 1.0, **scores})
        tune.report(history[-1])
    return {"history": history}


def pretend_scores(learning_rate: float, epoch: int) -> dict[str, float]:
    """What a validation says; better with each epoch, and best near a learning rate of 0.003."""
    score = epoch / (epoch + 2) / (1 + abs(np.log10(learning_rate / 0.003)))
    names = [f"{kind}_{region}" for kind in ("iou", "dice") for region in (*REGIONS, "mean")]
    return dict.fromkeys(names, score) | {f"threshold_{region}": 0.5 for region in REGIONS}


def _curves(regions: Sequence[str]) -> bytes:
    steps = np.linspace(0, 1, _THRESHOLDS, dtype=np.float32)
    height = np.full((_THRESHOLDS, len(regions)), 0.5)
    curves = ThresholdCurves(regions=tuple(regions), thresholds_T=steps, iou_TR=height, dice_TR=height)
    return json.dumps(curves.to_json()).encode()
