"""THE training loop. It knows ranks and checkpoints only through its `Session`, so it runs with and without Ray."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dali_pipelines import Batch
from models import Decision, NonFiniteGradientsError, StepResult
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.saver import Saver
from ray_jobs.evaluation.validation import Evaluation, evaluate
from ray_jobs.evaluation.verdict import decide
from ray_jobs.on_ray.agreement import Wish
from ray_jobs.on_ray.hidden_paths import SeenFile, describe_hidden
from ray_jobs.on_ray.machines import look_around
from ray_jobs.on_ray.session import Progress, RaySession, Session, from_every_rank
from ray_jobs.settings.objective import RULES
from ray_jobs.training.end_of_run import draw_cases, keep_decision
from ray_jobs.training.memory_plan import settle
from ray_jobs.training.parallel import RankWatch
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.rehearsal import (
    TooLittleMemoryError,
    halve_at_the_next_start,
    is_out_of_memory,
    rehearse,
)
from ray_jobs.training.run import Run, prepare, restore, same_on_every_rank, save, seed_step, weights_to_keep
from ray_jobs.watching.advice import Setting, advise
from ray_jobs.watching.monitoring import Monitor
from storage import InputError

FIGURES_PER_RANK = 8  # cases whose cross-sections a rank draws at the end


def train_loop_per_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Entry point of a Ray Train worker; rank 0's return value is the run's result."""
    session = RaySession(config["folder"], config["board"])
    session.mark("begun")
    session.hire(look_around(session))
    hidden = find_hidden(config["seen"], session)
    result = {"failed": hidden} if hidden is not None else train(config["plan"], session)
    session.end()
    return result


def find_hidden(seen: Sequence[SeenFile], session: Session) -> str | None:
    """Say which of the driver's local paths some rank does not see, on every rank alike; None where there is none."""
    for file in seen:
        found = from_every_rank(not file.is_hidden(), session)
        if not all(found):
            return describe_hidden(file.name, found, places="workers")
    return None


def train(plan: TrainPlan, session: Session) -> dict[str, Any]:
    """Train to the end, from the newest checkpoint if there is one, and return the scores of the best epoch.

    A run that was asked to stop returns `{"stopped": where}` instead, and one that had to `{"failed": why}`; the same
    call goes on from there.
    """
    with (
        watch_ranks(plan, session) as watch,
        (run := prepare(settle(plan, session), session)).loader as loader,
        Monitor(session, loader, run.clock, epochs=plan.config.epochs) as monitor,
        Saver(session, plan.config.checkpoints, monitor.tell) as saver,
    ):
        restore(run, monitor, session, saver.store)
        try:
            run = rehearse(run, session)
        except TooLittleMemoryError as error:  # on every rank alike
            return {"failed": str(error)}
        tell_of_cold_cache(run, session, monitor)
        monitor.ready()
        while loader.epoch < plan.config.epochs and not run.early_stopping.is_over:
            try:
                stopped = train_epoch(run, session, monitor, saver, watch)
            except NonFiniteGradientsError as error:  # on every rank alike; to start the workers again would not help
                return {"failed": str(error)}
            except RuntimeError as error:
                if is_out_of_memory(error):  # of this rank alone: the others wait for it, so all start again
                    halve_at_the_next_start(plan, run, session)
                raise
            if stopped is not None:
                saver.wait()
                return {"stopped": stopped} if saver.failure is None else {"failed": saver.failure}
            watch.at(f"epoch {loader.epoch}, validation")
            metrics = monitor.after_epoch(loader.epoch - 1, skipped_steps=run.take_step.steps_skipped)
            last = loader.epoch == plan.config.epochs
            if last or loader.epoch % plan.config.validation.every == 0:
                validate(run, session, monitor, saver, metrics)
        with run.clock.aside("checkpoints"):
            saver.wait()
        failure = same_on_every_rank(lambda: saver.failure, session)
        if failure is not None:
            return {"failed": failure}
        watch.at("the last scoring")
        return finish(run, session, monitor, saver.store)


def tell_of_cold_cache(run: Run, session: Session, monitor: Monitor) -> None:
    """Say what rank 0's node has to decode before the feed keeps up with any device, and for about how long."""
    if session.rank != 0 or run.loader.epoch == run.plan.config.epochs or (cold := run.loader.cold_cache()) is None:
        return
    threads = run.loader.decode_threads * session.ranks_here
    seconds = max(1, round(cold.missing * cold.seconds_a_case / threads))
    message = (
        f"{cold.missing} of {cold.cases} training cases are not decoded on this node yet; {threads} "
        f"thread{'s' if threads > 1 else ''} will do it beside the training in about {seconds} s, until when a step "
        "may wait for its batch"
    )
    if not cold.fit:
        message += "; --cache-gb does not hold all of them, and what it does not hold is decoded in every pass"
    monitor.tell(message)


def watch_ranks(plan: TrainPlan, session: Session) -> RankWatch:
    """What names rank and step where another rank is lost; to whoever watches, too."""

    def tell(message: str) -> None:
        session.tell(Progress(stage="note", message=message))

    return RankWatch(plan.config.parallel, rank=session.rank, world_size=session.world_size, tell=tell)


def train_epoch(run: Run, session: Session, monitor: Monitor, saver: Saver, watch: RankWatch) -> str | None:
    """Do the remaining steps of the epoch. Returns where it stopped, if the run is to stop there."""
    run.model.train()
    monitor.start_epoch()
    for batch in run.clock.batches(run.loader):
        monitor.before_step()
        watch.at(f"epoch {run.loader.epoch + 1}, step {run.loader.step}")
        seed_step(run, session)
        step = train_step(run, batch)
        monitor.after_step(step, run.schedule.learning_rate)
        monitor.name_bad_cases({each.case_id: each.error for each in batch.replacements}, "others take its place")
        agreed = saver.after_step(run.loader.step, last=run.loader.step == run.loader.steps_per_epoch)
        if agreed & Wish.CHECKPOINT:
            save(run, session, monitor, saver)
        if agreed & Wish.LEAVE:
            saver.leave()
        if agreed & Wish.STOP:
            return f"after step {run.loader.step} of epoch {run.loader.epoch + 1}"
    return None


def validate(run: Run, session: Session, monitor: Monitor, saver: Saver, metrics: Mapping[str, float]) -> None:
    """Score the validation cases by the plain decision, or at thresholds that were given, and save a checkpoint.

    A run without such cases saves it all the same: the last one is what comes of it.
    """
    scored = None
    if run.plan.splits.validation:
        with weights_to_keep(run):
            scored = score(run, session, run.plan.splits.validation, keep_images=1)
        run.schedule.after_validation(scored.score)
        run.early_stopping.after_validation(scored.score)
        monitor.after_validation(run.loader.epoch - 1, scored)
        if session.rank == 0:
            monitor.name_bad_cases(scored.bad_cases, "left out of the scores")
        metrics = {**metrics, **scored.metrics}
    run.history.append(metrics)
    name = save(run, session, monitor, saver, decision=first_decision(run), scored=scored)
    if run.plan.may_end_at_a_report:
        saver.wait()
    session.report({**metrics, "checkpoint_path": f"{session.folder}/{name}"})


def first_decision(run: Run) -> Decision:
    """What no score decides: the thresholds that were given, or the plain decision."""
    told = run.plan.config.thresholds
    return Decision.plain(len(run.cache.task.regions)) if told is None else Decision(thresholds=told)


def train_step(run: Run, batch: Batch) -> StepResult:
    """Forward and backward in parts that fit the device, then one update along their mean gradient."""
    whole = len(batch.image)
    size = run.plan.config.micro_batch_size or whole
    parts = list(zip(batch.image.split(size), batch.regions.split(size), strict=True))
    for image, regions in parts[:-1]:
        with run.gradients_kept_local():
            forward_and_backward(run, image, regions, share=len(image) / whole)
    image, regions = parts[-1]
    forward_and_backward(run, image, regions, share=len(image) / whole)
    with run.clock.part("optimiser"):
        result = run.take_step.update(describe_batch=lambda: ", ".join(batch.case_ids))
        if run.average is not None and result.taken:
            run.average.update()
    run.schedule.after_step()
    return result


def forward_and_backward(run: Run, image: torch.Tensor, regions: torch.Tensor, *, share: float) -> None:
    """Add the gradients of some patches, which are this `share` of the batch, to the step's."""
    with run.clock.part("forward"):
        with run.precision.autocast(image.device):
            outputs = run.parallel(image)
        loss: torch.Tensor = run.loss(outputs, regions) * share
    with run.clock.part("backward"):
        run.take_step.backward(loss)


def score(
    run: Run,
    session: Session,
    case_ids: Sequence[str],
    *,
    keep_images: int = 0,
    with_baseline: bool = False,
    with_evidence: bool = False,
) -> Evaluation:
    """Score whole cases with the weights as they are."""
    run.model.eval()
    told = run.plan.config.thresholds
    with run.clock.aside("validation"):
        return evaluate(
            run.evaluator,
            run.cache,
            case_ids,
            session,
            normalisation=run.plan.config.normalisation,
            frame=run.plan.config.frame,
            objective=run.plan.config.objective,
            thresholds=None if told is None else dict(zip(run.cache.task.region_names, told, strict=True)),
            keep_images=keep_images,
            with_baseline=with_baseline,
            with_evidence=with_evidence and told is None,
            on_bad_case=run.plan.config.on_bad_case,
        )


def finish(run: Run, session: Session, monitor: Monitor, store: CheckpointStore) -> dict[str, Any]:
    """Score the best checkpoint again and decide what makes regions of its probabilities; draw the cross-sections.

    Components are counted here alone: an epoch's validation does not pay for them, nor for a further forward pass.
    Where no case validates it is the last checkpoint, and nothing is chosen.
    """
    best = same_on_every_rank(store.best, session)
    if best is None:
        raise InputError(f"no checkpoint could be written to {session.folder}: make room there, or give another --runs")
    checkpoint = store.open(best)
    checkpoint.load_weights(run.model)
    validated, tested = score_parts(run, session, monitor)
    verdict = None if validated is None else decide(validated)
    validation = None if verdict is None else verdict.validation
    test = tested if tested is None or verdict is None else verdict.score(tested)
    if session.rank == 0 and verdict is not None:
        keep_decision(verdict, checkpoint)
    decision = first_decision(run) if verdict is None else verdict.decision
    with run.clock.aside("figures"):
        images = [image for part in (validation, test) if part is not None for image in part.images]
        draw_cases(images, decision, session, monitor)
    session.publish()
    seconds = monitor.time_spent()
    advice = advise(seconds, describe_setting(run, session))
    return {
        "config": dataclasses.asdict(run.plan.config),  # with what memory settled
        "checkpoint": f"{session.folder}/{best.name}",
        "rules": RULES,  # of all scores here
        "objective": run.plan.config.objective,
        "thresholds": dict(zip(run.cache.task.region_names, decision.thresholds, strict=True)),
        "decision": verdict.summary() if verdict else None,
        "validation": validation.summary() if validation else None,
        "test": test.summary() if test else None,
        "baseline_iou": validation.baseline_iou if validation else None,
        "history": run.history,
        "bad_cases": dict(sum(map(Counter, from_every_rank(run.loader.bad_cases, session)), Counter[str]())),
        "throughput": monitor.throughput() | {"precision": run.precision.name},
        "time": {"seconds": seconds, "bound_by": advice.verdict, "advice": advice.sentence},
    }


def score_parts(run: Run, session: Session, monitor: Monitor) -> tuple[Evaluation | None, Evaluation | None]:
    """Score validation and test cases with the weights as they are, and count what decisions are scored by."""
    splits, parts = run.plan.splits, list[Evaluation | None]()
    if splits.validation:
        monitor.tell("scoring the best epoch")
    for number, cases in enumerate((splits.validation, splits.test)):
        asked = {"with_baseline": not number, "with_evidence": bool(splits.validation)}
        parts.append(score(run, session, cases, keep_images=FIGURES_PER_RANK, **asked) if cases else None)
    validated, tested = parts
    return validated, tested


def describe_setting(run: Run, session: Session) -> Setting:
    """What the run ran on and with, for advice on its speed."""
    return Setting(
        device="cuda" if session.device.type == "cuda" else "cpu",
        precision=run.precision.name,
        compiled=run.plan.config.execution.compile,
        world_size=session.world_size,
        validation_every=run.plan.config.validation.every,
    )
