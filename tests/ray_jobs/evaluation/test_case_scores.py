"""Records of cases, their means and their table."""

import csv
import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.evaluation.case_scores import (
    describe_case,
    dice_of,
    encode_csv,
    encode_statistics,
    mean_of_records,
    print_means,
    score_names,
    statistics_of,
    volumes_of,
)
from storage.labels.conventions import EDEMA, ENHANCING, NECROTIC_CORE
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS

REGIONS = GLI_2021_TASK.region_names
WHOLE, _, ENHANCING_TUMOUR = REGIONS


def scores(dice: float, hd95: float) -> dict[str, float]:
    return {
        "dice": dice,
        "predicted_mm3": 5.0,
        "true_mm3": 1500.0,
        "hd95": hd95,
        "lesion_hd95": math.inf,
        "lesions_found": 2.0,
    }


@pytest.fixture
def records() -> list[dict[str, Any]]:
    """Two scored cases, of which one has no number in one place, and one without a label."""
    one = dict.fromkeys(REGIONS, scores(0.25, 3.0))
    two = dict.fromkeys(REGIONS, scores(0.75, math.nan))
    volumes = volumes_of({EDEMA: 10, NECROTIC_CORE: 4, ENHANCING: 1}, GLIOMA_REGIONS, (3.0, 2.0, 1.0))
    return [
        describe_case("one", one, labelled=True, task=GLI_2021_TASK),
        describe_case("two", two, labelled=True, task=GLI_2021_TASK),
        describe_case("three", volumes, labelled=False, task=GLI_2021_TASK),
    ]


def test_volumes_are_those_of_the_regions_labels(records: list[dict[str, Any]]) -> None:
    assert [records[2]["regions"][region] for region in REGIONS] == [{"predicted_mm3": mm3} for mm3 in (90, 30, 6)]
    assert dice_of(records[2]) is None and dice_of(records[0]) == 0.25


def test_means_are_over_the_cases_that_have_a_number(records: list[dict[str, Any]]) -> None:
    means = mean_of_records(records)
    assert means[WHOLE]["dice"] == 0.5 and means[WHOLE]["hd95"] == 3.0
    assert means[WHOLE]["lesion_hd95"] == math.inf
    assert means[ENHANCING_TUMOUR]["predicted_mm3"] == pytest.approx((5 + 5 + 6) / 3)
    assert means["mean"] == {"dice": 0.5, "hd95": 3.0, "lesion_hd95": math.inf}  # volumes of regions overlap
    assert mean_of_records(records[2:])["mean"] == {}
    with_another = {**dict.fromkeys(REGIONS, scores(0.5, 1.0)), "RC": scores(1.0, 0.0)}  # which the rules score, too
    other = describe_case("other", with_another, labelled=True, task=GLI_2021_TASK)
    assert dice_of(other) == mean_of_records([other])["mean"]["dice"] == 0.5
    assert mean_of_records([other])["RC"]["dice"] == 1.0


def test_spreads_are_those_that_the_program_of_2026_adds_to_its_table(records: list[dict[str, Any]]) -> None:
    found = statistics_of(
        [*records, describe_case("four", {WHOLE: scores(0.5, 7.0)}, labelled=True, task=GLI_2021_TASK)]
    )
    assert found["std"][WHOLE]["dice"] == pytest.approx(0.25)  # over n - 1
    assert found["median"][WHOLE]["hd95"] == 5.0 and found["std"][WHOLE]["hd95"] == pytest.approx(8**0.5)
    assert "lesion_hd95" not in found["std"][WHOLE] and found["median"][WHOLE]["lesion_hd95"] == math.inf


def test_json_has_no_word_for_no_number(records: list[dict[str, Any]]) -> None:
    text = json.dumps([records, encode_statistics(records)], allow_nan=False)
    assert json.loads(text)[0][1]["regions"][WHOLE]["hd95"] is None
    assert json.loads(text)[1]["mean"][WHOLE]["lesion_hd95"] == "inf"


def test_the_csv_has_every_number_and_whose_rules_it_follows(records: list[dict[str, Any]]) -> None:
    rows = list(csv.DictReader(io.StringIO(encode_csv(records, "2026").decode())))
    assert list(rows[0]) == ["case_id", "region", "rules", *score_names(records)]
    assert score_names(records)[-2:] == ["predicted_mm3", "true_mm3"]
    assert [(row["case_id"], row["region"]) for row in rows[:4]] == [
        *(("one", region) for region in REGIONS),
        ("two", WHOLE),
    ]
    for row in rows[:9]:
        (record,) = [record for record in records if record["case_id"] == row["case_id"]]
        wanted = {name: value for name, value in record["regions"][row["region"]].items() if value is not None}
        assert {name: float(row[name]) for name in score_names(records) if row[name]} == pytest.approx(
            {name: float(value) for name, value in wanted.items()}, rel=0, abs=0
        )
        assert row["rules"] == ("2026" if record["labelled"] else "")
    assert [row["region"] for row in rows[9:13]] == [*REGIONS, "mean"] and {row["rules"] for row in rows[9:]} == {
        "2026"
    }
    assert [row["case_id"] for row in rows[9:]] == ["mean"] * 4 + ["std"] * 3 + ["median"] * 3
    assert float(rows[9]["dice"]) == 0.5 and rows[12]["predicted_mm3"] == ""


def test_the_table_says_what_its_means_are_of_and_by_whose_rules(records: list[dict[str, Any]]) -> None:
    console = Console(file=io.StringIO(), width=160)
    print_means(records, "2023", console, title="three")
    print_means(records[2:], "2023", console, title="volumes alone")
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    said = "scores by the rules of BraTS 2023, of the 2 with a label; predicted volumes of all 3"
    both, alone = printed.split("three")[1].split("volumes alone")
    assert said in both and "lesion-wise HD95, mm" in both and "0.500" in both
    assert "Dice" not in alone and "BraTS" not in alone and "volume, ml" in alone
