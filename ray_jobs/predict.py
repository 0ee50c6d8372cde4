"""Segment cases with trained networks: `python ray_jobs/predict.py --checkpoint C --input DIR_OR_STORE --output DIR`.

Exit status: 0 when every case is segmented, 3 when some were refused (named here and in metrics.json), 2 when nothing
could be done with what was given. Run again, it does only what is missing.
"""

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from models import OverlapRule, RegionRules
from ray_jobs.case_scores import encode_csv, mean_of_records, print_means
from ray_jobs.checkpoint import MODEL, Checkpoint
from ray_jobs.command import parse
from ray_jobs.console import open_console, tracked
from ray_jobs.exit_status import run_command
from ray_jobs.label_choice import refuse_incomplete, told_convention
from ray_jobs.prediction import InferenceConfig, MakePredictor, PredictionPlan
from ray_jobs.prediction_folder import PredictionFolder, refuse_overlap
from ray_jobs.prediction_input import Cohort, open_cohort
from ray_jobs.provenance import git_commit
from ray_jobs.ray_start import choose_workers, ray_running, refuse_hidden_folder
from ray_jobs.report_page import build_report
from ray_jobs.spread import spread
from ray_jobs.trained import find_checkpoint, read_modalities, read_thresholds, refuse_other_scans
from storage import MODALITIES, REGIONS, InputError

REFUSED = 3
# What the first screen of --help leaves out: how unusual names and labels are told, and where it runs.
SELDOM = ("--modalities", "--names", "--label-convention", "--label-map", "--write-convention", "--workers", "--gpu")
METRICS, TABLE, REPORT = "metrics.json", "metrics.csv", "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Segment every case of a folder or store; score those that have a label; draw them; write a report."""

    checkpoint: tuple[str, ...]
    """Checkpoint folders, or runs' folders for their best one: paths or s3:// URLs. Several are averaged."""
    input: str
    """Folder with NIfTI cases at any depth, labelled or not, or a store: a path or an s3:// URL."""
    output: str
    """Folder for the segmentations, scores, figures and the report: a path or an s3:// URL."""
    thresholds: tuple[float, float, float] | None = None
    """Probabilities from which WT, TC and ET count. Default: the checkpoint's (of several, their mean)."""
    overlap_rule: OverlapRule = "inner"
    """Where thresholds contradict each other: inner, ET makes TC and WT; outer, there is no ET outside TC and WT."""
    smallest_mm3: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Connected components of WT, TC and ET smaller than this are left out."""
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    probabilities: bool = False
    """Also write <case_id>_prob.nii.gz: float32, the regions WT, TC, ET along the fourth axis."""
    figures: bool = True
    """Draw cross-sections and a 3-D render of each case."""
    modalities: tuple[str, ...] | None = None
    """The scans the networks were trained on, in that order. Default: as the checkpoint says; older ones do not, then
    flair t1 t1ce t2."""
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    """How file names end where they are not BraTS names: flair ENDING t1 ENDING … label ENDING."""
    label_convention: str | None = None
    """What the input's labels mean: brats-124, brats-123, gli-2024, msd or brats-2013; else told from the cohort."""
    label_map: dict[int, int] = dataclasses.field(default_factory=dict)
    """Other labels: each source value and its stored one (1 core, 2 edema, 3 enhancing, 4 cavity), as 1 1 2 2 4 3."""
    write_convention: str | None = None
    """What the segmentations' values mean. Default: the same as the input's labels."""
    workers: int | None = None
    """Cases predicted at once, each by a worker with its own copy of the networks. Default: one per GPU, else two."""
    gpu: bool | None = None
    """Whether each worker has a GPU. Default: where there are GPUs."""

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise InputError("wanted --checkpoint FOLDER, or several, got none")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds or ()):
            raise InputError(f"--thresholds must lie in [0, 1], got {self.thresholds}")
        if not all(0 <= smallest < math.inf for smallest in self.smallest_mm3):
            raise InputError(f"--smallest-mm3 must be 0 or more, got {self.smallest_mm3}")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers must be at least 1, got {self.workers}")


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = parse(arguments, PredictConfig, seldom=SELDOM)
    checkpoints = [find_checkpoint(uri) for uri in config.checkpoint]
    modalities = choose_modalities(config, checkpoints)
    thresholds = choose_thresholds(config, checkpoints)
    folder = PredictionFolder(config.output)
    if folder.folder is not None and "://" not in config.input:
        refuse_overlap(folder.folder.resolve(), Path(config.input).expanduser().resolve())
    console = open_console()
    with ray_running():
        return _predict(config, checkpoints, modalities, thresholds, folder, console)


def choose_modalities(config: PredictConfig, checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Return the scans to read, in order: those given, else the checkpoints' own.

    Raises InputError where a network was trained on others, or on the same in another order.
    """
    known = [(checkpoint.uri, own) for checkpoint in checkpoints if (own := read_modalities(checkpoint)) is not None]
    source, modalities = "--modalities", MODALITIES if config.modalities is None else config.modalities
    if not known:
        remedy = "name those it was trained on with --modalities, in that order"
    elif config.modalities is not None:
        remedy = "leave out --modalities, or give a checkpoint that was trained on those"
    else:
        source, modalities = known[0]
        remedy = "only networks of the same scans in the same order can be averaged; give one of them alone"
    for checkpoint in checkpoints:
        refuse_other_scans(checkpoint, modalities, source, remedy)
    return modalities


def choose_thresholds(config: PredictConfig, checkpoints: Sequence[Checkpoint]) -> tuple[float, ...]:
    """Return the thresholds of WT, TC and ET: those given, else the mean of the checkpoints' own.

    Raises InputError where a checkpoint has none.
    """
    if config.thresholds is not None:
        return config.thresholds
    found = [read_thresholds(checkpoint) for checkpoint in checkpoints]
    for checkpoint, thresholds in zip(checkpoints, found, strict=True):
        if thresholds is None:
            raise InputError(
                f"wanted thresholds in {checkpoint.uri}, found none: it was not validated; give --thresholds WT TC ET"
            )
    return tuple(math.fsum(each[region] for each in found if each) / len(found) for region in REGIONS)


def _predict(
    config: PredictConfig,
    checkpoints: Sequence[Checkpoint],
    modalities: tuple[str, ...],
    thresholds: tuple[float, ...],
    folder: PredictionFolder,
    console: Console,
) -> int:
    workers, use_gpu = choose_workers(config.workers, gpu=config.gpu)
    for checkpoint in checkpoints:
        refuse_hidden_folder(checkpoint.uri, "checkpoint")
    written = told_convention(config.write_convention, {}, flag="--write-convention")
    told = told_convention(config.label_convention, config.label_map)
    cohort = open_cohort(
        config.input, modalities=modalities, names=config.names, told=told, instead=written, workers=workers
    )
    convention = written or cohort.source.convention
    refuse_incomplete(convention)
    rules = RegionRules(thresholds=thresholds, overlap=config.overlap_rule, smallest_mm3=config.smallest_mm3)
    plan = PredictionPlan(
        checkpoints=tuple(checkpoint.uri for checkpoint in checkpoints),
        source=cohort.source,
        rules=rules,
        inference=config.inference,
        convention=convention,
        probabilities=config.probabilities,
        figures=config.figures,
    )
    identity = describe_prediction(plan, checkpoints, cohort, modalities)
    folder.claim(identity)
    made_by = {**identity, "git_commit": git_commit()}
    total, records = len(cohort.sources), folder.finished(cohort.sources)
    todo = [case_id for case_id in cohort.sources if case_id not in records]
    how = (
        f"{min(workers, len(todo)) or workers} at once, {'GPU' if use_gpu else 'CPU'}, labels as {plan.convention.name}"
    )
    console.print(f"{len(todo)} of {total} cases to do, {how}")
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
    return _conclude(folder, done, refused, identity, console)


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
        "thresholds": dict(zip(REGIONS, plan.rules.thresholds, strict=True)),
        "overlap_rule": plan.rules.overlap,
        "smallest_mm3": dict(zip(REGIONS, plan.rules.smallest_mm3 or (), strict=True)),
        "inference": dataclasses.asdict(plan.inference),
        "label_convention": cohort.source.convention.name,
        "write_convention": plan.convention.name,
        "probabilities": plan.probabilities,
        "figures": plan.figures,
    }
    decoded: dict[str, Any] = json.loads(json.dumps(described))
    return decoded


def name_case(case_id: str, reason: str) -> str:
    """Return the reason with the case's name before it, once."""
    return reason if reason.startswith(case_id) else f"{case_id}: {reason}"


def _conclude(
    folder: PredictionFolder,
    records: list[dict[str, Any]],
    refused: Mapping[str, str],
    identity: Mapping[str, Any],
    console: Console,
) -> int:
    metrics = {"settings": identity, "refused": refused, "mean": mean_of_records(records), "cases": records}
    folder.write(METRICS, (json.dumps(metrics, indent=2) + "\n").encode())
    folder.write(TABLE, encode_csv(records))
    folder.write(REPORT, build_report(folder.uri.rsplit("/", 1)[-1], records, refused, identity, read=folder.read))
    if not records:
        console.print("no case could be segmented; the reasons are above", style="red")
        return REFUSED
    print_means(records, console, title=f"{len(records)} cases segmented, {len(refused)} refused")
    for what, name in {"segmentations": "", "scores": TABLE, "report": REPORT}.items():
        console.print(f"{what:<13} {folder.uri}/{name}", soft_wrap=True, highlight=False)
    return REFUSED if refused else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
