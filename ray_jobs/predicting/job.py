"""A prediction from its checked settings to the report: what is to do, spread over the cluster, written as it comes."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from models import Decision, RegionRules
from ray_jobs.checkpoints.checkpoint import MODEL, Checkpoint
from ray_jobs.checkpoints.lookup import other_version
from ray_jobs.checkpoints.trained_on import read_spacing
from ray_jobs.on_ray.ray_start import choose_workers, refuse_hidden_folder
from ray_jobs.on_ray.spread import spread_and_finish
from ray_jobs.predicting.case_by_case import CasesToDo, Words
from ray_jobs.predicting.conclusion import do_and_report
from ray_jobs.predicting.finishing import CaseFinisher
from ray_jobs.predicting.folder import CaseFolder
from ray_jobs.predicting.input import Cohort, Told, open_cohort
from ray_jobs.predicting.predict_config import PredictConfig, may_lack_scans
from ray_jobs.predicting.prediction import MakePredictor, PredictionPlan
from ray_jobs.settings.label_choice import refuse_incomplete, told_task, told_values
from scoring import RulesName
from storage import Task

PREDICTED = Words(doing="predicting", done="segmented", none="no case could be segmented", files="segmentations")


def predict(
    config: PredictConfig,
    checkpoints: Sequence[Checkpoint],
    task: Task,
    modalities: tuple[str, ...],
    decision: Decision,
    scored_by: RulesName,
    folder: CaseFolder,
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
        some_scans=may_lack_scans(checkpoints),
    )
    for convention in [written.convention] if written is not None else cohort.conventions:
        refuse_incomplete(convention, task)
    rules = RegionRules(
        labels=tuple(region.labels for region in task.regions),
        overlap=config.overlap_rule,
        **vars(decision),
    )
    plan = PredictionPlan(
        checkpoints=tuple(checkpoint.uri for checkpoint in checkpoints),
        source=cohort.source,
        rules=rules,
        inference=config.inference,
        probabilities=config.probabilities,
    )
    finish = CaseFinisher(
        scored_by=scored_by,
        written=None if written is None else written.convention,
        figures=config.figures,
        viewer=config.viewer,
        spacing=read_spacing(checkpoints[0]),
    )
    cases = CasesToDo(
        sources=cohort.sources,
        refused=cohort.refused,
        identity=describe_prediction(plan, finish, checkpoints, cohort, modalities),
        regions=cohort.task.regions,
        rules=scored_by,
        notices=(*cohort.notices, *filter(None, map(other_version, checkpoints))),
    )
    said = f"{'GPU' if use_gpu else 'CPU'}, labels as {names_of_values(finish, cohort)}"
    make = MakePredictor(plan=plan, use_gpu=use_gpu)
    spread_out = partial(spread_and_finish, make, finish, workers=workers, use_gpu=use_gpu)
    return do_and_report(spread_out, cases, folder, console, words=PREDICTED, said=said, workers=workers)


def describe_prediction(
    plan: PredictionPlan,
    finish: CaseFinisher,
    checkpoints: Sequence[Checkpoint],
    cohort: Cohort,
    modalities: Sequence[str],
) -> dict[str, Any]:
    """Return, as JSON, all that decides what is written: another value of it wants another output folder."""
    digests = [hashlib.sha256(checkpoint.read(MODEL)).hexdigest() for checkpoint in checkpoints]
    regions, rules = cohort.task.region_names, plan.rules
    described = {
        "input": cohort.uri,
        "modalities": list(modalities),
        "checkpoints": {
            checkpoint.uri: {"weights_sha256": digest} for checkpoint, digest in zip(checkpoints, digests, strict=True)
        },
        "thresholds": dict(zip(regions, rules.thresholds, strict=True)),
        "overlap_rule": rules.overlap,
        "smallest_mm3": dict(zip(regions, rules.smallest, strict=True)),
        "rules": finish.scored_by,
        "inference": dataclasses.asdict(plan.inference),
        "label_convention": ", ".join(convention.name for convention in cohort.conventions),
        "write_convention": names_of_values(finish, cohort),
        "probabilities": plan.probabilities,
        "figures": finish.figures,
    }
    # Only where they are not as ever: folders of before, which do not name them, go on.
    if rules.largest_tumour_only:
        described["largest_tumour_only"] = True
    if any(rules.empty_below):
        described["empty_below_mm3"] = dict(zip(regions, rules.empty_below, strict=True))
    if not finish.viewer:
        described["viewer"] = False
    decoded: dict[str, Any] = json.loads(json.dumps(described))
    return decoded


def names_of_values(finish: CaseFinisher, cohort: Cohort) -> str:
    """Return in whose values segmentations are written."""
    written = cohort.conventions if finish.written is None else [finish.written]
    return ", ".join(convention.name for convention in written)
