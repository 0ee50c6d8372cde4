"""What the driver shows of a run, fed by rank 0 through a small actor: a bar on a terminal, lines in a log."""

import datetime
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import ray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn

from ray_jobs.on_ray.live_metrics import LiveMetrics
from ray_jobs.settings.console import SECONDS_BETWEEN_LINES, text_column
from ray_jobs.watching.board import start_board
from ray_jobs.watching.ledger import Ledger
from storage import InputError

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_WRITES = 60.0  # of what a run costs: so much of it a lost head may forget


class News:
    """The run's news in words, and how long it will still take at the pace since these workers' first news."""

    def __init__(self, *, epochs: int) -> None:
        self._epochs = epochs
        self._first: tuple[float, int] | None = None
        self.stage, self.figures, self.left = "starting workers", "", ""
        self.done, self.total, self._last = 0, 0, 0
        self.epoch = 0

    def take(self, latest: dict[str, Any], now: float, cost: str = "") -> None:
        """Take rank 0's latest news, at `now` in seconds, and what the run costs in words."""
        self.done = latest["epoch"] * latest["steps"] + latest["step"]
        self.total = self._epochs * latest["steps"]
        self.epoch = min(latest["epoch"] + 1, self._epochs)
        self.stage = f"{latest['stage']}, epoch {self.epoch} of {self._epochs}"
        parts = [f"loss {latest['loss']:.3f}", f"{latest['patches_per_second']:.1f} patches/s"]
        parts.append(f"data wait {latest['data_wait_fraction']:.1%}")
        if latest["score"] == latest["score"]:  # not NaN: there has been a validation
            parts.append(f"{latest['score_name']} {latest['score']:.3f}")
        self.figures = "  ".join([*parts, *([cost] if cost else [])])
        if self._first is None or self.done < self._last:  # workers started again go on from an earlier step
            self._first, self.left = (now, self.done), ""
        self._last = self.done
        started, before = self._first
        if self.done > before:
            seconds = (self.total - self.done) * (now - started) / (self.done - before)
            self.left = f"{datetime.timedelta(seconds=round(seconds))} left"


class Bar:
    """News as a bar at the bottom of a terminal."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            text_column("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            text_column("{task.fields[figures]}"),
            text_column("{task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("starting workers", total=None, figures="", left="")

    def start(self) -> None:
        """Draw the bar."""
        self._bar.start()

    def show(self, news: News) -> None:
        """Bring the bar up to date."""
        self._bar.update(
            self._task,
            total=news.total,
            completed=news.done,
            description=news.stage,
            figures=news.figures,
            left=news.left,
        )

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()


class Lines:
    """News as lines of a log, now and then."""

    def __init__(self, console: Console, name: str = "") -> None:
        self._console, self._name = console, name
        self._shown: tuple[float, int] | None = None

    def start(self) -> None:
        """Nothing to draw."""

    def show(self, news: News) -> None:
        """Print a line if one is due."""
        now = time.monotonic()
        if self._shown is not None and now - self._shown[0] < SECONDS_BETWEEN_LINES and news.epoch == self._shown[1]:
            return
        self._shown = now, news.epoch
        share = news.done / news.total if news.total else 0.0
        said = (self._name, f"{news.stage}, {share:.0%}:", news.figures, news.left)
        self._console.print("  ".join(each for each in said if each))

    def stop(self) -> None:
        """Nothing to leave."""


class TrainingProgress:
    """Context manager that shows a run's progress on `console` while the body blocks in `fit()`.

    With a `name`, for there are others beside it, in lines that begin with it. `limit` says why its cost ends it, and
    `after_saving` is called after each checkpoint that ends an epoch, here: neither the workers nor the GPUs wait.
    """

    def __init__(
        self,
        console: Console,
        ledger: Ledger,
        *,
        epochs: int,
        workers: int,
        use_gpu: bool,
        name: str = "",
        limit: Callable[[], str | None] = lambda: None,
        after_saving: Callable[[], None] = lambda: None,
    ) -> None:
        self.board, self.ledger, self._limit = start_board(), ledger, limit
        self._after_saving, self._saved = after_saving, False
        self.over_limit: str | None = None  # why the run was asked to stop, where that was its cost
        self._console, self._name = console, name
        self._workers, self._resource = workers, "GPU" if use_gpu else "CPU"
        self._news = News(epochs=epochs)
        self._display = Bar(console) if console.is_terminal and not name else Lines(console, name)
        self._begun = False
        self._written = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._display.start()
        self._metrics = LiveMetrics(self.ledger.run, "driver")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._show()
        self.ledger.end(time.time())
        self._metrics.close()
        self._write()
        self._display.stop()

    def ask_to_stop(self) -> bool:
        """Ask the run to save and end; return whether a worker has begun, who could."""
        self.board.stop.remote()
        return self._begun

    def _watch(self) -> None:
        asked = False
        while not self._stop.wait(SECONDS_BETWEEN_LOOKS):
            begun = self._show()
            if self._saved:
                self._saved = False
                self._after_saving()
            if begun or asked:
                continue
            there = int(ray.cluster_resources().get(self._resource, 0))
            if there < self._workers:
                asked = True
                self._console.print(
                    f"waiting for {self._workers} workers with one {self._resource} each: "
                    f"the cluster has {there} so far, and starts more if it may"
                )

    def _show(self) -> bool:
        """Show what is new; return whether the workers have spoken yet."""
        latest, notes, marks, machines = ray.get(self.board.look.remote())
        self._saved = self._saved or any(moment == "saved" for moment, *_ in marks)
        restarts = self.ledger.take(marks, machines, time.time())
        for note in [*notes, *map(str, restarts)]:
            self.say(note)
        due = self.ledger.rate is not None and time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES
        if restarts or due:
            self._write()
        if self.over_limit is None and (reason := self._limit()) is not None:
            self.over_limit = reason
            self.say(f"{reason}: saving, then stopping")
            self.board.stop.remote()
        self._metrics.show(self.ledger.figures())
        if latest is None:
            return False
        self._begun = True
        self._news.take(latest, time.monotonic(), str(self.ledger))
        self._display.show(self._news)
        return True

    def say(self, note: str) -> None:
        """Print a line."""
        said = f"{self._name}  {note}" if self._name else note
        self._console.print(said)

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            self.ledger.write()
        except InputError as error:  # written anew after the next restart, and at the end
            self.say(f"what the run cost is not noted: {error}")
