"""ASHA that remembers, so that a search which was cut off goes on comparing with the trials it had.

Tune saves its searcher's state and not its scheduler's: after `Tuner.restore` ASHA would know no earlier trial, and
let bad ones train to the end.
"""

import contextlib
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler

from ray_jobs.checkpoints.run_folder import RunFolder
from storage import InputError

TIME = "epoch"  # our own count of epochs: Tune's iterations start from 1 again in a resumed search
REDUCTION = 3  # one in three trials goes on at each rung
# Tune brings the .json and .pkl files of a search that it goes on with back as they were, again and again.
REPORTS = "asha.reports"


class RememberingASHA(ASHAScheduler):
    """ASHA that keeps the reports it was given in the search's folder, and hears them again when the search goes on.

    `max_epochs` are the most that any trial has, `grace_epochs` are left to each.
    """

    def __init__(self, folder: RunFolder, *, max_epochs: int, grace_epochs: int) -> None:
        grace = min(grace_epochs, max_epochs)
        super().__init__(time_attr=TIME, max_t=max_epochs, grace_period=grace, reduction_factor=REDUCTION)
        self._runs, self._name = folder.runs, folder.name  # Tune pickles this object: no open file system in it
        self._reports: list[tuple[str, int, float]] | None = None  # trial, epoch, score as they came; None: not read

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take note of a trial; before the first one, of what an earlier start of the search had heard."""
        if self._reports is None:
            self._reports = self._recall()
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether the trial goes on."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        assert self._reports is not None, "a trial is added before it reports"
        if TIME in result and self._metric in result:
            self._reports.append((trial.trial_id, int(result[TIME]), float(result[self._metric])))
            # Unwritten they do no harm now; a search that is cut off then compares with fewer trials.
            with contextlib.suppress(InputError):
                RunFolder(self._runs, self._name).write(REPORTS, {"reports": self._reports})
        return decision

    def _recall(self) -> list[tuple[str, int, float]]:
        kept = RunFolder(self._runs, self._name).read(REPORTS) or {"reports": []}
        reports = [(str(trial_id), int(epoch), float(score)) for trial_id, epoch, score in kept["reports"]]
        trials = {trial_id: SimpleNamespace(trial_id=trial_id) for trial_id, _, _ in reports}
        for trial in trials.values():
            super().on_trial_add(None, trial)
        for trial_id, epoch, score in reports:
            super().on_trial_result(None, trials[trial_id], {TIME: epoch, self._metric: score})
        return reports
