"""Scores and volumes of cases: one record each, their means, a CSV, and the table on the console.

A record is a case's part of metrics.json: for each region the scores of `scoring`, by their names (docs/scores.md).
JSON has no word for what is no number (null here) or infinite ("inf").
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from ray_jobs.settings.console import figures_table
from scoring import RulesName, Scores, title_of
from storage import Region

VOLUMES = ("predicted_mm3", "true_mm3")
# What tables and pages show, as they call it; metrics.csv and metrics.json have every score.
SHOWN = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95, mm",
    "hd95_voxels": "HD95, voxels",
    "lesion_dice": "lesion-wise Dice",
    "lesion_hd95": "lesion-wise HD95, mm",
    "lesions_found": "lesions found",
    "lesions_missed": "missed",
    "lesions_false": "false",
    "predicted_mm3": "volume, ml",
    "true_mm3": "label's volume, ml",
}
MEAN = "mean"
_COUNTS = ("_found", "_missed", "_false")
_MM3_PER_ML = 1000.0


def describe_case(case_id: str, scores: Mapping[str, Scores], *, labelled: bool) -> dict[str, Any]:
    """Return the record; without a label the scores are volumes alone."""
    regions = {region: {name: _to_json(value) for name, value in own.items()} for region, own in scores.items()}
    return {"case_id": case_id, "labelled": labelled, "regions": regions}


def region_names(records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the regions of the records: those of the task, then what else the rules score."""
    return tuple(dict.fromkeys(region for record in records for region in record["regions"]))


def score_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of all scores that some record has, volumes last."""
    every = dict.fromkeys(
        name for record in records for scores in record["regions"].values() for name in scores if name not in VOLUMES
    )
    has = [name for name in VOLUMES if any(name in own for record in records for own in record["regions"].values())]
    return [*every, *has]


def score_of(record: Mapping[str, Any], region: str, name: str) -> float:
    """Return a record's score, no number (NaN) where it has none."""
    value = record["regions"].get(region, {}).get(name)
    return math.nan if value is None else float(value)


def mean_of_records(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean of every score over the cases that have it, per region, and over the regions."""
    means: dict[str, dict[str, float]] = {}
    regions, names = region_names(records), score_names(records)
    for region in regions:
        found = {name: mean_of_numbers([score_of(record, region, name) for record in records]) for name in names}
        means[region] = {name: mean for name, mean in found.items() if not math.isnan(mean)}
    # Regions overlap: the sum of their volumes or lesions is nothing.
    scores = [name for name in names if name not in VOLUMES and not name.endswith(_COUNTS)]
    over = {name: mean_of_numbers([own[name] for own in means.values() if name in own]) for name in scores}
    return {**means, MEAN: {name: mean for name, mean in over.items() if not math.isnan(mean)}}


def mean_of_numbers(values: Sequence[float]) -> float:
    """Return the mean of those that are numbers, NaN of none: as the tables of every year's programs take it."""
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def dice_of(record: Mapping[str, Any]) -> float | None:
    """Return the mean Dice of a record's regions, by which cases are called good or bad; None without one."""
    mean = mean_of_numbers([score_of(record, region, "dice") for region in record["regions"]])
    return None if math.isnan(mean) else mean


def encode_csv(records: Sequence[Mapping[str, Any]], rules: RulesName) -> bytes:
    """Return metrics.csv: a row for each case and region with the rules they were scored by, then the means."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["case_id", "region", "rules", *score_names(records)], lineterminator="\n")
    writer.writeheader()
    for record in records:
        by = {"rules": rules} if record["labelled"] else {}
        for region, scores in record["regions"].items():
            writer.writerow({"case_id": record["case_id"], "region": region, **by, **scores})
    for region, means in mean_of_records(records).items():
        writer.writerow({"case_id": MEAN, "region": region, "rules": rules, **means})
    return text.getvalue().encode()


def encode_means(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the means as JSON has them."""
    means = mean_of_records(records)
    return {region: {name: _to_json(value) for name, value in scores.items()} for region, scores in means.items()}


def print_means(records: Sequence[Mapping[str, Any]], rules: RulesName, console: Console, *, title: str) -> None:
    """Print the means over cases as a table: scores of those with a label, volumes of all."""
    labelled = sum(record["labelled"] for record in records)
    means = mean_of_records(records)
    shown = shown_of(means)
    table = figures_table(title, "region", *(SHOWN[name] for name in shown))
    for region, values in means.items():
        table.add_row(region, *(format_score(name, values.get(name)) for name in shown))
    console.print(table)
    by = f"scores by {title_of(rules)}, of the {labelled} with a label; " if labelled else ""
    console.print(f"means over cases: {by}predicted volumes of all {len(records)}")


def shown_of(means: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the scores that tables show, of those that the regions' means have."""
    return [name for name in SHOWN if any(name in values for values in means.values())]


def format_score(name: str, value: float | None) -> str:
    """Return a score as tables and pages print it, volumes in ml; nothing for what is no number."""
    if value is None or math.isnan(value):
        return ""
    if name in VOLUMES:
        return f"{value / _MM3_PER_ML:.1f}"
    return f"{value:.1f}" if "hd95" in name or name.endswith(_COUNTS) else f"{value:.3f}"


def volumes_of(
    labels_of_voxels: Mapping[int, int], regions: Sequence[Region], spacing_mm: Sequence[float]
) -> dict[str, Scores]:
    """Return the predicted volume of each region, from how many voxels have each stored label."""
    return {
        region.name: {
            "predicted_mm3": math.prod(spacing_mm) * sum(labels_of_voxels.get(label, 0) for label in region.labels)
        }
        for region in regions
    }


def _to_json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return str(value) if math.isinf(value) else value
