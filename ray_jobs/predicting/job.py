"""A prediction from its checked settings to the report: what is to do, spread over the cluster, written as it comes."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from rich.console import Console

from models import RegionRules
from ray_jobs.checkpoints.checkpoint import MODEL, Checkpoint
from ray_jobs.checkpoints.trained_on import read_spacing
from ray_jobs.evaluation.case_scores import encode_csv, mean_of_records, print_means
from ray_jobs.on_ray.ray_start import choose_workers, refuse_hidden_folder
from ray_jobs.on_ray.spread import spread
from ray_jobs.predicting.folder import PredictionFolder
from ray_jobs.predicting.input import Cohort, Told, open_cohort
from ray_jobs.predicting.predict_config import PredictConfig
from ray_jobs.predicting.prediction import MakePredictor, PredictionPlan
from ray_jobs.predicting.report_page import build_report
from ray_jobs.settings.console import tracked
from ray_jobs.settings.label_choice import refuse_incomplete, told_task, told_values
from ray_jobs.watching.provenance import git_commit
from storage import Task
from storage.cases.notes import summarise_notes

REFUSED = 3
METRICS, TABLE, REPORT = "metrics.json", "metrics.csv", "report.html"


def predict(
    config: PredictConfig,
    checkpoints: Sequence[Checkpoint],
    task: Task,
    modalities: tuple[str, ...],
    thresholds: tuple[float, ...],
    folder: PredictionFolder,
    console: Console,
) -> int:
    """Segment every case that is still to do, where Ray runs; return the exit status."""
    workers, use_gpu = choose_workers(config.workers, gpu=config.gpu)
    for checkpoint in checkpoints:
        refuse_hidden_folder(checkpoint.uri, "checkpoint")
    written = told_task(config.write_task, flag="--write-task")
    labels = Told(task=told_task(config.task), label_map=told_values(config.label_map))
    cohort = open_cohort(
        config.input,
        task,
        modalities=modalities,
        names=config.names,
        told=labels,
        workers=workers,
        trust_grid=config.trust_grid,
    )
    for convention in [written.convention] if written is not None else cohort.conventions:
        refuse_incomplete(convention, task)
    rules = RegionRules(
        labels=tuple(region.labels for region in task.regions),
        thresholds=thresholds,
        overlap=config.overlap_rule,
        smallest_mm3=config.smallest_mm3,
    )
    plan = PredictionPlan(
        checkpoints=tuple(checkpoint.uri for checkpoint in checkpoints),
        source=cohort.source,
        rules=rules,
        inference=config.inference,
        written=None if written is None else written.convention,
        probabilities=config.probabilities,
        figures=config.figures,
        spacing=read_spacing(checkpoints[0]),
    )
    identity = describe_prediction(plan, checkpoints, cohort, modalities)
    folder.claim(identity)
    with folder.only_writer():
        return predict_cases(plan, cohort, folder, identity, console, workers=workers, use_gpu=use_gpu)


def predict_cases(
    plan: PredictionPlan,
    cohort: Cohort,
    folder: PredictionFolder,
    identity: Mapping[str, Any],
    console: Console,
    *,
    workers: int,
    use_gpu: bool,
) -> int:
    """Write every case that is still to do, and then the report, into the folder; return the exit status."""
    made_by = {**identity, "git_commit": git_commit()}
    total, records = len(cohort.sources), folder.finished(cohort.sources)
    todo = [case_id for case_id in cohort.sources if case_id not in records]
    at_once, device = min(workers, len(todo)) or workers, "GPU" if use_gpu else "CPU"
    values = names_of_values(plan, cohort)
    console.print(f"{len(todo)} of {total} cases to do, {at_once} at once, {device}, labels as {values}")
    refused: dict[str, str] = {}

    def refuse(case_id: str, reason: str) -> None:
        refused[case_id] = reason
        folder.discard(case_id)
        console.print(f"refused {reason}", markup=False, style="yellow", soft_wrap=True)

    for refusal in cohort.refused:
        refuse(refusal.case_id, str(refusal))
    make = MakePredictor(plan=plan, use_gpu=use_gpu)
    with closing(spread(make, todo, workers=workers, use_gpu=use_gpu)) as outcomes:
        for outcome in tracked(outcomes, console, "predicting", total=total, done=total - len(todo)):
            case_id, predicted = outcome.item, outcome.result
            if predicted is None:
                refuse(case_id, name_case(case_id, outcome.error or ""))
            else:
                if "label_refused" in predicted.record:
                    said = f"not scored {predicted.record['label_refused']}"
                    console.print(said, markup=False, style="yellow", soft_wrap=True)
                about = {**predicted.record, "source": cohort.sources[case_id], "made_by": made_by}
                records[case_id] = folder.finish(predicted.files, about)
    done = [records[case_id] for case_id in cohort.sources if case_id in records]
    return _conclude(folder, cohort, done, refused, identity, console)


def describe_prediction(
    plan: PredictionPlan, checkpoints: Sequence[Checkpoint], cohort: Cohort, modalities: Sequence[str]
) -> dict[str, Any]:
    """Return, as JSON, all that decides what is written: another value of it wants another output folder."""
    digests = [hashlib.sha256(checkpoint.read(MODEL)).hexdigest() for checkpoint in checkpoints]
    described = {
        "input": cohort.uri,
        "modalities": list(modalities),
        "checkpoints": {
            checkpoint.uri: {"weights_sha256": digest} for checkpoint, digest in zip(checkpoints, digests, strict=True)
        },
        "thresholds": dict(zip(cohort.task.region_names, plan.rules.thresholds, strict=True)),
        "overlap_rule": plan.rules.overlap,
        "smallest_mm3": dict(zip(cohort.task.region_names, plan.rules.smallest_mm3 or (), strict=True)),
        "inference": dataclasses.asdict(plan.inference),
        "label_convention": ", ".join(convention.name for convention in cohort.conventions),
        "write_convention": names_of_values(plan, cohort),
        "probabilities": plan.probabilities,
        "figures": plan.figures,
    }
    decoded: dict[str, Any] = json.loads(json.dumps(described))
    return decoded


def names_of_values(plan: PredictionPlan, cohort: Cohort) -> str:
    """Return in whose values segmentations are written."""
    written = cohort.conventions if plan.written is None else [plan.written]
    return ", ".join(convention.name for convention in written)


def name_case(case_id: str, reason: str) -> str:
    """Return the reason with the case's name before it, once."""
    return reason if reason.startswith(case_id) else f"{case_id}: {reason}"


def gather_notices(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what was odd about cases, each once, with how many it is true of."""
    cases_of: dict[str, list[str]] = {}
    for record in records:
        for notice in record.get("notices", ()):
            cases_of.setdefault(notice, []).append(record["case_id"])
    return [
        f"{ids[0] if len(ids) == 1 else f'{len(ids)} cases such as {ids[0]}'}: {notice}"
        for notice, ids in cases_of.items()
    ]


def _conclude(
    folder: PredictionFolder,
    cohort: Cohort,
    records: list[dict[str, Any]],
    refused: Mapping[str, str],
    identity: Mapping[str, Any],
    console: Console,
) -> int:
    notes = {record["case_id"]: record.get("notes", ()) for record in records}
    notices = [*cohort.notices, *gather_notices(records), *summarise_notes(notes)]
    for notice in notices:
        console.print(f"notice: {notice}", markup=False, style="yellow", soft_wrap=True)
    metrics = {
        "settings": identity,
        "refused": refused,
        "notices": notices,
        "mean": mean_of_records(records),
        "cases": records,
    }
    folder.write(METRICS, (json.dumps(metrics, indent=2) + "\n").encode())
    folder.write(TABLE, encode_csv(records))
    name = folder.uri.rsplit("/", 1)[-1]
    page = build_report(
        name, records, refused, identity, notices=notices, regions=cohort.task.regions, read=folder.read
    )
    folder.write(REPORT, page)
    if not records:
        console.print("no case could be segmented; the reasons are above", style="red")
        return REFUSED
    print_means(records, console, title=f"{len(records)} cases segmented, {len(refused)} refused")
    for what, name in {"segmentations": "", "scores": TABLE, "report": REPORT}.items():
        console.print(f"{what:<13} {folder.uri}/{name}", soft_wrap=True, highlight=False)
    return REFUSED if refused else 0
