"""What a run would be, before anything is rented and without Ray: split, plan, memory, hours and dollars.

Each figure says where it is from; what nobody has measured is said not to be known.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from models import Execution, Precision, choose_precision
from models.memory import NotPredictedError, count_step_bytes, find_peak
from models.precision import BFLOAT16, FLOAT16
from ray_jobs.checkpoints.run_folder import SUMMARY
from ray_jobs.on_ray.address import on_a_cluster
from ray_jobs.on_ray.cores import share_of_cores
from ray_jobs.on_ray.planned_machines import PROJECT_FILE, dollars_an_hour, plan_machines, read_worker_machines
from ray_jobs.settings.config import TrainConfig, without_former_parts
from ray_jobs.settings.folders import store_folder
from ray_jobs.settings.input_check import fit_to_store
from ray_jobs.settings.prices import KINDS, SNAPSHOT, Machine
from ray_jobs.training.memory_plan import GIB, Card, Settled, decide, find_card, median_shape, weight_copies
from ray_jobs.watching.step_clock import STEP_PARTS
from storage import CohortStore, InputError, Splits, open_store, split_cohort
from storage.store.objects import Objects

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """What a run would train on: machines where they are known, the GPU of each worker, and what it computes in."""

    machine: Machine | None
    card: Card | None
    precision: Precision
    workers: int

    @property
    def device(self) -> str:
        """As PyTorch names it, or a part of that."""
        return self.card.name if self.card is not None else "cpu"

    def __str__(self) -> str:
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        on = f" on {self.machine}" if self.machine is not None else ""
        return f"{workers}{on}, {self.device} each, {self.precision.name}"


def describe_run(config: TrainConfig) -> Iterator[str]:
    """Yield lines on what a run of `config` would be. Writes nothing."""
    store = find_store(config)
    if store is None:
        yield "split, plan and hours: not known before the source is converted (python ray_jobs/convert.py)"
        return
    config = fit_to_store(config, store)
    folds = config.splits.folds if config.splits.fold is None else None
    splits = split_cohort(store, config.splits.of_fold(0) if folds else config.splits, remember=False)
    yield describe_split(splits) + (f", the first of {folds} folds" if folds else "")
    place, *others = find_places(config)
    if config.sampling.global_batch_size % place.workers:
        raise InputError(
            f"--sampling.global-batch-size {config.sampling.global_batch_size} does not divide among "
            f"{place.workers} workers: give another --workers"
        )
    yield f"place: {place}"
    settled = settle(config, place, store, splits)
    yield f"plan: {describe_plan(config, place, settled)}"
    steps = config.epochs * config.sampling.patches_per_epoch // config.sampling.global_batch_size * (folds or 1)
    yield f"steps: {steps} of {config.sampling.global_batch_size} patches"
    yield from describe_hours(config, place, settled, patches=steps * config.sampling.global_batch_size)
    for other in others:
        assert other.machine is not None
        yield f"or on {other.machine}: {dollars_an_hour(other.machine, other.workers) or 0.0:.2f} dollars an hour"


def find_store(config: TrainConfig) -> CohortStore | None:
    """The store of `config`; None where it is still to be made."""
    if config.store is not None:
        return open_store(config.store)
    made = None if config.source is None else store_folder(config.source)
    return open_store(str(made)) if made is not None and made.exists() else None


def describe_split(splits: Splits) -> str:
    """How the cases are dealt out."""
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    return f"split: {', '.join(f'{len(cases)} {name}' for name, cases in parts.items())} cases"


def find_places(config: TrainConfig) -> list[Place]:
    """What the run may train on: this machine's GPUs or cores, or the machines of the cluster's file."""
    machines = plan_machines()
    if not machines and config.gpu and not torch.cuda.is_available() and not on_a_cluster() and PROJECT_FILE.exists():
        machines = read_worker_machines(PROJECT_FILE)
    if not machines or (torch.cuda.is_available() and not on_a_cluster()):
        machine = machines[0] if machines else None
        return [find_place_here(config, machine)]
    return [place_on(machine, config) for machine in machines]


def find_place_here(config: TrainConfig, machine: Machine | None) -> Place:
    """This machine, as it is."""
    if config.gpu and not torch.cuda.is_available():
        raise InputError(
            "--dry-run knows no machine for this run: it wants GPUs, and neither this one has any nor does a cluster's "
            "file name AWS's; give --gpu False, or ask on a machine of that kind"
        )
    with_gpu = torch.cuda.is_available() and config.gpu is not False
    device = torch.device("cuda", 0) if with_gpu else CPU
    return Place(
        machine=machine,
        card=find_card(device),
        precision=choose_precision(device, config.precision, config.model),
        workers=config.workers or (torch.cuda.device_count() if with_gpu else min(2, share_of_cores(1))),
    )


def place_on(machine: Machine, config: TrainConfig) -> Place:
    """A machine of AWS's that is not there yet. Raises InputError for one that is not in the table."""
    kind = KINDS.get(machine.kind)
    if kind is None:
        raise InputError(f"--dry-run knows {', '.join(KINDS)}, not {machine.kind}: ask on a machine of that kind")
    old = kind.card == "T4"  # float16 is all that its tensor cores know
    precision = FLOAT16 if old else BFLOAT16
    if config.precision != "auto":
        precision = choose_precision(CPU, config.precision)
    card = Card(name=kind.card, memory=round(kind.gpu_gib * GIB))
    return Place(machine=machine, card=card, precision=precision, workers=config.workers or kind.gpus)


def settle(config: TrainConfig, place: Place, store: CohortStore, splits: Splits) -> Settled:
    """Patch, micro-batch and recomputing as the run would settle them there."""
    shape = median_shape([config.frame.box(store.info(case_id))[1] for case_id in splits.train])
    return decide(config, place.card, place.precision, workers=place.workers, shape=shape)


def describe_plan(config: TrainConfig, place: Place, settled: Settled) -> str:
    """The plan, why, and what it takes of memory."""
    if place.card is not None:
        return settled.reason
    share = config.sampling.global_batch_size // place.workers
    sides = config.sampling.patch_shape
    try:
        taken = count_step_bytes(
            config.model,
            config.loss,
            place.precision,
            sides=sides,
            batch=min(config.micro_batch_size or share, share),
            execution=Execution(activation_checkpointing=settled.activation_checkpointing),
            on_gpu=False,
        )
        weights = find_peak(config.model, config.loss, place.precision, recompute=False, sides=sides).weights
    except NotPredictedError as error:
        return f"{settled.reason}; what a step takes is not known: {error}"
    gib = (taken + weight_copies(config) * weights) / GIB
    return f"{settled.reason}; a step is predicted to take {gib:.2f} GiB a worker, beside PyTorch and the feed"


def describe_hours(config: TrainConfig, place: Place, settled: Settled, *, patches: int) -> Iterator[str]:
    """Hours and dollars, by the fastest recorded run that did the same steps on as many such devices."""
    found = find_record(config, place, settled)
    if found is None:
        yield (
            f"hours: not known; no finished run in {config.runs} did such steps with {place.workers} workers on "
            f"{place.device}"
        )
        hours = None
    else:
        seconds = found["time"]["seconds"]
        steps = patches / found["throughput"]["patches_per_second"] / 3600
        hours = steps * sum(seconds.values()) / sum(seconds[part] for part in STEP_PARTS)
        yield (
            f"hours: {steps:.2f} for the steps, {hours:.2f} with validation, checkpoints and start, as run "
            f"{found['run']} took ({found['throughput']['patches_per_second']:.2f} patches/s)"
        )
    rate = None if place.machine is None else dollars_an_hour(place.machine, place.workers)
    if rate is None:
        yield "dollars: the price of this machine is not known"
    else:
        total = "" if hours is None else f"{hours * rate:.2f}, by hours and "
        yield f"dollars: {total}{rate:.2f} an hour for the workers; the head comes to it ({SNAPSHOT})"


def find_record(config: TrainConfig, place: Place, settled: Settled) -> Mapping[str, Any] | None:
    """The fastest finished run below --runs with this network, patch, batch and precision on as many such devices."""
    wanted = {
        "model": own_fields(json.loads(json.dumps(dataclasses.asdict(config.model)))),
        "patch": list(settled.patch_shape),
        "batch": config.sampling.global_batch_size,
        "workers": place.workers,
        "precision": place.precision.name,
    }
    found = []
    for summary in read_summaries(config.runs):
        did, speed = summary["config"], summary["throughput"]
        there = {
            "model": own_fields(did["model"]),
            "patch": did["sampling"]["patch_shape"],
            "batch": did["sampling"]["global_batch_size"],
            "workers": speed["world_size"],
            "precision": speed["precision"],
        }
        if there == wanted and place.device in speed["device"]:
            found.append(summary)
    return max(found, key=lambda summary: float(summary["throughput"]["patches_per_second"]), default=None)


def own_fields(model: Mapping[str, Any]) -> dict[str, Any]:
    """Of a network what says anything of it, whichever version wrote it."""
    own: dict[str, Any] = without_former_parts({"model": model})["model"]
    return own


def read_summaries(runs: str) -> list[dict[str, Any]]:
    """What the finished runs below `runs` say of themselves; earlier versions did not write their configuration."""
    if "://" not in runs and not Path(runs).is_dir():
        return []
    objects = Objects(runs)
    raw = objects.get_many([f"{name}/{SUMMARY}" for name in objects.folders("")])
    summaries = [json.loads(each) for each in raw if each is not None]
    return [summary for summary in summaries if {"config", "throughput", "time"} <= summary.keys()]
