"""What a run shows while it works: TensorBoard events, the driver's progress bar, throughput and data wait."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import torch

from dali_pipelines import PatchLoader
from models import StepResult
from ray_jobs.evaluation.validation import Evaluation
from ray_jobs.on_ray.live_metrics import gpu_memory
from ray_jobs.on_ray.session import Progress, Session
from ray_jobs.pictures.figures import draw_cross_section, draw_threshold_curves
from ray_jobs.watching.event_file import EventFile
from ray_jobs.watching.spent import Spent
from ray_jobs.watching.step_clock import STEP_PARTS, StepClock

SECONDS_BETWEEN_NEWS = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class _StepNote:
    """A step whose loss may not be computed yet: the tensor lies on the device."""

    step: int
    result: StepResult
    learning_rate: float


class Monitor:
    """Measures a rank's steps; on rank 0 also writes the events and tells the progress bar.

    Use it as a context manager. The clock runs from the start of an epoch to its last step: validation and
    checkpoints do not count against patches per second.
    """

    def __init__(self, session: Session, loader: PatchLoader, clock: StepClock, *, epochs: int) -> None:
        self._session, self._loader, self._clock, self._epochs = session, loader, clock, epochs
        self._events = EventFile(session.artifacts if session.rank == 0 else None, self.tell)
        self._pending: list[_StepNote] = []
        self._losses: list[float] = []  # of this rank, of the epoch's steps in this start of the run
        self._losses_before: list[float] = []  # of all ranks, of the epoch's steps in earlier starts
        self._learning_rate = self._gradient_norm = 0.0
        self._skipped = 0
        self._iou = float("nan")
        self._last_step: dict[str, float] = {}  # what was written of it
        self._spent = Spent()  # in the epochs before, in all starts
        self._spent_before = Spent()  # in this epoch's steps of earlier starts
        self._told = 0.0
        self._named: set[tuple[str, str]] = set()
        self._start_clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(RuntimeError):  # a device in error, which ends the run, has no losses to give
            self._read_losses()
        self._events.close()
        if self._session.metrics is not None:
            self._session.metrics.close()

    def start_epoch(self) -> None:
        """Start the clock. In a run resumed in mid-epoch the losses of the epoch's earlier steps still count."""
        if self._loader.step < self._loader.steps_per_epoch:
            self._events.begin(self._global_step() + 1)
        else:  # Stopped before the epoch's validation, whose events belong to this very step, as do the epoch's own.
            self._events.begin(self._global_step())
            self._events.scalars(self._last_step, self._global_step())
        self._start_clock()

    def after_step(self, result: StepResult, learning_rate: float) -> None:
        """Note a step. Reads losses only when it is time for news, so the GPU seldom waits for the host."""
        self._pending.append(_StepNote(step=self._global_step(), result=result, learning_rate=learning_rate))
        self._steps += 1
        self._skipped += not result.taken
        now = time.perf_counter()
        if now - self._told < SECONDS_BETWEEN_NEWS:
            return
        self._told = now
        self._read_losses()
        self._show_live(self._clock.collect())
        self._tell(self._news("training", loss=self._losses[-1]))

    def after_epoch(self, epoch: int, *, skipped_steps: int) -> dict[str, float]:
        """Return the epoch's figures, averaged over the ranks; rank 0 writes them as events. Every rank calls it."""
        losses = self._losses_of_all_ranks()
        loss = math.fsum(losses) / len(losses) if losses else float("nan")
        self._show_live(self._clock.collect(wait=True))
        spent = self._spent_in_this_start()
        self._spent += self._spent_before + spent
        if not self._steps:  # resumed after the epoch's last step
            spent = self._spent_before
        self._losses, self._losses_before, self._spent_before = [], [], Spent()
        metrics = {
            "epoch": epoch + 1,
            "loss": loss,
            "learning_rate": self._learning_rate,
            **spent.rates(),
            "skipped_steps": skipped_steps,
        }
        self._events.scalars(metrics, self._global_step(), group="epoch")
        self._events.scalars(self._seconds_per_step(), self._global_step(), group="seconds_per_step")
        news = self._news("validation", loss=loss)
        # The loader stands at the start of the next epoch already.
        self._tell(dataclasses.replace(news, epoch=epoch, step=self._loader.steps_per_epoch))
        return metrics

    def after_validation(self, epoch: int, evaluation: Evaluation) -> None:
        """Write the scores, and on rank 0 the first case's cross-section, as events; tell the progress bar."""
        step, chosen = self._global_step(), evaluation.thresholds
        with self._clock.aside("figures"):
            self._events.scalars(evaluation.metrics, step, group="validation")
            self._events.figure("threshold_curves", lambda: draw_threshold_curves(evaluation.curves, chosen), step)
            if evaluation.images:
                self._events.figure("cross_section", lambda: draw_cross_section(evaluation.images[0], chosen), step)
            self._events.flush()
        if self._session.metrics is not None:
            self._session.metrics.show_scores(evaluation.metrics)
        self._iou = evaluation.scores.mean_iou
        shown = ", ".join(f"{region} {value:.3f}" for region, value in evaluation.summary()["iou"].items())
        self.tell(f"epoch {epoch + 1}: validation IoU {shown}")

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
        losses = self._losses_of_all_ranks()
        # Between two epochs the clock still runs, for the validation.
        spent = self._spent_before + self._spent_in_this_start() if self._loader.step else Spent()
        return {
            "losses": losses,
            "learning_rate": self._learning_rate,
            "last_step": self._last_step,
            "spent_in_epoch": dataclasses.asdict(spent),
            "spent": dataclasses.asdict(self._spent),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called: the epoch's mean loss will be that of a run left alone, bit for bit."""
        self._pending, self._losses = [], []
        self._losses_before, self._learning_rate = list(state["losses"]), state["learning_rate"]
        # Checkpoints of earlier versions say nothing of these.
        self._last_step = dict(state.get("last_step", {}))
        self._spent, self._spent_before = Spent(**state.get("spent", {})), Spent(**state.get("spent_in_epoch", {}))

    def time_spent(self) -> dict[str, float]:
        """Return the seconds of this start by what they were spent on, a mean over the ranks. All ranks call it."""
        own = self._clock.time_spent()
        return dict(zip(own, self._mean_over_ranks(list(own.values())), strict=True))

    def throughput(self) -> dict[str, Any]:
        """Return training patches per second and the share of time spent waiting for them, in all starts of the run."""
        return {
            **self._spent.rates(),
            "world_size": self._session.world_size,
            "device": device_name(self._session.device),
        }

    def after_checkpoint(self) -> None:
        """Note that a checkpoint has been saved."""
        if self._session.metrics is not None:
            self._session.metrics.note_checkpoint()

    def _show_live(self, steps: list[dict[str, float]]) -> None:
        """Show the steps that the clock has counted since the last call, and how things stand, as Ray metrics."""
        metrics = self._session.metrics
        if metrics is None:
            return
        metrics.count_steps(steps, patches=self._loader.sampling.global_batch_size // self._session.world_size)
        epochs = self._loader.epoch + self._loader.step / self._loader.steps_per_epoch
        news = self._news("training")
        figures = {
            "learning_rate": self._learning_rate,
            "gradient_norm": self._gradient_norm,
            "epoch": epochs,
            "progress": epochs / self._epochs,
            "skipped_steps": self._skipped,
            "patches_per_second": news.patches_per_second / self._session.world_size,
            "data_wait_fraction": news.data_wait_fraction,
            "bad_cases": sum(self._loader.bad_cases.values()),
        }
        loss = {"loss": self._losses[-1]} if self._losses else {}
        metrics.show(figures | loss | gpu_memory(self._session.device))

    def _start_clock(self) -> None:
        self._steps = 0
        self._started, self._seconds_before = time.perf_counter(), dict(self._clock.seconds)

    def _spent_in_this_start(self) -> Spent:
        """On this epoch's steps, a mean over the ranks. Every rank calls it."""
        own = self._spent_here()
        seconds, wait = self._mean_over_ranks([own.seconds, own.wait])
        return Spent(patches=own.patches, seconds=seconds, wait=wait) if own.patches else Spent()

    def _spent_here(self) -> Spent:
        """On this epoch's steps in this start, by this rank's clock."""
        return Spent(
            patches=self._steps * self._loader.sampling.global_batch_size,
            seconds=time.perf_counter() - self._started,
            wait=self._clock.seconds["wait"] - self._seconds_before["wait"],
        )

    def _seconds_per_step(self) -> dict[str, float]:
        """The parts of this epoch's steps on this rank, in the mean."""
        before, now = self._seconds_before, self._clock.seconds
        return {part: (now[part] - before[part]) / self._steps for part in STEP_PARTS} if self._steps else {}

    def _tell(self, news: Progress) -> None:
        if self._session.rank == 0:
            self._session.tell(news)

    def _read_losses(self) -> None:
        """Bring the pending steps to the host, with one wait for the device, and write them as events."""
        if not self._pending:
            return
        values: list[float] = torch.stack([note.result.loss for note in self._pending]).tolist()  # sync point
        for note, loss in zip(self._pending, values, strict=True):
            figures = {
                "loss/step": loss,
                "learning_rate": note.learning_rate,
                "gradient_norm": note.result.gradient_norm,
            }
            self._events.scalars(figures, note.step)
            self._last_step = figures
        self._learning_rate = self._pending[-1].learning_rate
        self._gradient_norm = self._pending[-1].result.gradient_norm
        self._losses += values
        self._pending = []

    def _losses_of_all_ranks(self) -> list[float]:
        """The epoch's losses so far, a mean over the ranks for each step; equal however a run was cut into starts."""
        self._read_losses()
        return self._losses_before + self._mean_over_ranks(self._losses)

    def _news(self, stage: str, *, loss: float = float("nan"), message: str = "") -> Progress:
        spent = self._spent_here()
        return Progress(
            stage=stage,
            epoch=self._loader.epoch,
            step=self._loader.step,
            steps=self._loader.steps_per_epoch,
            loss=loss,
            patches_per_second=spent.patches_per_second,
            data_wait_fraction=spent.data_wait_fraction,
            iou=self._iou,
            message=message,
        )

    def _global_step(self) -> int:
        return self._loader.epoch * self._loader.steps_per_epoch + self._loader.step

    def _mean_over_ranks(self, values: list[float]) -> list[float]:
        if self._session.world_size == 1:
            return values
        everyone: list[Any] = [None] * self._session.world_size
        torch.distributed.all_gather_object(everyone, values)
        return [sum(column) / len(column) for column in zip(*everyone, strict=True)]


def device_name(device: torch.device) -> str:
    """Return the card's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
