"""The training run's configuration, composed of what the other packages own, and where its defaults come from.

This is the only file that reads the environment: BRATS_PRESET, BRATS_WORKERS, BRATS_STORE and BRATS_RUNS give a
cluster's defaults, so that `ray job submit -- python ray_jobs/train.py` needs no arguments there.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args, get_type_hints

from dali_pipelines import AugmentationConfig, SamplingConfig
from models import FUNCTION_FIELDS, IMPORTED_FIELDS, Execution, LossConfig, Objective, UNetConfig
from ray_jobs.settings.folders import home_folder
from ray_jobs.settings.groups import (
    CheckpointConfig,
    OptimiserConfig,
    ParallelConfig,
    ValidationConfig,
    refuse_below_one,
)
from storage import Frame, InputError, SplitConfig

THRESHOLD_STEPS = 1000  # of models.thresholds' grid

PATCH = "sampling.patch_shape"
ByMemory = Literal["sampling.patch_shape", "micro_batch_size", "execution.activation_checkpointing"]
BY_MEMORY: tuple[ByMemory, ...] = get_args(ByMemory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a U-Net on BraTS cases. Without --source or --store it writes and uses a synthetic cohort."""

    preset: str = "demo"
    """Named starting point for everything below: demo, laptop, brats3d, g4dn, resenc_m, resenc_l, brats2d, cs231n3d or
    cs231n2d."""
    source: str | None = None
    """BraTS cases as downloaded: a folder, .zip, .tar or .tar.gz; converted once, found again next time."""
    store: str | None = None
    """Zarr store made by convert.py: a path or an s3:// URL."""
    runs: str = "runs"
    """Where runs are kept: a path or an s3:// URL."""
    name: str | None = None
    """Name of the run, or of the search: train.py resumes the run of that name, tune.py with --resume the search.
    Default: preset and a hash of configuration and store."""
    init_from: str | None = None
    """Checkpoint, or a run's folder for its best one, whose weights a new run begins with: for more epochs than a
    finished run had, or other settings of training. A path or an s3:// URL."""
    workers: int | None = None
    """Training processes, one per GPU. Default: one per GPU, or two on a machine without."""
    min_workers: int | None = None
    """Go on with as few workers as this while the cluster has no more, with the same global batch. Default: --workers.
    """
    gpu: bool | None = None
    """Whether each worker has a GPU. Default: where there are GPUs."""
    dashboard: bool = True
    """Whether Ray's dashboard is started (docs/watching.md) where the command starts Ray itself for one run."""
    max_failures: int = 3
    """How often lost workers are started again before the run gives up."""
    max_cost: float | None = None
    """Dollars that the machines of the run's workers may cost in all its starts, by list prices; then it saves and
    stops."""
    max_cost_an_hour: float | None = None
    """Dollars that they may cost an hour; above it the run saves and stops."""
    dry_run: bool = False
    """Say split, plan, memory, hours and dollars, as far as they are known, and do nothing."""
    cache_gb: float = 50.0
    """Local disk for decoded cases, shared by the ranks of a node, in GB."""
    read_threads: int = 2
    """CPU threads that read patches for a rank."""
    ready_batches: int = 8
    """Batches that the loader of a rank holds ready against slow ones. They take memory where training runs."""
    epochs: int = 10
    """Passes over sampling.patches-per-epoch patches; the learning rate falls to zero over all of them."""
    micro_batch_size: int | None = None
    """Patches a rank computes at once: it works off its share of the global batch in such parts and adds up their
    gradients. Batch Dice is then taken over a part. Default: the whole share."""
    by_memory: tuple[ByMemory, ...] = ()
    """What the memory of the run's smallest GPU and the cases' shapes settle at the first start; a patch then has the
    sides given here at most. Without GPUs all is as given. Default: what the preset names and no flag gives."""
    objective: Objective = "iou"
    """The plain score (docs/scores.md) of the validation cases that is maximised: for each region by its threshold, in
    the mean over the regions by the best checkpoint, patience, plateau and searches."""
    patience: int | None = None
    """Validations in a row without a better score after which the run ends. Default: all epochs are done."""
    on_bad_case: Literal["skip", "raise"] = "skip"
    """A case that can no longer be read is named, and then: another takes its place (in a score it is left out), or
    the run ends."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on Ampere or newer, float16 on older GPUs; on CPUs what was measured to be faster there."""
    thresholds: tuple[float, ...] | None = None
    """Probabilities from which each of the task's regions counts as predicted, in steps of 0.001; they are saved with
    the model. Default: those with the best --objective on the validation cases, found anew at each validation."""
    normalisation: Literal["zscore", "minmax"] = "zscore"
    """zscore: (x - mean) / std over the brain; minmax: scaled to [0, 1]. Saved with the model."""
    frame: Frame = dataclasses.field(default_factory=Frame)
    splits: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    sampling: SamplingConfig
    augmentation: AugmentationConfig
    model: UNetConfig
    execution: Execution = dataclasses.field(default_factory=Execution)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    validation: ValidationConfig = dataclasses.field(default_factory=ValidationConfig)
    checkpoints: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        if self.source is not None and self.store is not None:
            raise InputError("give --source (NIfTI) or --store (already converted), not both")
        refuse_below_one(self, "epochs", "workers", "min_workers", "read_threads", "ready_batches")
        refuse_below_one(self, "micro_batch_size", "patience")
        for name in ("max_cost", "max_cost_an_hour"):
            if (limit := getattr(self, name)) is not None and limit <= 0:
                raise InputError(f"--{name.replace('_', '-')} must be more than 0, got {limit}")
        for threshold in self.thresholds or ():
            if not 0 <= threshold <= 1 or round(threshold * THRESHOLD_STEPS) != threshold * THRESHOLD_STEPS:
                raise InputError(f"--thresholds must lie in [0, 1] in steps of 0.001, got {threshold}")
        if self.model.dimensions != self.sampling.dimensions:
            raise InputError(
                f"the model is {self.model.dimensions}-D and the patches are {self.sampling.dimensions}-D; "
                "give a preset in which they agree"
            )
        if self.loss.head != self.model.head:
            raise InputError(
                f"--loss.voxel {self.loss.voxel} wants --model.head {self.loss.head}, got {self.model.head}"
            )
        if self.model.network is not None and self.execution.activation_checkpointing:
            raise InputError(
                "--execution.activation-checkpointing recomputes the levels of a U-Net, and --model.network "
                f"{self.model.network} is none: leave it out, and see whether its own arguments can do that"
            )
        if not self.splits.validates:
            for flag, given in (
                ("--patience", self.patience is not None),
                ("--optimiser.schedule plateau", self.optimiser.schedule == "plateau"),
            ):
                if given:
                    raise InputError(
                        f"{flag} goes by the validation score, and --splits.validation-fraction 0 leaves none: "
                        "give that a share, or leave the other out"
                    )
        try:
            self.model.check_sides(self.sampling.patch_shape)
        except ValueError as error:
            raise InputError(f"--sampling.patch-shape: {error}") from error


# What may differ between two starts of one run: where it is kept and on how much machine it runs.
NOT_PART_OF_A_RUN = (
    *("preset", "source", "store", "runs", "name", "workers", "min_workers", "gpu", "max_failures", "cache_gb"),
    *("max_cost", "max_cost_an_hour", "dry_run", "dashboard"),
    *("on_bad_case", "checkpoints", "parallel", "read_threads", "ready_batches", "by_memory", "micro_batch_size"),
)


def environment_default(name: Literal["PRESET", "WORKERS", "STORE", "RUNS"]) -> str | None:
    """Return BRATS_<name>, or None where it is unset or empty."""
    return os.environ.get(f"BRATS_{name}") or None


def apply_environment(config: TrainConfig, *, ignore_store: bool = False) -> TrainConfig:
    """Fill in what the environment names: defaults that the command line may still change."""
    workers = environment_default("WORKERS")
    if workers is not None and not workers.isdecimal():
        raise InputError(f"BRATS_WORKERS must be a whole number, got {workers!r}")
    return dataclasses.replace(
        config,
        workers=int(workers) if workers else config.workers,
        store=config.store if ignore_store else environment_default("STORE") or config.store,
        runs=environment_default("RUNS") or str(home_folder() / "runs"),
    )


def run_identity(config: TrainConfig, store_digest: str) -> dict[str, Any]:
    """Return what makes two starts the same run: the configuration's part of the result, and the store's content."""
    part = {key: value for key, value in dataclasses.asdict(config).items() if key not in NOT_PART_OF_A_RUN}
    part["parallel"] = {"gradient_compression": config.parallel.gradient_compression}  # all that the result depends on
    if PATCH in config.by_memory:
        part["sampling"]["patch_shape"] = "by memory"
    if config.splits.folds is None:  # then it says nothing, and was 0 before it could be left open
        part["splits"]["fold"] = config.splits.fold or 0
    return without_former_parts({"store_digest": store_digest, **json.loads(json.dumps(part))})


# The groups that can name something imported, by which field, and the fields that say anything of that.
IMPORTED = (("model", "network", IMPORTED_FIELDS), ("loss", "function", FUNCTION_FIELDS))
# Fields that earlier versions did not know, by group, with what they are where a run leaves them open.
LEFT_OPEN: Mapping[str, Mapping[str, Any]] = {
    "model": {"region_labels": None, "network": None, "arguments": []},
    "loss": {"function": None, "arguments": []},
    "sampling": {"modality_dropout": 0.0},
    "augmentation": {"shift_probability": 0.0, "shift_range": [-0.3, 0.3]},
}


def idle_fields(config: TrainConfig) -> set[str]:
    """Return the fields, by their dotted names, that say nothing of the imported network or loss of `config`."""
    idle: set[str] = set()
    for group, named, used in IMPORTED:
        part = getattr(config, group)
        if getattr(part, named) is not None:
            idle |= {f"{group}.{field.name}" for field in dataclasses.fields(part) if field.name not in used}
    return idle


def without_former_parts(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity, which an earlier version may have written, without what is no part of a run any more.

    What such a version did not know and this run leaves open is left out as well: they are the same run.
    """
    part = {key: value for key, value in identity.items() if key != "micro_batch_size"}
    if part.get("objective") == "iou":  # which all runs maximised before they could do otherwise
        del part["objective"]
    if part.get("init_from") is None:
        part.pop("init_from", None)
    if "execution" in part:
        part["execution"] = {key: v for key, v in part["execution"].items() if key != "activation_checkpointing"}
    for group, named, used in IMPORTED:
        if part.get(group, {}).get(named) is not None:
            part[group] = {key: v for key, v in part[group].items() if key in used}
    for group, unknown in LEFT_OPEN.items():
        if group in part:
            part[group] = {key: v for key, v in part[group].items() if key not in unknown or v != unknown[key]}
    return part


def give_by_hand(config: TrainConfig, names: Collection[str]) -> TrainConfig:
    """Return `config` with these fields, by their dotted names, as they are given and not settled by memory."""
    return dataclasses.replace(config, by_memory=tuple(name for name in config.by_memory if name not in names))


def keep_given_patch(config: TrainConfig, before: Mapping[str, Any] | None) -> TrainConfig:
    """Return `config` with the patch of the run whose identity was `before`, where that was not settled by memory."""
    patch = before and before["sampling"]["patch_shape"]
    if PATCH not in config.by_memory or not isinstance(patch, list):
        return config
    sampling = dataclasses.replace(config.sampling, patch_shape=tuple(patch))
    return give_by_hand(dataclasses.replace(config, sampling=sampling), (PATCH,))


def describe_start(config: TrainConfig) -> dict[str, Any]:
    """Return the rest of the configuration, which may be another at the next start, as JSON."""
    rest = {key: value for key, value in dataclasses.asdict(config).items() if key in NOT_PART_OF_A_RUN}
    rest["activation_checkpointing"] = config.execution.activation_checkpointing
    described: dict[str, Any] = json.loads(json.dumps(rest, default=str))
    return described


def decode_config(values: Mapping[str, Any]) -> TrainConfig:
    """The inverse of `run_identity`; what is no part of a run gets its default. Raises InputError for unknown names.

    What a checkpoint says beside it is passed over.
    """
    beside = ("store_digest", "regions", "modalities", "task", "spacing", "made_with", "brought_from")
    own = {key: value for key, value in values.items() if key not in beside}
    decoded: TrainConfig = _decode(TrainConfig, own, "")
    return decoded


def _decode(kind: Any, values: Mapping[str, Any], place: str) -> Any:
    kinds = get_type_hints(kind)
    unknown = sorted(set(values) - set(kinds))
    if unknown:
        raise InputError(f"wanted a configuration of this version, found {place}{unknown[0]}, which it does not know")
    decoded = {}
    for key, value in values.items():
        nested = dataclasses.is_dataclass(kinds[key])
        decoded[key] = _decode(kinds[key], value, f"{place}{key}.") if nested else as_tuple(value)
    return kind(**decoded)


def as_tuple(value: Any) -> Any:
    """JSON's lists as the tuples that configurations hold, at any depth."""
    return tuple(as_tuple(item) for item in value) if isinstance(value, list) else value


def default_run_name(config: TrainConfig, store_digest: str) -> str:
    """Return `<preset>-<hash>`, the same for the same configuration and store."""
    return f"{config.preset}-{short_hash(run_identity(config, store_digest))}"


def short_hash(identity: Mapping[str, Any]) -> str:
    """Return eight digits that are the same for the same identity; so they were before memory settled anything."""
    named = {**identity, "micro_batch_size": None}
    named["execution"] = {**identity["execution"], "activation_checkpointing": False}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:8]
