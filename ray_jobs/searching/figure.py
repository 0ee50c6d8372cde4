"""The picture of a search: what it maximises over learning rate, and the threshold curves of the best trials."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from models import Objective
from ray_jobs.checkpoints.checkpoint import CURVES
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.evaluation.validation import ThresholdCurves
from ray_jobs.pictures.figures import on_white, rows_and_columns
from ray_jobs.pictures.sections import as_png
from ray_jobs.searching.results import learning_rate_of
from ray_jobs.settings.objective import RULES, SCORE_NAMES
from storage import Region

TRIALS_SHOWN = 3
LINES = ("-", "--", ":")  # of the best trial, the second and the third
HEADROOM = 1.3  # above the highest value, for the legend
MARKERS = {"finished": "o", "stopped": "v", "failed": "x"}


def save_search_figure(
    rows: Sequence[Mapping[str, Any]], regions: Sequence[Region], folder: RunFolder, objective: Objective
) -> None:
    """Write search.png to the search's folder; `rows` are best first. A trial without a checkpoint has no curves."""
    shown = [row for row in rows if "iou" in row]
    figure = draw_search(shown, regions, [read_curves(row["run"]) for row in shown[:TRIALS_SHOWN]], objective)
    folder.put("search.png", as_png(figure, dpi=120))


def read_curves(run: str) -> ThresholdCurves | None:
    """Return the threshold curves that the best checkpoint of a run holds, None where it has none."""
    store = CheckpointStore(run)
    best = store.best()
    if best is None:
        return None
    return ThresholdCurves.from_json(json.loads(store.open(best).read(CURVES)))


def draw_search(
    rows: Sequence[Mapping[str, Any]],
    regions: Sequence[Region],
    curves: Sequence[ThresholdCurves | None],
    objective: Objective,
) -> Figure:
    """Return a figure: best score of each trial over its learning rate; that over the threshold of the first trials."""
    name = SCORE_NAMES[objective]
    rows_of_panels, columns = rows_and_columns(len(regions))
    figure = Figure(figsize=(4.4 * (1 + columns), 3.8 * rows_of_panels), layout="constrained")
    grid = figure.add_gridspec(rows_of_panels, 1 + columns)
    _draw_rates(figure.add_subplot(grid[:, 0]), rows, regions, objective)
    others = [figure.add_subplot(grid[at // columns, 1 + at % columns]) for at in range(len(regions))]
    for index, (axis, region) in enumerate(zip(others, regions, strict=True)):
        for line, row, curve in zip(LINES, rows, curves, strict=False):
            if curve is None:
                continue
            threshold, score = row["threshold"][region.name], row[objective][region.name]
            label = f"rate {learning_rate_of(row):.2g}: {score:.3f} at {threshold:.3f}"
            axis.plot(
                curve.thresholds_T, curve.of(objective)[:, index], line, color=on_white(region.colour), label=label
            )
            axis.plot([threshold], [score], "o", color=on_white(region.colour), markersize=4)
        axis.set(title=f"{region.name}: {name} over the threshold", xlabel="threshold", xlim=(0, 1))
        if axis.has_data():
            axis.set_ylim(0, HEADROOM * axis.dataLim.ymax)
            axis.legend(fontsize=8, loc="upper left")
    return figure


def _draw_rates(axis: Axes, rows: Sequence[Mapping[str, Any]], regions: Sequence[Region], objective: Objective) -> None:
    for status, marker in MARKERS.items():
        own = [row for row in rows if row["status"] == status]
        if not own:
            continue
        rates = [learning_rate_of(row) for row in own]
        axis.plot(rates, [row[objective]["mean"] for row in own], marker, color="black", label=f"mean, {status}")
        for region in regions:
            values = [row[objective][region.name] for row in own]
            axis.plot(rates, values, marker, color=on_white(region.colour), alpha=0.6, markersize=4)
    for region in regions:
        axis.plot([], [], "s", color=on_white(region.colour), label=region.name)
    name = SCORE_NAMES[objective]
    axis.set(title=f"{name} at 0.5, or as given", xlabel="learning rate", ylabel=f"{name} ({RULES})", xscale="log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(0, HEADROOM * axis.dataLim.ymax)
    axis.legend(fontsize=8, loc="upper left", ncols=2)
