"""A search's page, report.html in its folder: trials, what they cost, what mattered, and each one's thresholds."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from models import Objective
from ray_jobs.checkpoints.checkpoint import CURVES
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.run_folder import CONFIG, RunFolder
from ray_jobs.pages.charts import Axis, Curve, bars, chart, charts, number
from ray_jobs.pages.page import Html, Section, build_page, bullets, key_figures, link, paragraph, table, with_code
from ray_jobs.reporting.preset_table import against_preset
from ray_jobs.reporting.run_page import REPORT
from ray_jobs.searching.importance import LEAST_TRIALS, importance_of
from ray_jobs.searching.results import RESULTS, TRIALS, describe_values
from ray_jobs.searching.search_steps import steps_after_search
from ray_jobs.settings.objective import SCORE_NAMES, SCORES_ARE
from storage import InputError
from storage.store.objects import Objects

STATUSES = ("finished", "stopped", "failed")
BEST_TRIALS = 3  # whose threshold curves are drawn

Rows = Sequence[Mapping[str, Any]]


def write_search_page(folder: RunFolder) -> None:
    """Write the page of the search into its folder. Raises InputError."""
    folder.put(REPORT, build_search_page(folder))


def build_search_page(folder: RunFolder) -> bytes:
    """Return the page of a search over fields, or over thresholds. Raises InputError where it is not finished."""
    found = folder.read(RESULTS)
    if found is None:
        raise InputError(
            f"wanted {RESULTS} of the search {folder.uri}, found none, as it is not finished: its command with "
            "--resume goes on with it; each of its trials is a run that can be shown"
        )
    return _page_of_thresholds(folder, found) if "exact" in found else _page_of_fields(folder, found)


def _page_of_fields(folder: RunFolder, found: Mapping[str, Any]) -> bytes:
    rows: Rows = found["trials"]
    objective: Objective = found.get("objective", "iou")  # earlier versions maximised nothing else
    scored = [row for row in rows if objective in row]
    identity = folder.read(CONFIG) or {}
    config = {key: value for key, value in identity.items() if key != "search"}
    sections = (
        Section(
            "next",
            "What to do next",
            [bullets(map(with_code, steps_after_search(rows, folder.uri, objective)))],
        ),
        Section("trials", "Trials", _trials(rows, folder, objective)),
        Section("fields", "What was searched", _fields(scored, objective)),
        Section("cost", "Cost against score", _costs(scored, objective)),
        Section("thresholds", "Thresholds of each trial", _thresholds(scored, folder, objective)),
        Section("failed", "Failed trials", [_failures(rows)]),
        Section(
            "configuration",
            "Configuration",
            [_search_of(identity.get("search") or {}), *against_preset(config)],
        ),
    )
    counts = (f"{sum(row['status'] == status for row in rows)} {status}" for status in STATUSES)
    best = (
        f" The best, of the highest mean {SCORE_NAMES[objective]}, had {describe_values(scored[0]['values'])}."
        if scored
        else ""
    )
    lead = f"{len(rows)} trials: {', '.join(counts)}.{best}"
    return build_page(
        f"Search {folder.name}",
        sections,
        lead=Html(f"{paragraph(lead)}{key_figures(_key_figures(rows, scored, objective))}"),
    )


def _key_figures(rows: Rows, scored: Rows, objective: Objective) -> dict[str, str]:
    figures = {}
    if scored:
        figures[f"best mean {SCORE_NAMES[objective]}"] = f"{scored[0][objective]['mean']:.3f}"
    figures["hours of all trials"] = f"{sum(row['seconds'] for row in rows) / 3600:.2f}"
    if any(row.get("cost") is not None for row in rows):
        figures["cost"] = f"{sum(row.get('cost') or 0.0 for row in rows):.2f}"
    return figures


def _trials(rows: Rows, folder: RunFolder, objective: Objective) -> list[str]:
    fields = _searched(rows)
    regions = next((list(row[objective]) for row in rows if objective in row), ["mean"])
    head = ["trial", *fields, "status", "epochs", *(f"{region} {SCORE_NAMES[objective]}" for region in regions)]
    made = []
    for place, row in enumerate(rows, start=1):
        scores = [f"{row[objective][region]:.3f}" if objective in row else "" for region in regions]
        speed = f"{row['patches_per_second']:.2f}" if "patches_per_second" in row else ""
        cost = "" if row.get("cost") is None else f"{row['cost']:.3g}"
        values = [_shown(row["values"].get(field)) for field in fields]
        made.append(
            [
                _link_to(row, folder, place),
                *values,
                row["status"],
                str(row.get("epochs", "")),
                *scores,
                speed,
                f"{row['seconds'] / 60:.1f}",
                cost,
            ]
        )
    said = paragraph(f"{SCORES_ARE}; of the best epoch of each trial, on the validation cases.", kind="prose muted")
    return [table("Trials, the best first", [*head, "patches/s", "minutes", "cost"], made), said]


def _link_to(row: Mapping[str, Any], folder: RunFolder, place: int) -> str:
    """The trial's number, as a link to its run's page where there is one."""
    page = f"{_run_of(row)}/{REPORT}"
    return link(page, str(place)) if Objects(folder.uri).size(page) is not None else str(place)


def _run_of(row: Mapping[str, Any]) -> str:
    """Where the trial's run lies in the search's folder, which may have been moved or copied since."""
    return f"{TRIALS}/{str(row.get('run', '')).rpartition('/')[2]}"


def _searched(rows: Rows) -> list[str]:
    return list(dict.fromkeys(field for row in rows for field in row["values"]))


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _fields(scored: Rows, objective: Objective) -> list[str]:
    name, drawn = SCORE_NAMES[objective], []
    for field in _searched(scored):
        known = [row for row in scored if isinstance(row["values"].get(field), int | float)]
        values = [float(row["values"][field]) for row in known]
        if len(set(values)) > 1:
            across = Axis(name=field, log=min(values) > 0 and max(values) > 5 * min(values))
            drawn.append(chart(f"Over {field}", _dots(known, values, objective), across, Axis(name=f"mean {name}")))
    importance = importance_of(scored, objective)
    if importance is None:
        said = f"What matters how much is not said of fewer than {LEAST_TRIALS} trials with a score."
        return [charts(drawn), paragraph(said)]
    shares = {field: (number(share), share) for field, share in importance.items()}
    caption = f"Share of each field in what the score varied among {len(scored)} trials"
    said = "By PED-ANOVA (Watanabe et al. 2023), as Optuna computes it; of few trials it is a hint."
    return [charts(drawn), bars(caption, ["field", "importance", "share"], shares), paragraph(said, kind="prose muted")]


def _dots(rows: Rows, places: Sequence[float], objective: Objective) -> list[Curve]:
    return [
        Curve(
            name=status,
            points=[
                (place, row[objective]["mean"])
                for place, row in zip(places, rows, strict=True)
                if row["status"] == status
            ],
            style=at,
            dots=True,
        )
        for at, status in enumerate(STATUSES)
    ]


def _costs(scored: Rows, objective: Objective) -> list[str]:
    """Cost, or hours where there are no prices, and what was the best for as much or less."""
    priced = bool(scored) and all(row.get("cost") is not None for row in scored)
    costs = [float(row["cost"]) if priced else row["seconds"] / 3600 for row in scored]
    best: list[tuple[float, float]] = []
    for cost, score in sorted((cost, row[objective]["mean"]) for cost, row in zip(costs, scored, strict=True)):
        if not best or score > best[-1][1]:
            best.append((cost, score))
    curves = [*_dots(scored, costs, objective), Curve(name="best for as much or less", points=best, style=3)]
    across, name = Axis(name="cost" if priced else "hours", low=0.0), SCORE_NAMES[objective]
    return [charts([chart("A trial's score over what it cost", curves, across, Axis(name=f"mean {name}"))])]


def _thresholds(scored: Rows, folder: RunFolder, objective: Objective) -> list[str]:
    if not scored:
        return []
    regions = list(scored[0]["threshold"])
    head = ["trial", "values", *regions]
    rows = [
        [str(place), describe_values(row["values"]), *(f"{row['threshold'][region]:.3f}" for region in regions)]
        for place, row in enumerate(scored, start=1)
    ]
    name, drawn = SCORE_NAMES[objective], []
    curves = [_curves_of(folder, _run_of(row)) for row in scored[:BEST_TRIALS]]
    for region in regions:
        lines = [
            Curve(
                name=f"trial {place}",
                points=list(zip(own["thresholds"], own[objective][region], strict=True))[
                    :: len(own["thresholds"]) // 100 or 1
                ],
                style=place - 1,
            )
            for place, own in enumerate(curves, start=1)
            if own is not None
        ]
        across, up = Axis(name="threshold", low=0.0, high=1.0), Axis(name=name, low=0.0, high=1.0)
        drawn.append(chart(f"{region}, the best trials", lines, across, up))
    return [table("Thresholds that each trial was scored at", head, rows), charts(drawn)]


def _curves_of(search: RunFolder, run: str) -> dict[str, Any] | None:
    """The threshold curves of a trial's best checkpoint; None where it has none, as of several folds, or is gone."""
    folder = Objects(search.uri)
    best = CheckpointStore(f"{search.uri}/{run}").best() if folder.folders(run) else None
    curves = None if best is None else folder.get(f"{run}/{best.name}/{CURVES}")
    decoded: dict[str, Any] | None = None if curves is None else json.loads(curves)
    return decoded


def _failures(rows: Rows) -> Html:
    failed = [[describe_values(row["values"]), row["error"]] for row in rows if "error" in row]
    return table("What they ended with", ["values", "error"], failed, words=True) if failed else Html("")


def _search_of(said: Mapping[str, Any]) -> Html:
    rows = [
        [name.replace("_", " "), " ".join(map(str, v)) if isinstance(v, list) else str(v)] for name, v in said.items()
    ]
    return table("The search", ["field", "value"], rows, words=True) if rows else Html("")


def _page_of_thresholds(folder: RunFolder, found: Mapping[str, Any]) -> bytes:
    objective: Objective = found["objective"]
    name, rows = SCORE_NAMES[objective], found["trials"]
    best = [
        [region, *(f"{found[kind][region][of]:.3f}" for kind in ("best", "exact") for of in ("threshold", objective))]
        for region in found["best"]
    ]
    head = ["region", "best trial's threshold", name, "exact threshold", name]
    across, up = Axis(name="threshold", low=0.0, high=1.0), Axis(name=name, low=0.0, high=1.0)
    drawn = [
        chart(
            f"{name} over the threshold",
            [
                Curve(name=region, points=[(row["threshold"], row[f"{objective}_{region}"]) for row in rows], style=at)
                for at, region in enumerate([*(each for each in found["best"] if each != "shared"), "mean"])
            ],
            across,
            up,
        )
    ]
    section = Section("thresholds", "Thresholds", [table("Best thresholds", head, best), charts(drawn)])
    lead = paragraph(f"{len(rows)} thresholds on the {found['split']} cases. {SCORES_ARE}.")
    return build_page(f"Thresholds {folder.name}", [section], lead=lead)
