"""Cases done side by side, each written as it comes; what was done before is not done again."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from ray_jobs.on_ray.outcome import Outcome
from ray_jobs.predicting.folder import CaseFolder, CaseResult
from ray_jobs.settings.console import tracked
from ray_jobs.watching.provenance import git_commit
from scoring import RulesName
from storage import Refusal, Region

OutcomesOf = Callable[[Sequence[str]], Generator[Outcome[str, CaseResult], None, None]]


@dataclass(frozen=True, kw_only=True)
class CasesToDo:
    """Cases with what tells whether one has changed, those refused before, and what decides the results, as JSON.

    `regions` are the task's, `rules` those that score them, `notices` what is odd about all of them.
    """

    sources: Mapping[str, Mapping[str, Any]]
    refused: Sequence[Refusal]
    identity: Mapping[str, Any]
    regions: Sequence[Region]
    rules: RulesName
    notices: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Words:
    """What the command does to cases and did, what it says where none is, and how its files of them are called."""

    doing: str
    done: str
    none: str
    files: str


def do_cases(
    outcomes_of: OutcomesOf,
    cases: CasesToDo,
    folder: CaseFolder,
    console: Console,
    *,
    doing: str,
    said: str,
    workers: int,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the records of all cases that are done now, and why each of the others is refused.

    `outcomes_of` does cases, `workers` at once. `doing` names the work, `said` is told before it.
    """
    made_by = {**cases.identity, "git_commit": git_commit()}
    total, records = len(cases.sources), folder.finished(cases.sources)
    todo = [case_id for case_id in cases.sources if case_id not in records]
    console.print(f"{len(todo)} of {total} cases to do, {min(workers, len(todo)) or workers} at once, {said}")
    refused: dict[str, str] = {}

    def refuse(case_id: str, reason: str) -> None:
        refused[case_id] = reason
        folder.discard(case_id)
        console.print(f"refused {reason}", style="yellow", soft_wrap=True)

    for refusal in cases.refused:
        refuse(refusal.case_id, str(refusal))
    with closing(outcomes_of(todo)) as outcomes:
        for outcome in tracked(outcomes, console, doing, total=total, done=total - len(todo)):
            case_id, done = outcome.item, outcome.result
            if done is None:
                refuse(case_id, name_case(case_id, outcome.error or ""))
                continue
            if "label_refused" in done.record:
                reason = done.record["label_refused"]
                console.print(f"not scored {reason}", style="yellow", soft_wrap=True)
            about = {**done.record, "source": cases.sources[case_id], "made_by": made_by}
            records[case_id] = folder.finish(done.files, about)
    return [records[case_id] for case_id in cases.sources if case_id in records], refused


def name_case(case_id: str, reason: str) -> str:
    """Return the reason with the case's name before it, once."""
    return reason if reason.startswith(case_id) else f"{case_id}: {reason}"
