"""The parts of a training run, how they are built, and all of their state in a checkpoint and back."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from dali_pipelines import PatchLoader, Shard
from models import (
    Decision,
    Execution,
    Loss,
    Network,
    OptimiserStep,
    Precision,
    WeightAverage,
    build_network,
    choose_precision,
)
from models.device_setup import keep_compiled_code, load_optimiser_state, set_up_device, settle_execution
from models.rank_sums import sum_over_ranks
from ray_jobs.checkpoints.checkpoint import CheckpointRecord, encode_checkpoint
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.lookup import find_checkpoint, other_version
from ray_jobs.checkpoints.saver import Saver
from ray_jobs.checkpoints.trained_on import describe_task
from ray_jobs.evaluation.decision_file import encode_decision
from ray_jobs.evaluation.validation import CaseEvaluator, Evaluation
from ray_jobs.on_ray.session import Progress, Session, from_every_rank
from ray_jobs.settings.config import TrainConfig, describe_start, run_identity
from ray_jobs.training.early_stopping import EarlyStopping
from ray_jobs.training.optimiser import Schedule, build_optimiser
from ray_jobs.training.parallel import distribute
from ray_jobs.training.plan import TrainPlan
from ray_jobs.watching.monitoring import Monitor
from ray_jobs.watching.step_clock import StepClock
from storage import DecodedCaseCache, InputError, open_store

Seen = TypeVar("Seen")

# Beside those that read: the one that trains, and the one that DALI computes and is fed with.
BUSY_THREADS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The moving parts of a run, all of whose state a checkpoint holds."""

    plan: TrainPlan
    cache: DecodedCaseCache
    loader: PatchLoader
    model: Network  # plain, for weights and inference
    parallel: nn.Module  # the same parameters, averaging gradients over the ranks
    gradients_kept_local: Callable[[], AbstractContextManager[None]]  # for all but the last part of a batch
    average: WeightAverage | None
    loss: nn.Module
    precision: Precision
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    take_step: OptimiserStep
    early_stopping: EarlyStopping
    evaluator: CaseEvaluator
    history: list[Mapping[str, float]]  # the figures of each validated epoch
    clock: StepClock


def prepare(plan: TrainPlan, session: Session) -> Run:
    """Build everything at its starting state: the same on every rank, and the same in every start of the run."""
    config = plan.config
    torch.manual_seed(config.sampling.seed)
    torch.set_num_threads(session.cpu_threads)
    set_up_device(session.device)
    cache = DecodedCaseCache(open_store(plan.store), plan.cache, max_bytes=int(config.cache_gb * 1e9))
    precision = same_precision(choose_precision(session.device, config.precision, config.model), session)
    execution = execution_of(plan, session, precision)
    loader = PatchLoader(
        cache,
        plan.splits.train,
        sampling=config.sampling,
        augmentation=config.augmentation,
        shard=Shard(rank=session.rank, world_size=session.world_size),
        device=str(session.device),
        normalisation=config.normalisation,
        frame=config.frame,
        dtype="float16" if precision.dtype == torch.float16 else "float32",
        channels_last=bool(execution.channels_last),
        on_bad_case=config.on_bad_case,
        read_threads=config.read_threads,
        decode_threads=idle_threads(config, session),
        ready_batches=config.ready_batches,
    )
    model = build(config, execution)
    begin_with_weights(model, config, session)
    model = model.to(session.device)
    parallel = distribute(model, config.parallel, world_size=session.world_size)
    gradients_kept_local: Callable[[], AbstractContextManager[None]] = nullcontext
    if isinstance(parallel, nn.parallel.DistributedDataParallel):
        gradients_kept_local = parallel.no_sync
    clock = StepClock(session.device)
    add_up: Callable[[torch.Tensor], torch.Tensor] = sum_over_ranks
    if session.world_size > 1:
        clock.follow_gradients(model)
        add_up = clock.counted("communication", sum_over_ranks)
    optimiser = build_optimiser(config.optimiser, model)
    schedule = Schedule(config.optimiser, optimiser, config.epochs * loader.steps_per_epoch)
    take_step = OptimiserStep(model, optimiser, precision, device=session.device, clip_norm=config.optimiser.clip_norm)
    return Run(
        plan=plan,
        cache=cache,
        loader=loader,
        model=model,
        parallel=parallel,
        gradients_kept_local=gradients_kept_local,
        average=WeightAverage(model, decay) if (decay := config.optimiser.ema_decay) is not None else None,
        loss=Loss(config.loss, add_up, region_labels=config.model.region_labels).to(session.device),
        precision=precision,
        optimiser=optimiser,
        schedule=schedule,
        take_step=take_step,
        early_stopping=EarlyStopping(config.patience),
        history=[],
        evaluator=CaseEvaluator(model, config.sampling.patch_shape, config.validation, precision),
        clock=clock,
    )


def build(config: TrainConfig, execution: Execution) -> Network:
    """Build the run's network; raises InputError where this machine cannot import what the driver's could."""
    try:
        return build_network(config.model, execution)
    except ValueError as error:
        raise InputError(f"--model.network: {error}") from error


def begin_with_weights(model: nn.Module, config: TrainConfig, session: Session) -> None:
    """Put the weights of --init-from into the network, but for a start that goes on from the run's own checkpoint."""
    if config.init_from is None or same_on_every_rank(CheckpointStore(session.folder).newest, session) is not None:
        return
    try:
        find_checkpoint(config.init_from).load_weights(model)
    except RuntimeError as error:
        raise InputError(f"--init-from {config.init_from} has weights of another network: {error}") from error


def seed_step(run: Run, session: Session) -> None:
    """Have what an imported network draws, as for dropout, depend on seed, epoch, step and rank alone: no resume
    changes it. Our U-Nets draw nothing.
    """
    if run.plan.config.model.network is not None:
        place = [run.plan.config.sampling.seed, run.loader.epoch, run.loader.step, session.rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))


def execution_of(plan: TrainPlan, session: Session, precision: Precision) -> Execution:
    """Return how the network is run on this rank; says so where it cannot be compiled as the run was told."""
    told = plan.config.execution
    execution = settle_execution(told, session.device, precision, plan.config.model)
    if execution.compile:
        keep_compiled_code(plan.cache / "compiled")
    elif told.compile and session.rank == 0:
        message = "no C++ compiler was found (g++, clang++, $CXX): nothing is compiled"
        session.tell(Progress(stage="note", message=message))
    return execution


def idle_threads(config: TrainConfig, session: Session) -> int:
    """Return how many threads of this rank's share would have nothing to do while it trains: at least one.

    On a CPU the network computes in all of them: there decoding ahead only does sooner what is to be done anyway.
    """
    if session.device.type == "cpu":
        return 1
    return max(1, session.cpu_threads - config.read_threads - BUSY_THREADS)


def same_precision(own: Precision, session: Session) -> Precision:
    """Return what all ranks compute in, where each would choose its `own`: "auto" on nodes with other GPUs.

    Gradients that one rank scales, for float16's sake, and another does not cannot be averaged.
    """
    names = set(from_every_rank(own.name, session))
    if len(names) == 1:
        return own
    return choose_precision(session.device, "float16" if "float16" in names else "float32")


def weights_to_keep(run: Run) -> AbstractContextManager[None]:
    """The network computes with the weights that are scored and saved: their average, where there is one."""
    return nullcontext() if run.average is None else run.average.in_use()


def save(
    run: Run,
    session: Session,
    monitor: Monitor,
    saver: Saver,
    *,
    decision: Decision | None = None,
    scored: Evaluation | None = None,
) -> str:
    """Start saving all state, and the validation and decision that close it, as a checkpoint; return its name.

    Every rank must call it.
    """
    metrics = scored.metrics if scored is not None else {}
    record = CheckpointRecord(
        epoch=run.loader.epoch, step=run.loader.step, metrics=metrics, objective=run.plan.config.objective
    )
    monitor_state = monitor.state_dict()  # gathers from all ranks
    loader_state = run.loader.state_dict()
    replacements = from_every_rank(loader_state["replacements"], session)
    monitor.flush()  # what lies before the checkpoint is not done again, so nobody would write its events anew

    def encode() -> dict[str, bytes]:
        state = {
            "loader": loader_state | {"replacements": list(itertools.chain(*replacements))},
            "optimiser": run.optimiser.state_dict(),
            "schedule": run.schedule.state_dict(),
            "steps": run.take_step.state_dict(),
            "early_stopping": run.early_stopping.state_dict(),
            "monitor": monitor_state,
            "history": run.history,
            "torch_rng": torch.get_rng_state(),
        }
        if run.average is not None:
            # Copies: the average takes the weights' place below.
            weights = {name: value.clone() for name, value in run.model.state_dict().items()}
            state |= {"weights": weights, "average": run.average.state_dict()}
        made_with = describe_start(run.plan.config) | {"precision": run.precision.name, "workers": session.world_size}
        made_with["network"] = run.plan.config.model.distribution
        trained_on = run.cache.store
        # Beside the identity, not in it: the digest stands for the modalities there, and runs begun before they were
        # written down go on.
        config = run_identity(run.plan.config, trained_on.digest)
        config |= {"made_with": made_with, **describe_task(trained_on)}
        with weights_to_keep(run):
            curves = None if scored is None else scored.curves.to_json()
            cases = None if scored is None else each_case(scored)
            made = None if decision is None else encode_decision(decision, run.cache.task.region_names)
            return encode_checkpoint(run.model, state=state, config=config, decision=made, curves=curves, cases=cases)

    with run.clock.aside("checkpoints"):
        saver.save(record, encode)
        session.publish()  # what lies before the checkpoint goes with it
    monitor.after_checkpoint()
    return record.name


def each_case(scored: Evaluation) -> dict[str, Any]:
    """Return whose exam each case is and its scores, as cases.json says it."""
    scores = scored.summary()["by_case"]
    return {case_id: {"subject": scored.subjects.get(case_id, case_id), **own} for case_id, own in scores.items()}


def restore(run: Run, monitor: Monitor, session: Session, store: CheckpointStore) -> None:
    """Put every part back to where the newest checkpoint left it, if there is one."""
    record = same_on_every_rank(store.newest, session)
    if record is None:
        return
    checkpoint = store.open(record)
    state = checkpoint.state()
    if run.average is None:
        checkpoint.load_weights(run.model)
    else:
        run.model.load_state_dict(state["weights"])
        run.average.load_state_dict(state["average"])
    # Of all ranks, who may be others now: the first one counts them on.
    replacements = state["loader"]["replacements"] if session.rank == 0 else []
    run.loader.load_state_dict(state["loader"] | {"replacements": replacements})
    load_optimiser_state(run.optimiser, state["optimiser"])
    run.schedule.load_state_dict(state["schedule"])
    run.take_step.load_state_dict(state["steps"])
    run.early_stopping.load_state_dict(state["early_stopping"])
    monitor.load_state_dict(state["monitor"])
    run.history.extend(state["history"])
    torch.set_rng_state(state["torch_rng"])
    monitor.tell(f"going on from {record.name}, world size {session.world_size}")
    if (notice := other_version(checkpoint)) is not None:
        monitor.tell(notice)


def same_on_every_rank(look: Callable[[], Seen | None], session: Session) -> Seen | None:
    """Return what rank 0 sees: the ranks may look at a moment when the folder changes."""
    return from_every_rank(look() if session.rank == 0 else None, session)[0]
