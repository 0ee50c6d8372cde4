"""A cross-validation's page, report.html in the folder of the whole: all cases out of fold, and each fold's run."""

from collections.abc import Mapping
from typing import Any

from ray_jobs.checkpoints.folds import fold_folder, fold_name, folds_of
from ray_jobs.checkpoints.run_folder import CONFIG, SUMMARY, RunFolder
from ray_jobs.pages.charts import Axis, Curve, chart, charts
from ray_jobs.pages.page import Html, Section, build_page, bullets, key_figures, link, paragraph, table, with_code
from ray_jobs.reporting.case_tables import table_of_cases
from ray_jobs.reporting.next_steps import steps_after_folds
from ray_jobs.reporting.preset_table import against_preset
from ray_jobs.reporting.run_page import REPORT, decision_table
from ray_jobs.reporting.run_record import RunRecord, read_run
from ray_jobs.settings.objective import SCORE_NAMES, SCORES_ARE
from ray_jobs.watching.fold_tables import INTERVAL, format_interval
from ray_jobs.watching.summary import describe_costs
from storage.store.objects import Objects


def write_folds_page(folder: RunFolder) -> None:
    """Write the page of the cross-validation into its folder. Raises InputError."""
    folder.put(REPORT, build_folds_page(folder))


def build_folds_page(folder: RunFolder) -> bytes:
    """Return the page; while folds are missing it has those that there are."""
    identity, summary = folder.read(CONFIG) or {}, folder.read(SUMMARY)
    folds = {fold: fold_folder(folder, fold) for fold in range(folds_of(identity) or 0)}
    runs = {fold: read_run(own.uri, own.name) for fold, own in folds.items() if own.read(CONFIG) is not None}
    first = next(iter(runs.values()), None)
    config = {} if first is None else _of_the_whole(first.config)
    whole = summary or {}
    sections = (
        Section(
            "next",
            "What to do next",
            [bullets(map(with_code, steps_after_folds(whole, folder.uri)))],
        ),
        Section("scores", "Scores out of fold", _scores(whole)),
        Section("folds", "Folds", _folds(len(folds), runs)),
        Section("cases", "Cases", _cases(whole, runs)),
        Section("thresholds", "Thresholds", _thresholds(whole)),
        Section("time", "Time and money", [bullets(describe_costs(whole))]),
        Section("mishaps", "Bad cases", _bad_cases(whole)),
        Section("configuration", "Configuration", against_preset(config or identity)),
    )
    finished = sum(run.summary is not None for run in runs.values())
    said = (
        f"Finished at {whole['finished']}."
        if "finished" in whole
        else f"{finished} of {len(folds)} folds are finished."
    )
    return build_page(
        f"Cross-validation {folder.name}", sections, lead=Html(f"{paragraph(said)}{key_figures(_key_figures(whole))}")
    )


def _of_the_whole(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a fold says, but for which one it is."""
    return {**config, "splits": {**config["splits"], "fold": None}} if "splits" in config else dict(config)


def _key_figures(whole: Mapping[str, Any]) -> dict[str, str]:
    if "out_of_fold" not in whole:
        return {}
    every, figures = whole["out_of_fold"], {}
    for kind, name in SCORE_NAMES.items():
        mean = every[kind]["mean"]
        figures[f"mean {name}, {INTERVAL} {format_interval(mean)}"] = f"{mean['mean']:.3f}"
    figures |= {"cases": str(every["cases"]), "subjects": str(every["subjects"])}
    if (cost := whole.get("cost") or {}).get("dollars"):
        figures["cost"] = f"${cost['dollars']:.2f}"
    return figures


def _scores(whole: Mapping[str, Any]) -> list[str]:
    if "out_of_fold" not in whole:
        return []
    content: list[str] = []
    for title, ending in (("as decided", ""), ("all thresholds 0.5, all is kept", "_at_half")):
        kinds = {
            f"{kind}{ending}": name for kind, name in SCORE_NAMES.items() if f"{kind}{ending}" in whole["out_of_fold"]
        }
        if kinds:
            content.append(
                _intervals(f"All cases, {title}", {name: whole["out_of_fold"][kind] for kind, name in kinds.items()})
            )
    objective = whole["objective"]
    if whole["by_grade"]:
        parts = {f"{grade} ({part['cases']})": part[objective] for grade, part in whole["by_grade"].items()}
        content.append(_intervals(f"{SCORE_NAMES[objective]} by grade (cases)", parts))
    chosen = " and ".join(whole["chosen_on_own_cases"])
    said = (
        f"Each case is scored once, by the fold that did not train on it. Every fold chose its {chosen} on its own "
        f"cases, so that all is a little too good. {INTERVAL}: bootstrap over subjects. {SCORES_ARE}."
    )
    content.append(paragraph(said))
    return content


def _intervals(caption: str, scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Html:
    regions = next(iter(scores.values()))
    rows = [
        [
            region,
            *(text for own in scores.values() for text in (f"{own[region]['mean']:.3f}", format_interval(own[region]))),
        ]
        for region in regions
    ]
    return table(caption, ["region", *(column for name in scores for column in (name, INTERVAL))], rows)


def _folds(count: int, runs: Mapping[int, RunRecord]) -> list[str]:
    rows = []
    for fold in range(count):
        run = runs.get(fold)
        if run is None:
            rows.append([f"fold {fold}", "not begun", "", "", ""])
            continue
        scored = run.part("validation")
        score = "" if scored is None else f"{scored[run.objective]['mean']:.3f}"
        epoch = "" if run.best is None else str(run.best.epoch)
        state = "finished" if run.summary is not None else "not finished"
        cases = "" if scored is None else str(scored["cases"])
        has_page = Objects(run.uri).size(REPORT) is not None
        name = link(f"{fold_name(fold)}/{REPORT}", f"fold {fold}") if has_page else f"fold {fold}"
        rows.append([name, state, cases, score, epoch])
    shown = SCORE_NAMES[next((run.objective for run in runs.values()), "iou")]
    curves = [
        Curve(name=f"fold {fold}", points=run.series(f"validation/{run.objective}_mean"), style=fold)
        for fold, run in runs.items()
    ]
    losses = [Curve(name=f"fold {fold}", points=run.series("epoch/loss"), style=fold) for fold, run in runs.items()]
    across, up = Axis(name="epoch", whole=True), Axis(name=shown, low=0.0, high=1.0)
    drawn = [
        chart(f"Mean {shown} of each fold", curves, across, up),
        chart("Loss of each fold", losses, across, Axis(name="loss")),
    ]
    return [
        table(
            "Each fold is a run with a page of its own", ["fold", "state", "cases", f"mean {shown}", "epoch kept"], rows
        ),
        charts(drawn),
    ]


def _cases(whole: Mapping[str, Any], runs: Mapping[int, RunRecord]) -> list[str]:
    if not whole.get("by_case"):
        return []
    pictures = {case_id: picture for run in runs.values() for case_id, picture in run.sections.items()}
    cases = {case_id: {**own, "fold": str(own["fold"])} for case_id, own in whole["by_case"].items()}
    also = ["fold", *(["grade"] if whole["by_grade"] else [])]
    return [table_of_cases("Each case, the worst first", cases, whole["objective"], pictures, also=also)]


def _thresholds(whole: Mapping[str, Any]) -> list[str]:
    content: list[str] = []
    if decision := whole.get("decision"):
        content += [bullets(decision["said"]), decision_table(decision)]
    if folds := whole.get("folds"):
        regions = list(folds[0]["threshold"])
        rows = [[f"fold {own['fold']}", *(f"{own['threshold'][region]:.3f}" for region in regions)] for own in folds]
        content.append(table("What each fold chose by itself", ["fold", *regions], rows))
    return content


def _bad_cases(whole: Mapping[str, Any]) -> list[str]:
    bad = whole.get("bad_cases") or {}
    return [table("Cases that could not be read", ["case", "why"], [*bad.items()], words=True)] if bad else []
