"""A run's page, report.html in its folder: made of the folder alone, after each validation and at the end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.pages.charts import Axis, Curve, bars, chart, charts, thinned
from ray_jobs.pages.page import (
    Html,
    Section,
    build_page,
    bullets,
    folded,
    key_figures,
    paragraph,
    show_picture,
    table,
    with_code,
)
from ray_jobs.reporting.case_tables import mean_table, tables_of_cases
from ray_jobs.reporting.next_steps import bad_cases, best_epoch, next_steps
from ray_jobs.reporting.preset_table import against_preset
from ray_jobs.reporting.run_record import RunRecord, read_run
from ray_jobs.settings.objective import SCORE_NAMES, SCORES_ARE
from ray_jobs.watching.restarts import PARTS
from ray_jobs.watching.summary import describe_costs

REPORT = "report.html"
PER_STEP = "seconds_per_step/"  # how the events call the parts of a step


def write_run_page(folder: RunFolder) -> None:
    """Write the page of the run into its folder, whole or not at all. Raises InputError."""
    folder.put(REPORT, build_run_page(read_run(folder.uri, folder.name)))


def keep_page(write: Callable[[RunFolder], None], folder: RunFolder, tell: Callable[[str], None]) -> None:
    """Write a page; whatever keeps that from being done is told, and costs the page, not the run."""
    try:
        write(folder)
    except Exception as error:
        tell(f"{REPORT} of {folder.name} is not up to date: {error}")


def build_run_page(run: RunRecord) -> bytes:
    """Return the page."""
    sections = (
        Section("next", "What to do next", [bullets(map(with_code, next_steps(run)))]),
        Section("curves", "Training", [charts(_training(run))]),
        Section("scores", "Scores", _scores(run)),
        Section("thresholds", "Thresholds", _thresholds(run)),
        Section("time", "Time and money", _time(run)),
        Section("mishaps", "Restarts and bad cases", _mishaps(run)),
        Section("configuration", "Configuration", against_preset(run.config)),
        Section("origin", "Where it comes from", _origin(run)),
    )
    lead = Html(f"{paragraph(_state(run))}{key_figures(_key_figures(run))}")
    return build_page(f"Run {run.name}", sections, lead=lead)


def _state(run: RunRecord) -> str:
    if run.summary is not None:
        best, when = best_epoch(run), run.summary.get("finished")
        chosen = "" if best is None else f"; kept are the weights after epoch {best} of {run.epochs}"
        return f"Finished{f' at {when}' if when else ''}{chosen}."
    if run.newest is None:
        return "Not finished; no checkpoint yet."
    done = f"{run.newest.epoch} of {run.epochs} epochs" + (
        f" and step {run.newest.step} of the next" if run.newest.step else ""
    )
    return f"Not finished: this is the run after {done}."


def _key_figures(run: RunRecord) -> dict[str, str]:
    figures, name = {}, SCORE_NAMES[run.objective]
    for part in ("validation", "test"):
        scored = run.part(part)
        if scored:
            figures[f"{part} {name}, {scored['cases']} case{'s' * (scored['cases'] != 1)}"] = (
                f"{scored[run.objective]['mean']:.3f}"
            )
    speed, waited = (_last(run.series(f"epoch/{each}")) for each in ("patches_per_second", "data_wait_fraction"))
    if run.summary is not None:
        speed = run.summary["throughput"]["patches_per_second"]
        waited = run.summary["throughput"]["data_wait_fraction"]
    if speed is not None and waited is not None:
        figures |= {"patches a second": f"{speed:.2f}", "waiting for data": f"{waited:.2%}"}
    cost = _cost(run)
    if cost.get("seconds"):
        figures["hours of workers"] = f"{cost['seconds'] / 3600:.2f}"
    if cost.get("dollars"):
        figures["cost"] = f"${cost['dollars']:.2f}"
    return figures


def _last(series: Sequence[tuple[float, float]]) -> float | None:
    return series[-1][1] if series else None


def _cost(run: RunRecord) -> Mapping[str, Any]:
    return (run.summary or {}).get("cost") or run.spent or {}


def _training(run: RunRecord) -> list[str]:
    across, regions = Axis(name=run.across, whole=True), [*run.regions, "mean"]
    loss = [
        Curve(name="steps", points=thinned(run.series("loss/step"))),
        Curve(name="mean of the epoch", points=run.series("epoch/loss"), style=1),
    ]
    drawn: list[str] = [chart("Loss", loss, across, Axis(name="loss"))]
    for kind, name in sorted(SCORE_NAMES.items(), key=lambda each: each[0] != run.objective):
        scores = [
            Curve(name=region, points=run.series(f"validation/{kind}_{region}"), style=at)
            for at, region in enumerate(regions)
        ]
        drawn.append(chart(f"{name} on validation cases", scores, across, Axis(name=name, low=0.0, high=1.0)))
    for title, series, low in (
        ("Learning rate", "learning_rate", 0.0),
        ("Share of the time spent waiting for data", "epoch/data_wait_fraction", 0.0),
        ("Patches a second", "epoch/patches_per_second", 0.0),
        ("Norm of the gradients", "gradient_norm", None),
    ):
        points = thinned(run.series(series))
        log = low is None and all(value > 0 for _, value in points)
        drawn.append(chart(title, [Curve(name=title, points=points)], across, Axis(name=title, low=low, log=log)))
    return drawn


def _scores(run: RunRecord) -> list[str]:
    if run.part("validation") is None and run.part("test") is None:
        return []
    content: list[str] = [mean_table(run), paragraph(f"{SCORES_ARE}.", kind="prose muted")]
    if run.summary is None and (shown := run.events.pictures.get("cross_section")):
        content.append(folded("A validation case, as it was predicted last", [show_picture(shown, "Cross-sections")]))
    return [*content, *tables_of_cases(run)]


def _thresholds(run: RunRecord) -> list[str]:
    said = ((run.summary or {}).get("decision") or {}).get("said", ())
    decided = (run.summary or {}).get("decision") or run.decision
    content: list[str] = [bullets(said)]
    if decided:
        content.append(decision_table(decided))
    if run.curves:
        content.append(charts(threshold_charts(run.curves, (decided or {}).get("thresholds", {}))))
        content.append(
            paragraph("The curves are of the validation cases, and of the epoch that is kept.", kind="muted")
        )
    return content


def decision_table(decided: Mapping[str, Any]) -> Html:
    """Return what makes regions of the probabilities, region by region."""
    head = ["region", "threshold", "components left out below, mm³", "empty below in all, mm³"]
    others = (decided.get("smallest_mm3", {}), decided.get("empty_below_mm3", {}))
    rows = [
        [region, f"{threshold:.3f}", *(f"{part.get(region) or 0:g}" for part in others)]
        for region, threshold in decided["thresholds"].items()
    ]
    return table("What makes regions of the probabilities", head, rows)


def threshold_charts(curves: Mapping[str, Any], chosen: Mapping[str, float]) -> list[Html]:
    """Return a chart for each region: IoU and Dice over the threshold, with an upright line at the one `chosen`."""
    every = max(1, len(curves["thresholds"]) // 100)
    across, drawn = Axis(name="threshold", low=0.0, high=1.0), []
    for region in curves["iou"]:
        lines = [
            Curve(
                name=name,
                points=list(zip(curves["thresholds"], curves[kind][region], strict=True))[::every],
                style=at,
            )
            for at, (kind, name) in enumerate(SCORE_NAMES.items())
        ]
        at = f", {chosen[region]:.3f} chosen" if region in chosen else ""
        marks = {chosen[region]: 4} if region in chosen else {}
        drawn.append(chart(f"{region}{at}", lines, across, Axis(name="score", low=0.0, high=1.0), marks=marks))
    return drawn


def _time(run: RunRecord) -> list[str]:
    content: list[str] = []
    if run.summary is not None:
        seconds = run.summary["time"]["seconds"]
        total = sum(seconds.values()) or 1.0
        shares = {part: (f"{value:.1f}", value / total) for part, value in seconds.items()}
        content.append(bars("Where the time of the last start went", ["part", "seconds", "share"], shares))
    content.append(bullets(describe_costs(run.summary or {})))
    parts = [name for name in run.events.scalars if name.startswith(PER_STEP)]
    curves = [
        Curve(name=part.removeprefix(PER_STEP), points=run.series(part), style=at) for at, part in enumerate(parts)
    ]
    across, up = Axis(name=run.across, whole=True), Axis(name="seconds", low=0.0)
    content.append(charts([chart("Seconds a step", curves, across, up)]))
    cost = _cost(run)
    if run.summary is None and cost:
        spent = "" if cost.get("dollars") is None else f", ${cost['dollars']:.2f} by list prices"
        content.append(paragraph(f"So far {cost['seconds'] / 3600:.2f} hours of workers{spent}."))
    return content


def _mishaps(run: RunRecord) -> list[str]:
    restarts = ((run.summary or {}).get("restarts") or {}).get("each") or (run.spent or {}).get("restarts") or []
    if not restarts and not (bad := bad_cases(run)):
        known = (
            "and every case could be read" if run.summary is not None else "as far as it is; bad cases come at the end"
        )
        return [paragraph(f"No restarts, {known}.")]
    content: list[str] = []
    if restarts:
        rows = [
            [
                f"{number}, {'after a notice' if each['notice'] else 'without notice'}",
                *(f"{each['seconds'].get(part, 0):.0f}" for part in PARTS),
                f"{sum(each['seconds'].values()):.0f}",
                str(each["steps_again"]),
                "" if each.get("dollars") is None else f"{each['dollars']:.2f}",
            ]
            for number, each in enumerate(restarts, start=1)
        ]
        head = ["restart", *PARTS, "seconds lost", "steps done twice", "dollars lost"]
        content.append(table("Workers that were started again, seconds by part", head, rows))
    if bad := bad_cases(run):
        content.append(table("Cases that could not be read", ["case", "what came of it"], [*bad.items()], words=True))
    return content


def _origin(run: RunRecord) -> list[str]:
    said, speed = run.summary or {}, (run.summary or {}).get("throughput", {})
    facts = {
        "run folder": run.uri,
        "store": said.get("store"),
        "store's digest": run.config.get("store_digest"),
        "kept checkpoint": run.best and run.best.name,
        "commit": said.get("git_commit"),
        "device": speed and f"{speed['world_size']} x {speed['device']}, {speed.get('precision')}",
    }
    rows = [[name, str(value)] for name, value in facts.items() if value]
    return [table("Where it lies and what it was made with", ["what", "value"], rows, words=True)]
