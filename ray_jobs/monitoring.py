"""What a run shows while it works: TensorBoard events, the driver's progress bar, throughput and data wait."""

import time
from types import TracebackType
from typing import Any, Self

import torch
from tensorboardX import SummaryWriter

from dali_pipelines import PatchLoader
from ray_jobs.figures import as_pixels, draw_cross_section
from ray_jobs.session import Progress, Session
from ray_jobs.validation import Evaluation

SECONDS_BETWEEN_NEWS = 0.5


class Monitor:
    """Measures a rank's steps; on rank 0 also writes the events and tells the progress bar.

    Use it as a context manager. The clock runs from the start of an epoch to its last step: validation and
    checkpoints do not count against patches per second.
    """

    def __init__(self, session: Session, loader: PatchLoader) -> None:
        self._session, self._loader = session, loader
        self._writer = SummaryWriter(str(session.artifacts)) if session.rank == 0 else None
        self._losses: list[torch.Tensor] = []
        self._total_seconds = self._total_wait = 0.0
        self._patches = 0
        self._told = 0.0
        self.start_epoch()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def start_epoch(self) -> None:
        """Start the clock."""
        self._losses.clear()
        self._started, self._wait_before = time.perf_counter(), self._loader.wait_seconds

    def after_step(self, loss: torch.Tensor, learning_rate: float) -> None:
        """Note a step. Reads earlier losses only when it is time for news, so the GPU seldom waits for the host."""
        self._losses.append(loss)
        self._learning_rate = learning_rate
        now = time.perf_counter()
        if self._session.rank > 0 or now - self._told < SECONDS_BETWEEN_NEWS:
            return
        self._told = now
        value = float(loss)  # sync point
        if self._writer is not None:
            self._writer.add_scalar("loss/step", value, self._global_step())
            self._writer.add_scalar("learning_rate", learning_rate, self._global_step())
        self._session.tell(self._news("training", loss=value))

    def after_epoch(self, epoch: int, *, skipped_steps: int) -> dict[str, float]:
        """Return the epoch's figures, averaged over the ranks; rank 0 writes them as events."""
        seconds = time.perf_counter() - self._started
        wait = self._loader.wait_seconds - self._wait_before
        steps = len(self._losses)
        loss = float(torch.stack(self._losses).mean()) if steps else float("nan")
        loss, seconds, wait = self._mean_over_ranks([loss, seconds, wait])
        patches = steps * self._loader.sampling.global_batch_size
        self._total_seconds += seconds
        self._total_wait += wait
        self._patches += patches
        metrics = {
            "epoch": epoch + 1,
            "loss": loss,
            "learning_rate": self._learning_rate if steps else 0.0,
            "patches_per_second": patches / seconds if seconds else 0.0,
            "data_wait_fraction": wait / seconds if seconds else 0.0,
            "skipped_steps": skipped_steps,
        }
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(f"epoch/{name}", value, epoch + 1)
        self._session.tell(self._news("validation", loss=loss))
        return metrics

    def after_validation(self, epoch: int, evaluation: Evaluation) -> None:
        """Write the scores, and on rank 0 the first case's cross-section, as events; tell the progress bar."""
        scores = evaluation.metrics
        if self._writer is not None:
            for name, value in scores.items():
                self._writer.add_scalar(f"validation/{name}", value, epoch + 1)
            for image in evaluation.images[:1]:
                pixels = as_pixels(draw_cross_section(image, evaluation.thresholds))
                self._writer.add_image("cross_section", pixels, epoch + 1, dataformats="HWC")
            self._writer.flush()
        shown = ", ".join(f"{region} {value:.3f}" for region, value in evaluation.summary()["iou"].items())
        self.tell(f"epoch {epoch + 1}: validation IoU {shown}")

    def tell(self, message: str) -> None:
        """Show a line to whoever watches."""
        if self._session.rank == 0:
            self._session.tell(self._news("note", message=message))

    def throughput(self) -> dict[str, Any]:
        """Return training patches per second and the share of time spent waiting for them, in this start."""
        seconds = self._total_seconds
        return {
            "patches_per_second": self._patches / seconds if seconds else 0.0,
            "data_wait_fraction": self._total_wait / seconds if seconds else 0.0,
            "world_size": self._session.world_size,
            "device": device_name(self._session.device),
        }

    def _news(self, stage: str, *, loss: float = float("nan"), message: str = "") -> Progress:
        seconds = time.perf_counter() - self._started
        patches = len(self._losses) * self._loader.sampling.global_batch_size
        return Progress(
            stage=stage,
            epoch=self._loader.epoch,
            step=self._loader.step,
            steps=self._loader.steps_per_epoch,
            loss=loss,
            patches_per_second=patches / seconds if seconds else 0.0,
            data_wait_fraction=(self._loader.wait_seconds - self._wait_before) / seconds if seconds else 0.0,
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
