"""A rank's figures as Ray metrics. `brats_loss` here is `ray_brats_loss` in Prometheus; each has the tags run and rank.

Figures that are the same on all ranks come from rank 0 alone, so that a sum over ranks counts nothing twice.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # the driver shows figures too, and computes nothing
    import torch

# Name: what it says. Rank 0 alone has those of the first table.
RUN_GAUGES = {
    "learning_rate": "Learning rate of the last step.",
    "gradient_norm": "Norm of the last step's gradients over all ranks, before clipping.",
    "epoch": "Epochs done, with the part of the current one.",
    "progress": "Share of all epochs that is done, 0 to 1.",
    "skipped_steps": "Steps without an update, as their gradients were not finite, in this start of the run.",
    "last_checkpoint_timestamp_seconds": "When the last checkpoint was saved, as a Unix time.",
}
RANK_GAUGES = {
    "loss": "Loss of this rank's part of the last step's batch.",
    "patches_per_second": "Patches trained on by this rank, in this epoch.",
    "data_wait_fraction": "Share of this epoch's time that the steps waited for their batches.",
    "bad_cases": "Cases that could not be read and were replaced by others, on this rank.",
    "gpu_memory_bytes": "Memory that torch holds tensors in, on this rank's GPU.",
    "gpu_memory_peak_bytes": "The most it has held since the start.",
    "gpu_memory_reserved_bytes": "Memory that torch keeps from others, on this rank's GPU.",
}
REGION_GAUGES = {
    "iou": "Mean IoU of the validation cases at the run's threshold, by plain rules, by region.",
    "dice": "Mean Dice of the validation cases at that threshold, by plain rules, by region.",
    "threshold": "The threshold of the highest score that the run maximises, or a given one, by region.",
}
# The driver's, which sees the run through all starts of its workers.
DRIVER_GAUGES = {
    "restarts": "How often workers were started again.",
    "steps_again": "Steps that were done twice for it.",
    "lost_seconds": "Time that restarts took, until the run was as far as before.",
    "lost_dollars": "What the workers' machines cost meanwhile, by list prices.",
    "dollars": "What the workers' machines have cost in all starts of the run, by list prices.",
    "dollars_an_hour": "What they cost an hour.",
}
PATCHES, PART_SECONDS, STEP_SECONDS = "patches_total", "part_seconds_total", "step_seconds"
# A gauge that is not set again disappears after two of Ray's reports, which are at least a second apart.
SECONDS_BETWEEN_REMINDERS = 1.0

BOUNDARIES = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]


class LiveMetrics:
    """What one rank, or the driver in its place, shows of itself, on a machine that has Ray, until `close`."""

    def __init__(self, run: str, rank: int | Literal["driver"]) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        tags = {"run": run, "rank": str(rank)}

        def make(kind: Any, name: str, help_text: str, *more: str, **options: Any) -> Any:
            metric = kind(f"brats_{name}", description=help_text, tag_keys=("run", "rank", *more), **options)
            metric.set_default_tags(tags)
            return metric

        self._last: dict[tuple[str, str], float] = {}  # by name and region
        self._lock = threading.Lock()
        self._closed = threading.Event()
        gauges = DRIVER_GAUGES if rank == "driver" else RANK_GAUGES | (RUN_GAUGES if rank == 0 else {})
        self._gauges = {name: make(Gauge, name, text) for name, text in gauges.items()}
        if rank == 0:
            self._gauges |= {name: make(Gauge, name, text, "region") for name, text in REGION_GAUGES.items()}
        self._patches = make(Counter, PATCHES, "Patches trained on.")
        self._parts = make(Counter, PART_SECONDS, "Seconds of the steps, by what they were spent on.", "part")
        self._steps = make(Histogram, STEP_SECONDS, "Seconds a step took.", boundaries=BOUNDARIES)
        self._thread = threading.Thread(target=self._remind, name="live-metrics", daemon=True)
        self._thread.start()

    def show(self, figures: Mapping[str, float]) -> None:
        """Show the figures that this rank shows; leaves out the others."""
        for name, value in figures.items():
            if name in self._gauges:
                self._set(name, "", float(value))

    def show_scores(self, metrics: Mapping[str, float]) -> None:
        """Show scores by region, from names as `iou_` and a region's."""
        for name, value in metrics.items():
            kind, _, region = name.partition("_")
            if kind in REGION_GAUGES and kind in self._gauges:
                self._set(kind, region, float(value))

    def count_steps(self, steps: Iterable[Mapping[str, float]], *, patches: int) -> None:
        """Count steps by the seconds of their parts, each with so many patches of this rank."""
        for step in steps:
            self._patches.inc(patches)
            self._steps.observe(sum(step.values()))
            for part, seconds in step.items():
                if seconds > 0:
                    self._parts.inc(seconds, tags={"part": part})

    def note_checkpoint(self) -> None:
        """A checkpoint has been saved now."""
        self.show({"last_checkpoint_timestamp_seconds": time.time()})

    def close(self) -> None:
        """Show nothing more; safe to call twice."""
        self._closed.set()
        self._thread.join()

    def _set(self, name: str, region: str, value: float) -> None:
        with self._lock:
            self._last[name, region] = value
            self._send(name, region, value)

    def _remind(self) -> None:
        while not self._closed.wait(SECONDS_BETWEEN_REMINDERS):
            with self._lock:
                for (name, region), value in self._last.items():
                    self._send(name, region, value)

    def _send(self, name: str, region: str, value: float) -> None:
        self._gauges[name].set(value, tags={"region": region} if region else {})


def gpu_memory(device: "torch.device") -> dict[str, float]:
    """Return the gauges of a GPU's memory; nothing for a CPU."""
    if device.type != "cuda":
        return {}
    import torch

    return {
        "gpu_memory_bytes": torch.cuda.memory_allocated(device),
        "gpu_memory_peak_bytes": torch.cuda.max_memory_allocated(device),
        "gpu_memory_reserved_bytes": torch.cuda.memory_reserved(device),
    }
