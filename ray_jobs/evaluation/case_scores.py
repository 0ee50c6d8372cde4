"""Scores and volumes of cases: one record each, their means, a CSV, and the table on the console.

A record is a case's part of metrics.json: for each region the scores of `scoring`, by their names (docs/scores.md).
JSON has no word for what is no number (null here) or infinite ("inf").
"""

import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from ray_jobs.settings.console import figures_table
from scoring import RulesName, Scores, title_of
from storage import Region, Task

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


def describe_case(case_id: str, scores: Mapping[str, Scores], *, labelled: bool, task: Task) -> dict[str, Any]:
    """Return the record; without a label the scores are volumes alone.

    Rules may score regions that the task has not: means over regions leave those out.
    """
    regions = {region: {name: _to_json(value) for name, value in own.items()} for region, own in scores.items()}
    own_regions = [region for region in task.region_names if region in regions]
    return {"case_id": case_id, "labelled": labelled, "regions": regions, "mean_of": own_regions}


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
    means = over_cases(records, mean_of_numbers)
    # Regions overlap: the sum of their volumes or lesions is nothing.
    scores = [name for name in score_names(records) if name not in VOLUMES and not name.endswith(_COUNTS)]
    own = dict.fromkeys(region for record in records for region in record["mean_of"])
    over = {name: mean_of_numbers([means[region].get(name, math.nan) for region in own]) for name in scores}
    return {**means, MEAN: {name: mean for name, mean in over.items() if not math.isnan(mean)}}


def over_cases(
    records: Sequence[Mapping[str, Any]], statistic: Callable[[Sequence[float]], float]
) -> dict[str, dict[str, float]]:
    """Return a statistic of every score over the cases, per region, where it is a number."""
    of_region, names = {}, score_names(records)
    for region in region_names(records):
        found = {name: statistic([score_of(record, region, name) for record in records]) for name in names}
        of_region[region] = {name: value for name, value in found.items() if not math.isnan(value)}
    return of_region


def mean_of_numbers(values: Sequence[float]) -> float:
    """Return the mean of those that are numbers, NaN of none: as the program of 2026 takes it over cases."""
    numbers = _numbers(values)
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def std_of_numbers(values: Sequence[float]) -> float:
    """Return the standard deviation of those that are numbers, over n - 1, NaN of fewer than two, as that program."""
    numbers = _numbers(values)
    mean = mean_of_numbers(numbers)
    if len(numbers) < 2 or math.isinf(mean):
        return math.nan
    return math.sqrt(math.fsum((value - mean) ** 2 for value in numbers) / (len(numbers) - 1))


def median_of_numbers(values: Sequence[float]) -> float:
    """Return the median of those that are numbers, NaN of none."""
    numbers = _numbers(values)
    return statistics.median(numbers) if numbers else math.nan


def _numbers(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def dice_of(record: Mapping[str, Any]) -> float | None:
    """Return the mean Dice of a record's regions, by which cases are called good or bad; None without one."""
    mean = mean_of_numbers([score_of(record, region, "dice") for region in record["mean_of"]])
    return None if math.isnan(mean) else mean


def encode_csv(records: Sequence[Mapping[str, Any]], rules: RulesName) -> bytes:
    """Return metrics.csv: a row for each case and region with the rules they were scored by, then over cases."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["case_id", "region", "rules", *score_names(records)], lineterminator="\n")
    writer.writeheader()
    for record in records:
        by = {"rules": rules} if record["labelled"] else {}
        for region, scores in record["regions"].items():
            writer.writerow({"case_id": record["case_id"], "region": region, **by, **scores})
    for name, of_region in statistics_of(records).items():
        for region, values in of_region.items():
            writer.writerow({"case_id": name, "region": region, "rules": rules, **values})
    return text.getvalue().encode()


def statistics_of(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean, standard deviation and median over cases, each by region, the mean also over regions."""
    return {
        MEAN: mean_of_records(records),
        "std": over_cases(records, std_of_numbers),
        "median": over_cases(records, median_of_numbers),
    }


def encode_statistics(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the statistics as JSON has them."""
    return {
        name: {region: {score: _to_json(value) for score, value in values.items()} for region, values in found.items()}
        for name, found in statistics_of(records).items()
    }


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
        return f"{value / _MM3_PER_ML:.{1 if value >= _MM3_PER_ML else 3}f}"
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
