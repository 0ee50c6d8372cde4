"""Scores and volumes of predicted cases: one record each, their means, a CSV, and the table on the console.

A record is a case's part of metrics.json. Shapes: R region, D H W voxels z y x of the whole scan.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from models import score_case
from ray_jobs.settings.console import figures_table
from storage import CaseInfo, Region

# Names in files, and the fields of models.CaseScores. Distances in mm, volumes in ml.
SCORES = {
    "iou": "iou",
    "dice": "dice",
    "hd95_mm": "hd95",
    "lesion_dice": "lesion_dice",
    "lesion_hd95_mm": "lesion_hd95",
}
VOLUMES = ("volume_ml", "label_volume_ml")
COLUMNS = (*SCORES, *VOLUMES)
MEAN = "mean"
_MM3_PER_ML = 1000.0


def describe_case(
    case: CaseInfo, regions: Sequence[Region], predicted_RDHW: NDArray[np.bool_], label_RDHW: NDArray[np.bool_] | None
) -> dict[str, Any]:
    """Return the record: for each region its predicted volume, and with a label its volume and all scores."""
    columns: dict[str, Sequence[float]] = {"volume_ml": _volumes_ml(predicted_RDHW, case)}
    if label_RDHW is not None:
        scores = score_case(torch.from_numpy(predicted_RDHW), torch.from_numpy(label_RDHW), spacing_mm=case.spacing)
        columns |= {name: getattr(scores, field) for name, field in SCORES.items()}
        columns["label_volume_ml"] = _volumes_ml(label_RDHW, case)
    by_region = {
        region.name: {name: round(float(columns[name][index]), 6) for name in COLUMNS if name in columns}
        for index, region in enumerate(regions)
    }
    return {"case_id": case.case_id, "labelled": label_RDHW is not None, "regions": by_region}


def region_names(records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the regions of the records, which are of one task, in its order; none of no record."""
    return tuple(records[0]["regions"]) if records else ()


def columns_of(means: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the columns that the regions' means have."""
    return [name for name in COLUMNS if any(name in values for region, values in means.items() if region != MEAN)]


def mean_of_records(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean of every column over the cases that have it, per region and over the regions."""
    means: dict[str, dict[str, float]] = {}
    names = region_names(records)
    for region in names:
        rows = [record["regions"][region] for record in records]
        found = {name: [row[name] for row in rows if name in row] for name in COLUMNS}
        means[region] = {name: math.fsum(values) / len(values) for name, values in found.items() if values}
    scores = [name for name in SCORES if names and all(name in means[region] for region in names)]
    over_regions = {name: math.fsum(means[region][name] for region in names) / len(names) for name in scores}
    return {**means, MEAN: over_regions}


def dice_of(record: Mapping[str, Any]) -> float | None:
    """Return the mean Dice of a record's regions, by which cases are called good or bad; None without a label."""
    if not record["labelled"]:
        return None
    regions = record["regions"].values()
    return math.fsum(scores["dice"] for scores in regions) / len(regions)


def encode_csv(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Return metrics.csv: a row for each case and region, then the means."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["case_id", "region", *COLUMNS], lineterminator="\n")
    writer.writeheader()
    for record in records:
        for region in record["regions"]:
            writer.writerow({"case_id": record["case_id"], "region": region, **record["regions"][region]})
    for region, values in mean_of_records(records).items():
        rounded = {name: round(value, 6) for name, value in values.items()}
        writer.writerow({"case_id": MEAN, "region": region, **rounded})
    return text.getvalue().encode()


def print_means(records: Sequence[Mapping[str, Any]], console: Console, *, title: str) -> None:
    """Print the means over cases as a table: scores of those with a label, volumes of all."""
    labelled = sum(record["labelled"] for record in records)
    means = mean_of_records(records)
    shown = columns_of(means)
    table = figures_table(title, "region", *(name.replace("_", " ") for name in shown))
    for region, values in means.items():
        table.add_row(region, *(_format(name, values.get(name)) for name in shown))
    console.print(table)
    console.print(f"means over cases: scores of the {labelled} with a label, predicted volumes of all {len(records)}")


def _format(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if name.endswith(("_mm", "_ml")) else f"{value:.3f}"


def _volumes_ml(masks_RDHW: NDArray[np.bool_], case: CaseInfo) -> list[float]:
    voxel_ml = float(np.prod(case.spacing)) / _MM3_PER_ML
    return [float(np.count_nonzero(mask_DHW)) * voxel_ml for mask_DHW in masks_RDHW]
