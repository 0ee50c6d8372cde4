"""Scores and volumes of cases, their means and their table."""

import csv
import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from models.distances import WORST_DISTANCE_MM, hausdorff95
from ray_jobs.evaluation.case_scores import COLUMNS, describe_case, dice_of, encode_csv, mean_of_records, print_means
from storage import CaseInfo, CohortStore
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS

REGIONS = GLI_2021_TASK.region_names

SHAPE = (10, 12, 14)


def box(side: int) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[1 : 1 + side, 1 : 1 + side, 1 : 1 + side] = True
    return mask


LABEL = np.stack([box(8), box(6), box(4)])
PREDICTED = np.stack([box(8), box(4), np.zeros(SHAPE, bool)])


@pytest.fixture
def case(phantom_store: CohortStore) -> CaseInfo:
    """A case with voxels of 3 x 2 x 1 mm."""
    return dataclasses.replace(phantom_store.infos()[0], case_id="one", spacing=(3.0, 2.0, 1.0))


def test_a_case_is_scored_by_hand(case: CaseInfo) -> None:
    record = describe_case(case, GLIOMA_REGIONS, PREDICTED, LABEL)
    whole, core, enhancing = (record["regions"][region] for region in REGIONS)
    assert whole["iou"] == whole["dice"] == whole["lesion_dice"] == 1 and whole["hd95_mm"] == 0
    assert core["iou"] == pytest.approx(4**3 / 6**3, abs=1e-6)
    assert core["dice"] == core["lesion_dice"] == pytest.approx(2 * 4**3 / (4**3 + 6**3), abs=1e-6)
    assert core["hd95_mm"] == pytest.approx(hausdorff95(box(4), box(6), spacing_mm=(3, 2, 1)), abs=1e-6)
    assert core["hd95_mm"] > 6  # two voxels along z
    assert (enhancing["dice"], enhancing["hd95_mm"], enhancing["lesion_hd95_mm"]) == (0, WORST_DISTANCE_MM, 374)
    assert [part["volume_ml"] for part in (whole, core, enhancing)] == [8**3 * 0.006, 4**3 * 0.006, 0]
    assert [part["label_volume_ml"] for part in (whole, core, enhancing)] == [3.072, 1.296, 0.384]
    assert dice_of(record) == pytest.approx((1 + core["dice"]) / 3)


def test_a_case_without_a_label_has_volumes_alone(case: CaseInfo) -> None:
    record = describe_case(case, GLIOMA_REGIONS, PREDICTED, None)
    assert not record["labelled"] and dice_of(record) is None
    assert all(set(record["regions"][region]) == {"volume_ml"} for region in REGIONS)


@pytest.fixture
def records(case: CaseInfo) -> list[dict[str, Any]]:
    """One case scored as above, one perfect, one without a label."""
    cases = [dataclasses.replace(case, case_id=name) for name in ("one", "two", "three")]
    given = [(PREDICTED, LABEL), (LABEL, LABEL), (PREDICTED, None)]
    return [describe_case(info, GLIOMA_REGIONS, *masks) for info, masks in zip(cases, given, strict=True)]


def test_means_are_over_the_cases_that_have_a_score(records: list[dict[str, Any]]) -> None:
    means = mean_of_records(records)
    assert means["ET"]["dice"] == 0.5 and means["WT"]["iou"] == 1
    assert means["ET"]["volume_ml"] == pytest.approx((0 + 0.384 + 0) / 3)
    assert means["ET"]["label_volume_ml"] == pytest.approx(0.384)
    assert means["mean"]["dice"] == pytest.approx(sum(means[region]["dice"] for region in REGIONS) / 3)
    assert "volume_ml" not in means["mean"]  # the regions overlap: their volumes have no mean that means anything
    assert mean_of_records(records[2:])["mean"] == {}


def test_the_csv_has_every_number(records: list[dict[str, Any]]) -> None:
    rows = list(csv.DictReader(io.StringIO(encode_csv(records).decode())))
    assert list(rows[0]) == ["case_id", "region", *COLUMNS]
    assert [(row["case_id"], row["region"]) for row in rows[:4]] == [
        *(("one", region) for region in REGIONS),
        ("two", "WT"),
    ]
    for row in rows[:9]:
        (record,) = [record for record in records if record["case_id"] == row["case_id"]]
        values = record["regions"][row["region"]]
        assert {name: float(row[name]) for name in COLUMNS if row[name]} == values
    assert [row["region"] for row in rows[9:]] == [*REGIONS, "mean"]
    assert float(rows[11]["dice"]) == 0.5 and rows[12]["volume_ml"] == ""


def test_the_table_says_what_its_means_are_of(records: list[dict[str, Any]]) -> None:
    console = Console(file=io.StringIO(), width=160)
    print_means(records, console, title="three")
    print_means(records[2:], console, title="one")
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "scores of the 2 with a label, predicted volumes of all 3" in printed
    both, alone = printed.split("three")[1].split("one")
    assert "lesion dice" in both and "0.500" in both
    assert "dice" not in alone and "volume ml" in alone
