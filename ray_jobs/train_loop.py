"""THE training loop. It knows ranks and checkpoints only through its `Session`, so it runs with and without Ray."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dali_pipelines import Batch, PatchLoader, Shard
from models import OptimiserStep, Precision, build_loss, build_unet, choose_precision
from ray_jobs.checkpoint import read_state, read_thresholds, read_weights, write_checkpoint
from ray_jobs.config import TrainConfig, run_identity
from ray_jobs.figures import save_cross_section
from ray_jobs.monitoring import Monitor
from ray_jobs.optimiser import Schedule, build_optimiser
from ray_jobs.session import RaySession, Session
from ray_jobs.validation import CaseEvaluator, Evaluation, evaluate
from storage import REGIONS, DecodedCaseCache, Splits, open_store

FIGURES_PER_RANK = 8  # cases whose cross-sections a rank draws at the end


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """A run that is decided: what every rank must know."""

    config: TrainConfig
    store: str
    splits: Splits
    cache: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The moving parts of a run, all of whose state a checkpoint holds."""

    plan: TrainPlan
    cache: DecodedCaseCache
    loader: PatchLoader
    model: nn.Module  # plain, for weights and inference
    parallel: nn.Module  # the same parameters, averaging gradients over the ranks
    loss: nn.Module
    precision: Precision
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    take_step: OptimiserStep
    evaluator: CaseEvaluator


def train_loop_per_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Entry point of a Ray Train worker; rank 0's return value is the run's result."""
    return train(config["plan"], RaySession(config["board"]))


def train(plan: TrainPlan, session: Session) -> dict[str, Any]:
    """Train to the last epoch, from the latest checkpoint if there is one, and return the scores of the best epoch."""
    run = prepare(plan, session)
    with run.loader as loader, Monitor(session, loader) as monitor:
        with session.latest_checkpoint() as folder:
            if folder is not None:
                restore(run, folder)
        for epoch in range(loader.epoch, plan.config.epochs):
            run.model.train()
            monitor.start_epoch()
            for batch in loader:
                loss = train_step(run, batch)
                monitor.after_step(loss, run.schedule.learning_rate)
            metrics = monitor.after_epoch(epoch, skipped_steps=run.take_step.steps_skipped)
            last = epoch + 1 == plan.config.epochs
            if last or (epoch + 1) % plan.config.validation.every == 0:
                scored = score(run, session, plan.splits.validation, keep_images=1)
                run.schedule.after_validation(scored.scores.mean_iou)
                monitor.after_validation(epoch, scored)
                record(run, session, metrics | scored.metrics, scored.thresholds, epoch)
        return finish(run, session, monitor)


def train_step(run: Run, batch: Batch) -> torch.Tensor:
    """Forward, backward, update. Returns the loss on the device: reading it here would make the GPU wait."""
    with run.precision.autocast(batch.image.device):
        outputs = run.parallel(batch.image)
    loss: torch.Tensor = run.loss(outputs, batch.regions)
    run.take_step(loss, describe_batch=lambda: ", ".join(batch.case_ids))
    run.schedule.after_step()
    return loss.detach()


def prepare(plan: TrainPlan, session: Session) -> Run:
    """Build everything at its starting state: the same on every rank, and the same in every start of the run."""
    config = plan.config
    torch.manual_seed(config.sampling.seed)
    torch.set_num_threads(session.cpu_threads)
    if session.device.type == "cuda":
        torch.cuda.set_device(session.device)  # collectives of plain objects go through the current device
    cache = DecodedCaseCache(open_store(plan.store), plan.cache, max_bytes=int(config.cache_gb * 1e9))
    precision = choose_precision(session.device, config.precision)
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
        channels_last=config.execution.channels_last,
    )
    model = build_unet(config.model, config.execution).to(session.device)
    parallel = nn.parallel.DistributedDataParallel(model) if session.world_size > 1 else model
    optimiser = build_optimiser(config.optimiser, model)
    schedule = Schedule(config.optimiser, optimiser, config.epochs * loader.steps_per_epoch)
    take_step = OptimiserStep(model, optimiser, precision, device=session.device, clip_norm=config.optimiser.clip_norm)
    return Run(
        plan=plan,
        cache=cache,
        loader=loader,
        model=model,
        parallel=parallel,
        loss=build_loss(config.loss),
        precision=precision,
        optimiser=optimiser,
        schedule=schedule,
        take_step=take_step,
        evaluator=CaseEvaluator(model, config.sampling.patch_shape, config.validation, precision),
    )


def score(
    run: Run,
    session: Session,
    case_ids: Sequence[str],
    thresholds: Mapping[str, float] | None = None,
    *,
    keep_images: int = 0,
    with_baseline: bool = False,
) -> Evaluation:
    """Score whole cases with the weights as they are."""
    run.model.eval()
    return evaluate(
        run.evaluator,
        run.cache,
        case_ids,
        session,
        normalisation=run.plan.config.normalisation,
        frame=run.plan.config.frame,
        thresholds=thresholds,
        keep_images=keep_images,
        with_baseline=with_baseline,
    )


def record(
    run: Run, session: Session, metrics: Mapping[str, float], thresholds: Mapping[str, float], epoch: int
) -> None:
    """Report the epoch with a checkpoint of all state, written by rank 0."""
    name = f"checkpoint_epoch_{epoch + 1:04d}"
    if session.rank > 0:
        session.report(metrics, None, name)
        return
    state = {
        "loader": run.loader.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "schedule": run.schedule.state_dict(),
        "steps": run.take_step.state_dict(),
        "torch_rng": torch.get_rng_state(),
    }
    with tempfile.TemporaryDirectory() as folder:
        config = run_identity(run.plan.config, run.cache.store.digest) | {"regions": list(REGIONS)}
        write_checkpoint(Path(folder), model=run.model, state=state, config=config, thresholds=thresholds)
        session.report(metrics, Path(folder), name)
    session.publish()


def restore(run: Run, folder: Path) -> None:
    """Put every part back to where the checkpoint left it."""
    state = read_state(folder)
    read_weights(folder, run.model)
    run.loader.load_state_dict(state["loader"])
    run.optimiser.load_state_dict(state["optimiser"])
    run.schedule.load_state_dict(state["schedule"])
    run.take_step.load_state_dict(state["steps"])
    torch.set_rng_state(state["torch_rng"])


def finish(run: Run, session: Session, monitor: Monitor) -> dict[str, Any]:
    """Score the best checkpoint: validation at its own best thresholds, test at those; draw the cross-sections."""
    with session.best_checkpoint() as folder:
        read_weights(folder, run.model)
        thresholds = read_thresholds(folder)
    monitor.tell("scoring the best epoch")
    validation = score(
        run, session, run.plan.splits.validation, thresholds, keep_images=FIGURES_PER_RANK, with_baseline=True
    )
    test = score(run, session, run.plan.splits.test, thresholds, keep_images=FIGURES_PER_RANK)
    for image in (*validation.images, *test.images):
        save_cross_section(image, thresholds, session.artifacts / f"cross_section_{image.case_id}.png")
    session.publish()
    return {
        "validation": validation.summary(),
        "test": test.summary(),
        "baseline_iou": validation.baseline_iou,
        "throughput": monitor.throughput() | {"precision": run.precision.name},
    }
