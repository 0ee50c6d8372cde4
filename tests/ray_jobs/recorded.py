"""Folders of runs, searches and cross-validations as they are kept, written without a training; their pages, read."""

import dataclasses
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ray_jobs.checkpoints.checkpoint import CASES, CURVES, DECISION, CheckpointRecord
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.run_folder import CONFIG, RunFolder, encode_json
from ray_jobs.settings.config import run_identity
from ray_jobs.settings.presets import preset
from ray_jobs.watching.event_file import EventFile
from storage.labels.tasks import GLI_2021_TASK

REGIONS = GLI_2021_TASK.region_names
STEPS = 10  # of an epoch
ODD = "its <chunk> & crc are bad"  # what nothing may take for markup
KEPT = 5  # the epoch with the best score


def score(place: int, region: int, epoch: int = KEPT) -> float:
    """Of the case at `place`: the first are good, the fourth is bad; it rises until the epoch that is kept."""
    best = 0.15 if place == 3 else 0.9 - 0.05 * place
    return round(best - 0.05 * region - 0.08 * abs(epoch - KEPT), 4)


def with_mean(values: Sequence[float]) -> dict[str, float]:
    """By region, and their mean."""
    return {**dict(zip(REGIONS, values, strict=True)), "mean": sum(values) / len(values)}


def case_scores(places: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The scores of cases, each of a subject of its own."""
    return {
        f"BraTS20_Training_{place:03d}": {
            "iou": with_mean([score(place, region) for region in range(len(REGIONS))]),
            "dice": with_mean(
                [2 * score(place, region) / (1 + score(place, region)) for region in range(len(REGIONS))]
            ),
        }
        for place in places
    }


def mean_of(cases: dict[str, dict[str, Any]], kind: str) -> dict[str, float]:
    """Over the cases, of each region and their mean."""
    return {name: sum(own[kind][name] for own in cases.values()) / len(cases) for name in (*REGIONS, "mean")}


def part_of(places: Sequence[int]) -> dict[str, Any]:
    """What summary.json says of these cases."""
    cases = case_scores(places)
    scores = {kind: mean_of(cases, kind) for kind in ("iou", "dice")}
    return {
        **{"cases": len(cases), "bad_cases": {"BraTS20_Training_099": ODD}, "interval": [0.4, 0.9], **scores},
        **{"threshold": dict.fromkeys(REGIONS, 0.45), "plain": scores, "by_case": cases, "by_case_at_half": cases},
    }


def write_events(folder: Path, epochs: int) -> None:
    """Two starts: the second does two steps again. The last picture of a validation is there."""
    for first, last in ((1, 2 * STEPS + 2), (2 * STEPS + 1, epochs * STEPS)):
        events = EventFile(folder, print)
        events.begin(first)
        for step in range(first, last + 1):
            loss = 1.5 * math.exp(-step / 20) + 0.1
            events.scalars({"loss/step": loss, "learning_rate": 3e-3 * (1 - step / last), "gradient_norm": loss}, step)
            if step % STEPS == 0:
                rates = {"epoch": step // STEPS, "loss": loss, "patches_per_second": 4.0, "data_wait_fraction": 0.002}
                events.scalars(rates, step, group="epoch")
                events.scalars({"wait": 0.001, "forward": 0.1, "backward": 0.2}, step, group="seconds_per_step")
                epoch = step // STEPS
                for kind in ("iou", "dice"):
                    values = with_mean([score(0, region, epoch) for region in range(len(REGIONS))])
                    scores = {f"{kind}_{name}": value for name, value in values.items()}
                    events.scalars(scores, step, group="validation")
        events.close()


def picture(shade: int = 90) -> bytes:
    """A small PNG."""
    file = io.BytesIO()
    Image.fromarray(np.full((40, 120, 3), shade, np.uint8)).save(file, "PNG")
    return file.getvalue()


def curves() -> dict[str, Any]:
    """What curves.json says."""
    thresholds = [step / 200 for step in range(201)]
    of_region = {
        region: [round(0.8 - (at - 0.45) ** 2 - 0.05 * place, 7) for at in thresholds]
        for place, region in enumerate(REGIONS)
    }
    return {"rules": "plain", "thresholds": thresholds, "iou": of_region, "dice": of_region}


def write_run(
    runs: Path, name: str = "first", *, epochs: int = 8, finished: bool = True, fold: int | None = None
) -> Path:
    """A run of the demo with another batch: of `epochs`, or stopped after the one that is kept."""
    folder, run = runs / name, RunFolder(str(runs), name)
    demo = preset("demo")
    splits = demo.splits if fold is None else dataclasses.replace(demo.splits, folds=2, fold=fold)
    sampling = dataclasses.replace(demo.sampling, global_batch_size=8)
    config = dataclasses.replace(demo, epochs=epochs, sampling=sampling, splits=splits)
    identity = run_identity(config, "0123abcd")
    run.claim(identity)
    write_events(folder, epochs if finished else KEPT)
    decision = {"thresholds": dict.fromkeys(REGIONS, 0.45), "smallest_mm3": dict.fromkeys(REGIONS, 50.0)}
    decision |= {"largest_tumour_only": False, "empty_below_mm3": dict.fromkeys(REGIONS, 0.0)}
    validated = range(5) if fold is None else range(3 * fold, 3 * fold + 3)
    cases = {case: {"subject": case, **own} for case, own in case_scores(validated).items()}
    made_with = {"preset": "demo", "workers": 2}
    files = {CONFIG: encode_json(identity | {"made_with": made_with, "regions": list(REGIONS)})}
    files |= {DECISION: encode_json(decision), CURVES: encode_json(curves()), CASES: encode_json(cases)}
    record = CheckpointRecord(epoch=KEPT, step=0, metrics={"iou_mean": mean_of(cases, "iou")["mean"]})
    CheckpointStore(str(folder)).save(record, files)
    seconds = dict.fromkeys(("noticed", "checkpoint", "workers", "restored", "cache", "first step", "again"), 10.0)
    restart = {"notice": True, "steps_again": 2, "seconds": seconds, "dollars": 0.02}
    run.write("spent.json", {"seconds": 600.0, "dollars": 0.5, "restarts": [restart]})
    if finished:
        for place in (*validated, 6, 7):
            (folder / f"cross_section_BraTS20_Training_{place:03d}.png").write_bytes(picture(30 * place))
        part, test = part_of(validated), part_of([6, 7])
        time = dict.fromkeys(("wait", "forward", "backward", "validation", "other"), 100.0)
        advice = "compute-bound, as it should be: 93% of the steps' time the device computed; a GPU is the next step"
        summary = {
            **{"run": name, "folder": str(folder), "store": "data/cohort.zarr", "git_commit": "abc"},
            **{"config": json.loads(json.dumps(dataclasses.asdict(config))), "checkpoint": f"{folder}/{record.name}"},
            **{"rules": "plain", "objective": "iou", "thresholds": decision["thresholds"]},
            "decision": decision | {"taken": [], "unseen": [], "said": ["Decision: components below 50 mm3 left out."]},
            **{"validation": part, "test": test, "baseline_iou": with_mean([0.3, 0.2, 0.1])},
            "history": [{"epoch": epoch, "loss": 1.0 / epoch, "skipped_steps": 0} for epoch in range(1, epochs + 1)],
            "bad_cases": {"BraTS20_Training_098": 2},
            "throughput": {"patches_per_second": 4.0, "data_wait_fraction": 0.002, "world_size": 2, "device": "cpu"},
            "time": {"seconds": time, "bound_by": "compute", "advice": advice},
            "restarts": {"count": 1, "steps_again": 2, "seconds_lost": 70.0, "each": [restart], "dollars_lost": 0.02},
            "cost": {"seconds": 600.0, "dollars": 0.5, "prices": "of a list"},
            "finished": "2026-11-30T06:27:07+00:00",
        }
        run.write("summary.json", summary)
    return folder


def write_folds(runs: Path, name: str = "cv", *, finished: int = 2) -> Path:
    """A cross-validation of two folds."""
    folder, demo = runs / name, preset("demo")
    whole = RunFolder(str(runs), name)
    splits = dataclasses.replace(demo.splits, folds=2, fold=None)
    whole.claim(run_identity(dataclasses.replace(demo, splits=splits), "0123abcd"))
    for fold in range(2):
        write_run(folder, f"fold-{fold}", fold=fold, finished=fold < finished)
    if finished == 2:
        cases = case_scores(range(6))
        of = {"cases": 6, "subjects": 6} | {
            kind: {region: {"mean": mean, "low": mean - 0.1, "high": mean + 0.1} for region, mean in means.items()}
            for kind, means in (("iou", mean_of(cases, "iou")), ("dice", mean_of(cases, "dice")))
        }
        folds = [{"fold": fold, "run": f"{name}/fold-{fold}", **part_of(range(3))} for fold in range(2)]
        decision = {"thresholds": dict.fromkeys(REGIONS, 0.5), "said": ["Decision: plain."]}
        said = {"run": name, "folder": str(folder), "store": "data/cohort.zarr", "rules": "plain", "objective": "iou"}
        said |= {"chosen_on_own_cases": ["epoch"], "folds": folds, "out_of_fold": of, "bad_cases": {"X": ODD}}
        said |= {"by_grade": {"HGG": of, "LGG": of}, "decision": decision, "finished": "2026-11-30T06:27:07+00:00"}
        said["by_case"] = {
            case: {"subject": case, "grade": "HGG", "fold": place // 3, **own}
            for place, (case, own) in enumerate(cases.items())
        }
        whole.write("summary.json", said)
    return folder


def write_search(runs: Path, name: str = "search", *, trials: int = 10) -> Path:
    """A search over learning rate and loss: the best is that of the rate nearest 0.003; the last one failed."""
    folder, search = runs / name, RunFolder(str(runs), name)
    search.claim(
        run_identity(preset("demo"), "0123abcd") | {"search": {"trials": trials, "space": ["loss.dice_weight"]}}
    )
    rows = []
    for place in range(trials):
        rate = 3e-4 * 100 ** (place / (trials - 1))
        value = round(0.8 - 0.2 * abs(math.log10(rate / 3e-3)), 4)
        scores = with_mean([value, value - 0.05, value - 0.1])
        row = {"values": {"optimiser.learning_rate": rate, "loss.dice_weight": 1 + place % 2}, "status": "finished"}
        row |= {"seconds": 600.0 + 60 * place, "cost": 0.1 + 0.01 * place, "iou": scores, "dice": scores, "epochs": 4}
        row |= {
            "threshold": dict.fromkeys(REGIONS, 0.5),
            "patches_per_second": 4.0,
            "run": f"/elsewhere/trials/t{place}",
        }
        row["checkpoint"] = f"/elsewhere/trials/t{place}/checkpoint_epoch_0004"
        rows.append(row | ({"status": "failed", "error": ODD} if place == trials - 1 else {}))
    rows.sort(key=lambda row: -row["iou"]["mean"])
    best = write_run(folder / "trials", rows[0]["run"].rpartition("/")[2])
    (best / "report.html").write_text("its own page")
    said = {"rules": "plain", "objective": "iou", "pricing": {"price_per_node_hour": 0.526}}
    search.write("results.json", {"trials": rows, "best": {"values": rows[0]["values"]}, **said})
    return folder


def write_thresholds(runs: Path, name: str = "thresholds") -> Path:
    """A search over thresholds of a checkpoint."""
    search = RunFolder(str(runs), name)
    rows = [
        {
            "threshold": step / 10,
            **{
                f"{kind}_{region}": 0.1 * min(step, 10 - step)
                for region in (*REGIONS, "mean")
                for kind in ("iou", "dice")
            },
        }
        for step in range(11)
    ]
    best = {region: {"threshold": 0.5, "iou": 0.5, "dice": 0.6} for region in (*REGIONS, "shared")}
    said = {"rules": "plain", "objective": "iou", "split": "validation", "best": best, "exact": best}
    search.write("results.json", {"trials": rows, **said})
    return runs / name


def rows(page: str, caption: str) -> dict[str, list[str]]:
    """The figures in the only table of a page that is called so, by the names of its rows."""
    (table,) = re.findall(rf"<caption>{re.escape(caption)}</caption>(.*?)</table>", page, re.DOTALL)
    found = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table)
    return {re.sub("<.*?>", "", name): re.findall("<td>(.*?)</td>", cells) for name, cells in found}


def sections(page: str) -> list[str]:
    """The parts of a page."""
    return re.findall(r'<section id="([a-z]+)"', page)
