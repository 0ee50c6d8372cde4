"""A run's scores as tables: means with what is known of them, then the cases, worst first, each with its picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from models import mean_interval
from ray_jobs.pages.page import Html, folded, row, show_picture, table, table_of_bodies
from ray_jobs.reporting.run_record import RunRecord
from ray_jobs.settings.objective import SCORE_NAMES

OPEN_AT_FIRST = 3  # pictures: of the worst cases
MOST_PICTURES = 32  # on a page: it would grow by a tenth of a megabyte with each


def mean_table(run: RunRecord) -> Html:
    """Return the means over the cases of each region, with 95 % intervals over subjects, beside the baseline."""
    parts = {name: part for name in ("validation", "test") if (part := run.part(name))}
    baseline = (run.summary or {}).get("baseline_iou")
    head = ["region"]
    for name in parts:
        head += [column for score in SCORE_NAMES.values() for column in (f"{name} {score}", "95 %")]
    rows = []
    for region in (*run.regions, "mean"):
        cells = [region]
        for part in parts.values():
            for kind in SCORE_NAMES:
                cells += [f"{part[kind][region]:.3f}", _interval(run, part.get("by_case") or {}, kind, region)]
        rows.append([*cells, *([f"{baseline[region]:.3f}"] if baseline else [])])
    if baseline:
        head.append("baseline IoU")
    return table("Means over cases, with 95 % intervals over subjects", head, rows)


def _interval(run: RunRecord, cases: Mapping[str, Any], kind: str, region: str) -> str:
    of_subject: dict[str, list[float]] = {}
    for case_id, own in cases.items():
        of_subject.setdefault(run.subject_of(case_id), []).append(own[kind][region])
    ends = mean_interval([sum(scores) / len(scores) for scores in of_subject.values()])
    return "" if ends is None else f"{ends[0]:.3f}–{ends[1]:.3f}"


def tables_of_cases(run: RunRecord) -> list[Html]:
    """Return a table for each part that was scored."""
    made = []
    for name in ("validation", "test"):
        cases = (run.part(name) or {}).get("by_case") or {}
        if cases:
            made.append(table_of_cases(f"Each {name} case, the worst first", cases, run.objective, run.sections))
    return made


def table_of_cases(
    caption: str,
    cases: Mapping[str, Mapping[str, Any]],
    objective: str,
    pictures: Mapping[str, bytes],
    *,
    also: Sequence[str] = (),
) -> Html:
    """Return the scores of each case, the worst first by its mean, with its picture below where there is one.

    `also` names what else of a case is shown.
    """
    names = sorted(SCORE_NAMES.items(), key=lambda each: each[0] != objective)
    ordered = sorted(cases, key=lambda case_id: (cases[case_id][objective]["mean"], case_id))
    shown = [case_id for case_id in ordered if case_id in pictures][:MOST_PICTURES]
    regions = ["mean", *(region for region in cases[ordered[0]][objective] if region != "mean")]
    columns = [(kind, region) for kind, _ in names for region in regions]
    head = ["case", *also, *(f"{region} {name}" for _, name in names for region in regions)]
    bodies = []
    for case_id in ordered:
        own = cases[case_id]
        said = (str(own.get(name) or "") for name in also)
        cells = row([case_id, *said, *(f"{own[kind][region]:.3f}" for kind, region in columns)])
        if case_id in shown:
            picture = show_picture(pictures[case_id], f"{case_id}: scans, label and prediction")
            fold = folded(f"Picture of {case_id}", [picture], opened=shown.index(case_id) < OPEN_AT_FIRST)
            cells += f'<tr class="figures"><td colspan="{len(head)}">{fold}</td></tr>'
        bodies.append(f"<tbody>{cells}</tbody>")
    return table_of_bodies(caption, head, bodies)
