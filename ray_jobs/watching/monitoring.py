"""What a run shows while it works: TensorBoard events, news for the driver's progress bar, Ray metrics."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Self

import torch

from dali_pipelines import PatchLoader
from models import StepResult
from ray_jobs.evaluation.validation import Evaluation
from ray_jobs.on_ray.live_metrics import gpu_memory
from ray_jobs.on_ray.session import Progress, Session, mean_over_ranks
from ray_jobs.pictures.figures import draw_cross_section, draw_threshold_curves
from ray_jobs.settings.objective import RULES, SCORE_NAMES, SCORES_ARE, describe_cut
from ray_jobs.watching.event_file import EventFile
from ray_jobs.watching.pace import Pace
from ray_jobs.watching.step_clock import StepClock
from ray_jobs.watching.step_log import StepLog

SECONDS_BETWEEN_NEWS = 0.5


class Monitor:
    """Shows a rank's steps as Ray metrics; on rank 0 also writes the events and tells the progress bar.

    Use it as a context manager. `_log` has the steps' losses, `_pace` their time.
    """

    def __init__(self, session: Session, loader: PatchLoader, clock: StepClock, *, epochs: int) -> None:
        self._session, self._loader, self._clock, self._epochs = session, loader, clock, epochs
        self._events = EventFile(session.artifacts if session.rank == 0 else None, self.tell)
        self._log = StepLog(session, self._events)
        self._pace = Pace(session, clock, patches=loader.sampling.global_batch_size)
        self._score_name, self._score = "", float("nan")
        self._told = 0.0
        self._has_batch = False
        self._named: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._events.close()
        if self._session.metrics is not None:
            self._session.metrics.close()

    def start_epoch(self) -> None:
        """Start the clock. In a run resumed in mid-epoch the losses of the epoch's earlier steps still count."""
        if self._loader.step < self._loader.steps_per_epoch:
            self._events.begin(self._global_step() + 1)
        else:  # Stopped before the epoch's validation, whose events belong to this very step, as do the epoch's own.
            self._events.begin(self._global_step())
            self._log.write_last_again(self._global_step())
        self._pace.start_epoch()

    def ready(self) -> None:
        """Note that the run stands where its newest checkpoint left it."""
        self._session.mark("ready", self._global_step())

    def before_step(self) -> None:
        """Note the first batch of this start."""
        if not self._has_batch:
            self._has_batch = True
            self._session.mark("batch", self._global_step() - 1)

    def after_step(self, result: StepResult, learning_rate: float) -> None:
        """Note a step, and show it when it is time for news."""
        self._log.note(result, step=self._global_step(), learning_rate=learning_rate)
        self._pace.after_step()
        self._session.mark("step", self._global_step())
        now = time.perf_counter()
        if now - self._told < SECONDS_BETWEEN_NEWS:
            return
        self._told = now
        self._show_live(self._clock.collect())
        self._tell(self._news("training", loss=self._log.latest()["loss"]))

    def after_epoch(self, epoch: int, *, skipped_steps: int) -> dict[str, float]:
        """Return the epoch's figures, averaged over the ranks; rank 0 writes them as events. Every rank calls it."""
        self._show_live(self._clock.collect(wait=True))
        loss, spent = self._log.end_epoch(), self._pace.end_epoch()
        metrics = {
            "epoch": epoch + 1,
            "loss": loss,
            "learning_rate": self._log.latest()["learning_rate"],
            **spent.rates(),
            "skipped_steps": skipped_steps,
        }
        self._events.scalars(metrics, self._global_step(), group="epoch")
        self._events.scalars(self._pace.seconds_per_step(), self._global_step(), group="seconds_per_step")
        news = self._news("validation", loss=loss)
        # The loader stands at the start of the next epoch already.
        self._tell(dataclasses.replace(news, epoch=epoch, step=self._loader.steps_per_epoch))
        return metrics

    def after_validation(self, epoch: int, evaluation: Evaluation) -> None:
        """Write the scores, and on rank 0 the first case's cross-section, as events; tell the progress bar."""
        step, chosen = self._global_step(), evaluation.thresholds
        choice = describe_cut(given=evaluation.thresholds_given)
        with self._clock.aside("figures"):
            self._events.scalars(evaluation.metrics, step, group="validation", description=f"{SCORES_ARE}; {choice}")
            self._events.figure(
                "threshold_curves",
                lambda: draw_threshold_curves(evaluation.curves, chosen, evaluation.regions, choice),
                step,
            )
            if evaluation.images:
                self._events.figure(
                    "cross_section", lambda: draw_cross_section(evaluation.images[0], evaluation.decision), step
                )
            self._events.flush()
        if self._session.metrics is not None:
            self._session.metrics.show_scores(evaluation.metrics)
        self._score_name, self._score = f"{RULES} {SCORE_NAMES[evaluation.objective]}", evaluation.score
        values = evaluation.summary()[evaluation.objective]
        shown = ", ".join(f"{region} {value:.3f}" for region, value in values.items())
        self.tell(f"epoch {epoch + 1}: validation {SCORE_NAMES[evaluation.objective]} {shown} ({RULES} rules)")

    def after_checkpoint(self) -> None:
        """Note that a checkpoint has been saved."""
        if self._session.metrics is not None:
            self._session.metrics.note_checkpoint()

    def tell(self, message: str) -> None:
        """Show a line to whoever watches."""
        self._tell(self._news("note", message=message))

    def name_bad_cases(self, reasons: Mapping[str, str], outcome: str) -> None:
        """Show each case that could not be read, once, on whichever rank wanted it, and what came of it."""
        for case_id, reason in reasons.items():
            if (case_id, outcome) not in self._named:
                self._named.add((case_id, outcome))
                message = f"case {case_id} cannot be read, {outcome}: {reason}"
                self._session.tell(self._news("note", message=message))

    def flush(self) -> None:
        """Bring what was written as events to the disk: a process that is killed cannot."""
        self._events.flush()

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch so far, in plain types: a loss for each step, averaged over the ranks. All ranks call it."""
        return self._log.state_dict() | self._pace.state_dict(in_epoch=self._loader.step > 0)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called."""
        self._log.load_state_dict(state)
        self._pace.load_state_dict(state)

    def time_spent(self) -> dict[str, float]:
        """Return the seconds of this start by what they were spent on, a mean over the ranks. All ranks call it."""
        own = self._clock.time_spent()
        return dict(zip(own, mean_over_ranks([*own.values()], self._session), strict=True))

    def throughput(self) -> dict[str, Any]:
        """Return training patches per second and the share of time spent waiting for them, in all starts of the run."""
        device = self._session.device
        return {
            **self._pace.of_run.rates(),
            "world_size": self._session.world_size,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        }

    def _show_live(self, steps: list[dict[str, float]]) -> None:
        """Show the steps that the clock has counted since the last call, and how things stand, as Ray metrics."""
        metrics, ranks = self._session.metrics, self._session.world_size
        if metrics is None:
            return
        metrics.count_steps(steps, patches=self._loader.sampling.global_batch_size // ranks)
        epochs = self._loader.epoch + self._loader.step / self._loader.steps_per_epoch
        rates = self._pace.so_far().rates()
        figures = {
            **self._log.latest(),
            "epoch": epochs,
            "progress": epochs / self._epochs,
            "patches_per_second": rates["patches_per_second"] / ranks,
            "data_wait_fraction": rates["data_wait_fraction"],
            "bad_cases": sum(self._loader.bad_cases.values()),
        }
        metrics.show(figures | gpu_memory(self._session.device))

    def _tell(self, news: Progress) -> None:
        if self._session.rank == 0:
            self._session.tell(news)

    def _news(self, stage: str, *, loss: float = float("nan"), message: str = "") -> Progress:
        rates = self._pace.so_far().rates()
        return Progress(
            stage=stage,
            epoch=self._loader.epoch,
            step=self._loader.step,
            steps=self._loader.steps_per_epoch,
            loss=loss,
            patches_per_second=rates["patches_per_second"],
            data_wait_fraction=rates["data_wait_fraction"],
            score_name=self._score_name,
            score=self._score,
            message=message,
        )

    def _global_step(self) -> int:
        return self._loader.epoch * self._loader.steps_per_epoch + self._loader.step
