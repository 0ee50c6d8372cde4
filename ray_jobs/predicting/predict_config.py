"""What a prediction is told, and what its checkpoints say where it is told nothing."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from models import Decision, OverlapRule, join_decisions
from ray_jobs.checkpoints.checkpoint import Checkpoint
from ray_jobs.checkpoints.lookup import read_config, read_modalities, refuse_other_scans
from ray_jobs.checkpoints.trained_on import read_task, refuse_other_task
from ray_jobs.evaluation.decision_file import read_decision
from ray_jobs.settings.groups import refuse_below_one
from ray_jobs.settings.label_choice import told_task, told_values
from scoring import RULES_NAMES, RulesName, default_rules, tasks_of
from storage import MODALITIES, InputError, Task
from storage.archives.kinds import SourceKind, find_kind, is_archive_name, place_of
from storage.store.index import ROOT_KEY
from storage.store.objects import Objects


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How whole cases go through the networks. What is not given is as the network was validated."""

    whole: bool | None = None
    """Predict each case (3-D) or slice (2-D) at once, not in windows of the patch's shape; see docs/results.md."""
    mirror: bool | None = None
    """Average the predictions of all mirror images: eight times the work in 3-D, four in 2-D."""
    overlap: float | None = None
    """Share of a window that its neighbour covers too."""
    window_batch: int | None = None
    """Windows (3-D) or slices (2-D) predicted at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Segment every case of a folder or store; score those that have a label; draw them; write a report."""

    checkpoint: tuple[str, ...]
    """Checkpoint folders, runs' folders for their best one, or a cross-validation's for that of each fold: paths or
    s3:// URLs. Several are averaged."""
    input: str
    """Folder, .zip or .tar with NIfTI cases at any depth, labelled or not, or a store: a path or an s3:// URL."""
    output: str
    """Folder for the segmentations, scores, figures and the report: a path or an s3:// URL."""
    thresholds: tuple[float, ...] | None = None
    """Probabilities from which each of the task's regions counts. Default: the checkpoint's, of several their mean."""
    overlap_rule: OverlapRule = "inner"
    """Where thresholds contradict each other: inner, an inner region makes those around it; outer, it is nothing
    outside of them."""
    smallest_mm3: tuple[float, ...] | None = None
    """Connected components of each region smaller than this are left out. Default: as the checkpoint says; of several
    what all of them leave out, here and below."""
    largest_tumour_only: bool | None = None
    """Of the whole tumour keep only the largest component, after the small ones. Default: as the checkpoint says."""
    empty_below_mm3: tuple[float, ...] | None = None
    """A region of which less than this is left in all is left out. Default: as the checkpoint says."""
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    rules: RulesName | None = None
    """Whose rules cases with a label are scored by. Default: those of the task's year; see docs/scores.md."""
    probabilities: bool = False
    """Also write <case_id>_prob.nii.gz: float32, the task's regions along the fourth axis."""
    figures: bool = True
    """Draw cross-sections and a 3-D render of each case."""
    viewer: bool = True
    """Keep a copy of each case's scans, of 8 bits, in which the report lets one scroll: 2 to 3 MB a case."""
    modalities: tuple[str, ...] | None = None
    """The scans the networks were trained on, in that order. Default: as the checkpoint says; older ones do not, then
    flair t1 t1ce t2."""
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    """How file names end where they are not BraTS names: flair ENDING t1 ENDING … label ENDING."""
    task: str | None = None
    """Which task the cases of a folder are of, where names and label values leave two; see convert.py."""
    label_map: dict[int, int] = dataclasses.field(default_factory=dict)
    """Other labels: each source value and its stored one; see convert.py."""
    trust_grid: bool = False
    """Take files of equal shape to lie alike where headers put them elsewhere; see convert.py."""
    write_task: str | None = None
    """Write the segmentations in the values of this task. Default: in those of each case's own."""
    workers: int | None = None
    """Cases predicted at once, each by a worker with its own copy of the networks. Default: one per GPU, else two."""
    gpu: bool | None = None
    """Whether each worker has a GPU. Default: where there are GPUs."""

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise InputError("wanted --checkpoint FOLDER, or several, got none")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds or ()):
            raise InputError(f"--thresholds must lie in [0, 1], got {self.thresholds}")
        for flag, sizes in (("--smallest-mm3", self.smallest_mm3), ("--empty-below-mm3", self.empty_below_mm3)):
            if not all(0 <= size < math.inf for size in sizes or ()):
                raise InputError(f"{flag} must be 0 or more, got {sizes}")
        refuse_below_one(self, "workers")
        told_task(self.task)
        told_task(self.write_task, flag="--write-task")
        told_values(self.label_map)


def is_store(place: str) -> bool:
    """Return whether a store lies at a path, by its root; at a URL whether its name is that of no archive."""
    if "://" in place:
        return not is_archive_name(place)
    return Path(place).expanduser().is_dir() and Objects(place).get(ROOT_KEY) is not None


def find_input(place: str) -> tuple[str, SourceKind]:
    """Return the folder or archive that --input names, and how it is read; raises InputError where there is none."""
    kind = find_kind(place, wanted="--input with a .zip or .tar, a folder of NIfTI cases or a store")
    if kind is SourceKind.STREAM:
        raise InputError(
            f"wanted --input with a folder of NIfTI cases, a store, a .zip or a .tar, found a compressed tar: {place} "
            "is read from its beginning only; decompress it to a .tar, or make a store of it with convert.py"
        )
    return place_of(place), kind


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


def may_lack_scans(checkpoints: Sequence[Checkpoint]) -> bool:
    """Return whether all these networks were trained to do without scans too."""
    return all(read_config(checkpoint).sampling.modality_dropout > 0 for checkpoint in checkpoints)


def choose_task(checkpoints: Sequence[Checkpoint]) -> Task:
    """Return the task of the networks; raises InputError where they have other regions, whose mean is nothing."""
    task = read_task(checkpoints[0])
    remedy = "only networks of the same regions can be averaged; give one of them alone"
    for checkpoint in checkpoints:
        refuse_other_task(checkpoint, task, checkpoints[0].uri, remedy)
    return task


def choose_rules(told: RulesName | None, task: Task) -> RulesName:
    """Return the rules to score a task by: those told, else its own; raises InputError where they do not know it."""
    if told is not None and told != "plain" and task.name not in tasks_of(told):
        known = ", ".join(rules for rules in RULES_NAMES if rules == "plain" or task.name in tasks_of(rules))
        name = task.name or "without a name, of an older checkpoint,"
        raise InputError(f"wanted --rules that know the task {name} ({known}), got {told}")
    return told or default_rules(task)


def choose_decision(config: PredictConfig, checkpoints: Sequence[Checkpoint], task: Task) -> Decision:
    """Return what makes regions of probabilities: the flags that are given, else what the checkpoints decided.

    Raises InputError where a checkpoint has no decision, and where other than one value for each region are given.
    """
    for flag in ("thresholds", "smallest_mm3", "empty_below_mm3"):
        given = getattr(config, flag)
        if given and len(given) != len(task.regions):
            name = f"--{flag.replace('_', '-')}"
            raise InputError(f"wanted {name} for {', '.join(task.region_names)}, got {len(given)} numbers")
    found = [read_decision(checkpoint) for checkpoint in checkpoints]
    if config.thresholds is None:
        for checkpoint, decision in zip(checkpoints, found, strict=True):
            if decision is None:
                raise InputError(
                    f"wanted thresholds in {checkpoint.uri}, found none: it was not validated; "
                    f"give --thresholds {' '.join(task.region_names)}"
                )
    saved = join_decisions([decision or Decision.plain(len(task.regions)) for decision in found])
    none = (0.0,) * len(task.regions)
    largest = config.largest_tumour_only
    return Decision(
        thresholds=config.thresholds or saved.thresholds,
        smallest_mm3=saved.smallest if config.smallest_mm3 is None else config.smallest_mm3 or none,
        largest_tumour_only=saved.largest_tumour_only if largest is None else largest,
        empty_below_mm3=saved.empty_below if config.empty_below_mm3 is None else config.empty_below_mm3 or none,
    )
