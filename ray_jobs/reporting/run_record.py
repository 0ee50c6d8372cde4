"""What a run's folder says of the run, while it goes and when it is finished. The folder is all that is asked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from models import Objective
from ray_jobs.checkpoints.checkpoint import CASES, CURVES, DECISION, Checkpoint, CheckpointRecord
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.run_folder import CONFIG, SUMMARY
from ray_jobs.reporting.event_reader import Events, read_events
from ray_jobs.watching.ledger import SPENT
from storage.store.objects import Objects

EVENTS, SECTION, SECTION_ENDS = "events.out.tfevents.", "cross_section_", ".png"

Scores = Mapping[str, Mapping[str, Any]]
"""Of each case: kind of score → region, or their mean → value; and of whom it is, where that was written down."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as its folder has it; what there is not yet is None or empty.

    `best` and `newest` are checkpoints; `curves`, `decision` and `cases` are of the best one.
    """

    name: str
    uri: str
    summary: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    spent: Mapping[str, Any] | None = None
    events: Events = field(default_factory=Events)
    best: CheckpointRecord | None = None
    newest: CheckpointRecord | None = None
    curves: Mapping[str, Any] | None = None
    decision: Mapping[str, Any] | None = None
    cases: Scores = field(default_factory=dict)
    sections: Mapping[str, bytes] = field(default_factory=dict)  # case to its picture

    @property
    def objective(self) -> Objective:
        """What the run maximises; earlier versions knew nothing but IoU."""
        said = self.summary or self.config
        return "dice" if said.get("objective") == "dice" else "iou"

    @property
    def epochs(self) -> int:
        """How many the run is to have."""
        return int(self.config.get("epochs", 0))

    @property
    def regions(self) -> list[str]:
        """Their names, in the order of the network's outputs; none before the first validation."""
        if self.summary is not None:
            return list(self.summary["thresholds"] if "thresholds" in self.summary else self._validated["threshold"])
        return list((self.curves or {}).get("iou", {}))

    @property
    def _validated(self) -> Mapping[str, Any]:
        return (self.summary or {}).get("validation") or {}

    def part(self, name: str) -> Mapping[str, Any] | None:
        """What summary.json says of `validation` or `test` cases; while there is none, of the best one's validation."""
        if self.summary is not None:
            part: Mapping[str, Any] | None = self.summary.get(name)
            return part
        if name == "test" or not self.cases:
            return None
        mean = {
            kind: {
                region: sum(each[kind][region] for each in self.cases.values()) / len(self.cases)
                for region in (*self.regions, "mean")
            }
            for kind in ("iou", "dice")
        }
        return {**mean, "cases": len(self.cases), "by_case": self.cases, "bad_cases": {}}

    def subject_of(self, case_id: str) -> str:
        """Whose exam a case is; of a case of which nothing says it, the case itself."""
        return str(self.cases.get(case_id, {}).get("subject", case_id))

    @cached_property
    def _steps_per_epoch(self) -> float | None:
        """By the last epoch's event, which lies at its last step."""
        step, epoch = next(iter(self.events.scalars.get("epoch/epoch", [])[-1:]), (0, 0.0))
        return step / epoch if epoch else None

    @property
    def across(self) -> str:
        """What `series` counts."""
        return "epoch" if self._steps_per_epoch else "step"

    def series(self, name: str) -> list[tuple[float, float]]:
        """Return the values of a scalar over the epochs done, or over the steps before the first epoch's end.

        Where the events are gone: those that the summary has, of epochs that were validated.
        """
        length = self._steps_per_epoch or 1.0
        found = [(step / length, value) for step, value in self.events.scalars.get(name, [])]
        history: Sequence[Mapping[str, Any]] = (self.summary or {}).get("history", ())
        short = name.rsplit("/", 1)[-1]
        return found or [(each["epoch"], each[short]) for each in history if short in each]


def read_run(uri: str, name: str) -> RunRecord:
    """Read the folder of run `name` at `uri`, a path or an s3:// URL. Raises InputError where it cannot be read."""
    folder, store = Objects(uri), CheckpointStore(uri)
    files = folder.files()
    summary, identity, spent = (_decode(folder.get(file)) for file in (SUMMARY, CONFIG, SPENT))
    records = store.records()
    best, newest = store.best(), next(iter(records[::-1]), None)
    kept = None if best is None else store.open(best)
    written = _decode_of(kept, CONFIG) or {}
    sections = [file for file in files if file.startswith(SECTION) and file.endswith(SECTION_ENDS)]
    pictures = folder.get_many(sections)
    logs = folder.get_many(sorted(file for file in files if file.startswith(EVENTS)))
    return RunRecord(
        name=name,
        uri=uri,
        summary=summary,
        config=(summary or {}).get("config") or {**(identity or {}), **written, **written.get("made_with", {})},
        spent=spent,
        events=read_events(log for log in logs if log is not None),
        best=best,
        newest=newest,
        curves=_decode_of(kept, CURVES),
        decision=_decode_of(kept, DECISION),
        cases=_decode_of(kept, CASES) or {},
        sections={
            file.removeprefix(SECTION).removesuffix(SECTION_ENDS): picture
            for file, picture in zip(sections, pictures, strict=True)
            if picture is not None
        },
    )


def _decode_of(checkpoint: Checkpoint | None, file: str) -> dict[str, Any] | None:
    return None if checkpoint is None or not checkpoint.has(file) else _decode(checkpoint.read(file))


def _decode(content: bytes | None) -> dict[str, Any] | None:
    decoded: dict[str, Any] | None = None if content is None else json.loads(content)
    return decoded
