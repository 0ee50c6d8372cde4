"""A search's news, a line for each validated epoch of a trial.

Tune keeps it with the search, so it holds no console.
"""

import dataclasses
import datetime
from typing import Any

from ray import tune

from models import Objective
from ray_jobs.searching.results import describe_values, last_line
from ray_jobs.settings.console import open_console
from ray_jobs.settings.objective import RULES, SCORE_NAMES

DONE = ("TERMINATED", "ERROR")


@dataclasses.dataclass
class SearchProgress(tune.Callback):
    """Prints what trials report, and how long the rest takes at most."""

    epochs: int
    """The most that a trial has."""
    trials: int | None
    """How many there will be; None where Tune makes them all at once."""
    done: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds_per_epoch: dict[str, float] = dataclasses.field(default_factory=dict)
    objective: Objective = "iou"  # as of searches that were pickled before they could maximise another

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Print a line: trial, epoch, scores, thresholds, time left."""
        if "run_finished" in result:
            return
        before = self.done.get(trial.trial_id, 0)
        self.done[trial.trial_id] = result["epoch"]
        self.seconds_per_epoch[trial.trial_id] = result["time_this_iter_s"] / max(1, result["epoch"] - before)
        kind, of_all = f"{self.objective}_", f"{self.objective}_mean"
        regions = {name: value for name, value in result.items() if name.startswith(kind) and name != of_all}
        scores = "  ".join(f"{name.removeprefix(kind)} {value:.3f}" for name, value in regions.items())
        epoch = f"epoch {result['epoch']} of {self._epochs_of(trial)}"
        self._say(
            trial,
            f"{epoch}: {RULES} {SCORE_NAMES[self.objective]} {result[of_all]:.3f}  {scores}  {self._left(trials)}",
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that the trial has ended, by itself or stopped."""
        whole = self.done.get(trial.trial_id, 0) >= self._epochs_of(trial)
        self._say(trial, "finished" if whole else f"stopped after epoch {self.done.get(trial.trial_id, 0)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say why the trial failed; the search goes on."""
        self._say(trial, f"failed: {last_line(trial.get_error() or '')}")

    def _say(self, trial: Any, what: str) -> None:
        open_console().print(
            f"trial {trial.trial_id} ({describe_values(trial.config)})  {what}",
            highlight=False,
            soft_wrap=True,
        )

    def _left(self, trials: list[Any]) -> str:
        """The time that is left if no further trial is stopped early."""
        ended = {each.trial_id for each in trials if each.status in DONE}
        running = max(1, sum(each.status == "RUNNING" for each in trials))
        known = sum(self._epochs_of(each) for each in trials if each.trial_id not in ended)
        to_come = max(0, (self.trials or 0) - len(trials)) * self.epochs
        done = sum(count for trial_id, count in self.done.items() if trial_id not in ended)
        mean = sum(self.seconds_per_epoch.values()) / len(self.seconds_per_epoch)
        seconds = (known + to_come - done) * mean / running
        return f"at most {datetime.timedelta(seconds=round(seconds))} left"

    def _epochs_of(self, trial: Any) -> int:
        return int(trial.config.get("epochs", self.epochs))
