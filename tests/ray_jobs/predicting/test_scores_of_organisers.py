"""Every number that the organisers' programs printed for the pairs of ../shared/data/scores, which holds no scans.

Ours are those that score.py writes of the same files.

Left out is what those programs compute on numbers of components where masks are meant (README there): sensitivity,
specificity and whole-case HD95 of 2024 and 2025, but for MEN and `MET:legacy`, which take masks.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peer_brats_evaluate import OUR_NAMES
from ray_jobs.predicting.pair_scores import MakeScorer
from ray_jobs.predicting.pairs import Pairs
from scoring.case import masks_of
from scoring.matched_case import score_matched
from scoring.rules import MatchedRules, RulesName
from storage import InputError
from storage.cases.segmentation_pair import pair_up, read_file
from storage.labels.tasks import TASKS

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "scores"

# Their names of a year and of a challenge; our rules and task.
PROGRAMS: dict[tuple[str, str], tuple[RulesName, str]] = {
    ("2023", "BraTS-GLI"): ("2023", "gli-2024"),
    ("2023", "BraTS-MEN"): ("2023", "men"),
    ("2023", "BraTS-MET"): ("2023", "met-2024"),
    ("2023", "BraTS-PED"): ("2023", "ped-2023"),
    ("2023", "BraTS-SSA"): ("2023", "ssa"),
    **{
        (year, f"BraTS-{challenge}"): (ours, task)
        for year, ours in (("2024-07", "2024"), ("2024", "2025"))
        for challenge, task in (
            *(("GLI", "gli-2024"), ("MET", "met-2024"), ("MET:legacy", "met-2024"), ("PED", "ped-2024")),
            *(("SSA", "ssa"), ("MEN-RT", "men-rt"), ("MEN", "men")),
        )
    },
    ("2026", "gli"): ("2026", "gli-2024"),
    ("2026", "ped"): ("2026", "ped-2024"),
    ("2026", "GoAT"): ("2026", "goat"),
    ("2026", "MenRT"): ("2026", "men-rt"),
    ("2026", "mets"): ("2026", "met-2024"),
    ("2026", "mets:seg"): ("2026", "met-2024"),
    ("2026", "mets:vol_threshold=27"): ("2026", "met-2024"),
}

# Their names of scores and ours. "{}" is `kept_` where the program drops small predictions before it counts.
UP_TO_2025 = {
    "Num_TP": "lesions_found",
    "Num_FP": "lesions_false",
    "Num_FN": "lesions_missed",
    "GT_Complete_Volume": "true_mm3",
    "LesionWise_Score_Dice": "lesion_dice",
    "LesionWise_Score_HD95": "lesion_hd95",
    "LesionWise_Score_NSD @ 0.5": "lesion_surface_dice_0.5",
    "LesionWise_Score_NSD @ 1.0": "lesion_surface_dice_1.0",
    "Legacy_Dice": "{}dice",
    "Legacy NSD @ 0.5": "{}surface_dice_0.5",
    "Legacy NSD @ 1.0": "{}surface_dice_1.0",
}
ON_MASKS = {"Legacy_HD95": "hd95", "Sensitivity": "sensitivity", "Specificity": "specificity"}


@cache
def expected() -> Any:
    return json.loads((FOLDER / "expected.json").read_text())


def _cases() -> list[Any]:
    if not FOLDER.is_dir():
        return [pytest.param("", "", "", marks=pytest.mark.skip(reason=f"no {FOLDER}"))]
    return [
        pytest.param(year, challenge, pair, id=f"{year}-{challenge}-{pair}")
        for year, challenge in PROGRAMS
        for pair in expected()[year].get(challenge, {})
    ]


def _name_ours(theirs: str, year: str, challenge: str) -> str | None:
    if year == "2026":
        return OUR_NAMES[theirs].format("matched_" if challenge == "mets:seg" else "")
    masks = year == "2023" or challenge in ("BraTS-MEN", "BraTS-MET:legacy")
    if theirs in ON_MASKS:
        return ON_MASKS[theirs] if masks else None
    return UP_TO_2025[theirs].format("" if masks else "kept_")


@cache
def _score(pair: str, rules: RulesName, task: str) -> Any:
    """Each region's scores as score.py writes them."""
    prediction, label = (FOLDER / "pairs" / f"{pair}_{which}.nii.gz" for which in ("pred", "truth"))
    pairs = Pairs(
        task=TASKS[task],
        convention=TASKS[task].convention,
        predictions={pair: prediction},
        inexact={},
        labels={pair: label},
        store=None,
        sources={},
        refused=(),
    )
    result = MakeScorer(pairs=pairs, rules=rules, trust_grid=False)()(pair)
    return json.loads(json.dumps(result.record, allow_nan=False))["regions"]


def _score_with(large_mm3: float, pair: str, task: str) -> Mapping[str, Mapping[str, float]]:
    """Metastases' with another limit between small and large lesions."""
    (predicted, _), (true, _) = (
        read_file(FOLDER / "pairs" / f"{pair}_{which}.nii.gz", which) for which in ("pred", "truth")
    )
    both = pair_up(predicted, true, trust_grid=False)
    values = [TASKS[task].convention.to_stored(each) for each in (both.predicted_DHW, both.true_DHW)]
    return {
        region: score_matched(
            *masks_of(region, values[0], values[1], TASKS[task]),
            MatchedRules(large_mm3=large_mm3),
            spacing_mm=both.predicted_spacing_mm,
            grid=both.true_DHW.shape,
        )
        for region in ("WT", "TC", "ET", "RC")
    }


@pytest.mark.parametrize(("year", "challenge", "pair"), _cases())
def test_scores_are_those_of_the_years_program(year: str, challenge: str, pair: str) -> None:
    wanted = expected()[year][challenge][pair]
    rules, task = PROGRAMS[year, challenge]
    if "crash" in wanted:
        with pytest.raises(InputError, match=f"{pair}_pred.nii.gz"):
            _score(pair, rules, task)
        return
    scores = _score_with(27, pair, task) if "vol_threshold=27" in challenge else _score(pair, rules, task)
    compared = 0
    for region, values in wanted.items():
        ours_of_region = {"NETC": "NET"} if PROGRAMS[year, challenge][1] == "ped-2024" else {}
        got = scores[ours_of_region.get(region.upper(), region.upper())]
        for theirs, value in values.items():
            ours = _name_ours(theirs, year, challenge)
            if ours is None:
                continue
            tolerance = 1e-6 if "hd95" in ours else 1e-7 if "surface" in ours else 1e-12
            number = math.nan if got[ours] is None else float(got[ours])
            assert math.isclose(number, float(value), rel_tol=0, abs_tol=tolerance) or (
                math.isnan(number) and math.isnan(float(value))
            ), f"{region} {ours}: {got[ours]}, theirs {theirs}: {value}"
            compared += 1
    assert compared >= 7
