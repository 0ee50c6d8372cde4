"""The driver's progress bar, fed by rank 0 through a small actor."""

import threading
from types import TracebackType
from typing import Any, Self

import ray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LOOKS = 0.5


class Board:
    """Keeps the news until the driver looks. An actor: it lives beside the driver and takes no CPU from the workers."""

    def __init__(self) -> None:
        self._latest: dict[str, Any] | None = None
        self._notes: list[str] = []

    def tell(self, progress: dict[str, Any]) -> None:
        if progress["message"]:
            self._notes.append(progress["message"])
        else:
            self._latest = progress

    def look(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the latest news and the notes since the last look."""
        notes, self._notes = self._notes, []
        return self._latest, notes


class TrainingProgress:
    """Context manager that shows a run's progress on `console` while the body blocks in `fit()`."""

    def __init__(self, console: Console, *, epochs: int, workers: int, use_gpu: bool) -> None:
        self.board = ray.remote(num_cpus=0)(Board).remote()
        self._console, self._epochs = console, epochs
        self._workers, self._resource = workers, "GPU" if use_gpu else "CPU"
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("starting workers", total=None, figures="")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._show()
        self._bar.stop()

    def _watch(self) -> None:
        asked = False
        while not self._stop.wait(SECONDS_BETWEEN_LOOKS):
            if self._show() or asked:
                continue
            there = int(ray.cluster_resources().get(self._resource, 0))
            if there < self._workers:
                asked = True
                self._console.print(
                    f"waiting for {self._workers} workers with one {self._resource} each: "
                    f"the cluster has {there} so far, and starts more if it may"
                )

    def _show(self) -> bool:
        """Bring the bar up to date; return whether the workers have spoken yet."""
        latest, notes = ray.get(self.board.look.remote())
        for note in notes:
            self._console.print(note)
        if latest is None:
            return False
        done = latest["epoch"] * latest["steps"] + latest["step"]
        epoch = min(latest["epoch"] + 1, self._epochs)
        self._bar.update(
            self._task,
            total=self._epochs * latest["steps"],
            completed=done,
            description=f"{latest['stage']}, epoch {epoch} of {self._epochs}",
            figures=f"loss {latest['loss']:.3f}  {latest['patches_per_second']:.1f} patches/s  "
            f"data wait {latest['data_wait_fraction']:.1%}",
        )
        return True
