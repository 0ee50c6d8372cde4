"""ASHA that remembers, so that a search which was cut off goes on comparing with the trials it had.

Tune saves its searcher's state and not its scheduler's: after `Tuner.restore` ASHA would know no earlier trial, and
let bad ones train to the end.
"""

import contextlib
import json
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler

from ray_jobs.checkpoints.run_folder import RunFolder
from storage import InputError
from storage.store.objects import Objects

TIME = "epoch"  # our own count of epochs: Tune's iterations start from 1 again in a resumed search
REDUCTION = 3  # one in three trials goes on at each rung
# Where each trial has a file of its own: one of all would be written anew, longer, at each report of each.
REPORTS = "asha"
# Tune brings the .json and .pkl files of a search that it goes on with back as they were, again and again.
_ENDING = ".reports"
_OLD_REPORTS = "asha.reports"  # all trials', of searches that began before December 2026


class RememberingASHA(ASHAScheduler):
    """ASHA that keeps the reports it was given in the search's folder, and hears them again when the search goes on.

    `max_epochs` are the most that any trial has, `grace_epochs` are left to each.
    """

    def __init__(self, folder: RunFolder, *, max_epochs: int, grace_epochs: int) -> None:
        grace = min(grace_epochs, max_epochs)
        super().__init__(time_attr=TIME, max_t=max_epochs, grace_period=grace, reduction_factor=REDUCTION)
        self._runs, self._name = folder.runs, folder.name  # Tune pickles this object: no open file system in it
        self._reports: dict[str, list[tuple[int, float]]] | None = None  # epoch, score of each trial; None: not read

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
            own = self._reports.setdefault(trial.trial_id, [])
            own.append((int(result[TIME]), float(result[self._metric])))
            # Unwritten they do no harm now; a search that is cut off then compares with fewer trials.
            with contextlib.suppress(InputError):
                RunFolder(self._runs, self._name).write(f"{REPORTS}/{trial.trial_id}{_ENDING}", {"reports": own})
        return decision

    def _recall(self) -> dict[str, list[tuple[int, float]]]:
        reports = read_reports(RunFolder(self._runs, self._name))
        for trial_id, own in reports.items():
            trial = SimpleNamespace(trial_id=trial_id)
            super().on_trial_add(None, trial)
            for epoch, score in own:
                super().on_trial_result(None, trial, {TIME: epoch, self._metric: score})
        return reports


def read_reports(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """What each trial of a search has reported so far: epoch and score."""
    found: dict[str, list[tuple[int, float]]] = {}
    old = folder.read(_OLD_REPORTS) or {"reports": []}
    for trial_id, epoch, score in old["reports"]:
        found.setdefault(trial_id, []).append((epoch, score))
    objects = Objects(folder.uri, create=True)
    keys = objects.keys(REPORTS)
    for key, raw in zip(keys, objects.get_many(keys), strict=True):
        if raw is not None:  # with what the old file says of the trial
            trial_id = key.removeprefix(f"{REPORTS}/").removesuffix(_ENDING)
            found[trial_id] = [(epoch, score) for epoch, score in json.loads(raw)["reports"]]
    return found
