"""Every number that the organisers' programs printed for the pairs of ../shared/data/scores, which holds no scans.

Left out is what those programs compute on numbers of components where masks are meant (README there): sensitivity,
specificity and whole-case HD95 of 2024 and 2025, but for MEN and `MET:legacy`, which take masks.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from scoring import score_case
from scoring.case import masks_of
from scoring.matched_case import score_matched
from scoring.rules import MatchedRules, RulesName
from storage.labels.conventions import GLI_2024, GTV, PED_2024
from storage.labels.tasks import TASKS

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "scores"

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
COUNTS = {"tp": "found", "fp": "false", "fn": "missed", "prec": "precision", "rec": "recall", "f1": "f1"}
OF_2026 = {
    **{f"all_instance_{theirs}": f"lesions_{ours}" for theirs, ours in COUNTS.items()},
    **{
        f"{size}_instance_{theirs}": f"{size}_lesions_{ours}"
        for size in ("small", "large")
        for theirs, ours in COUNTS.items()
    },
    **{
        f"lesionwise_{theirs}_{kind}": "{}" + ours + end
        for theirs, ours in (("dsc", "lesion_dice"), ("hd95", "lesion_hd95"), ("nsd", "lesion_surface_dice"))
        for kind, end in (("mean", ""), ("std", "_std"))
    },
    "global_dsc": "dice",
    "global_hd95": "hd95_voxels",
    "global_nsd": "surface_dice_voxels",
}


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


@cache
def _read(pair: str, which: str) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    """The file's values as D H W and the sides of its voxels."""
    image = nib.load(FOLDER / "pairs" / f"{pair}_{which}.nii.gz")
    values = np.ascontiguousarray(np.asarray(image.dataobj).astype(np.uint8).T)
    return values, tuple(float(side) for side in reversed(image.header.get_zooms()))


def _name_ours(theirs: str, year: str, challenge: str) -> str | None:
    if year == "2026":
        return OF_2026[theirs].format("matched_" if challenge == "mets:seg" else "")
    masks = year == "2023" or challenge in ("BraTS-MEN", "BraTS-MET:legacy")
    if theirs in ON_MASKS:
        return ON_MASKS[theirs] if masks else None
    return UP_TO_2025[theirs].format("" if masks else "kept_")


@cache
def _score(pair: str, rules: RulesName, task: str, *, large_mm3: float | None) -> Mapping[str, Mapping[str, float]]:
    convention = {"ped-2024": PED_2024, "men-rt": GTV}.get(task, GLI_2024)
    stored = np.zeros(256, dtype=np.uint8)
    stored[list(convention.stored_by_source)] = list(convention.stored_by_source.values())
    (predicted, spacing), (true, true_spacing) = _read(pair, "pred"), _read(pair, "truth")
    if rules == "2026" and spacing != true_spacing:
        raise ValueError("one grid is wanted, which whoever reads the files checks")
    predicted, true = stored[predicted], stored[true]
    if large_mm3 is None:
        return score_case(predicted, true, task=TASKS[task], rules=rules, spacing_mm=spacing)
    return {
        region: score_matched(
            *masks_of(region, predicted, true, TASKS[task]),
            MatchedRules(large_mm3=large_mm3),
            spacing_mm=(spacing[0], spacing[1], spacing[2]),
            grid=true.shape,
        )
        for region in ("WT", "TC", "ET", "RC")
    }


@pytest.mark.parametrize(("year", "challenge", "pair"), _cases())
def test_scores_are_those_of_the_years_program(year: str, challenge: str, pair: str) -> None:
    wanted = expected()[year][challenge][pair]
    large_mm3 = 27 if "vol_threshold=27" in challenge else None
    if "crash" in wanted:
        with pytest.raises(ValueError, match="wanted"):
            _score(pair, *PROGRAMS[year, challenge], large_mm3=large_mm3)
        return
    scores = _score(pair, *PROGRAMS[year, challenge], large_mm3=large_mm3)
    compared = 0
    for region, values in wanted.items():
        ours_of_region = {"NETC": "NET"} if PROGRAMS[year, challenge][1] == "ped-2024" else {}
        got = scores[ours_of_region.get(region.upper(), region.upper())]
        for theirs, value in values.items():
            ours = _name_ours(theirs, year, challenge)
            if ours is None:
                continue
            tolerance = 1e-6 if "hd95" in ours else 1e-7 if "surface" in ours else 1e-12
            assert math.isclose(got[ours], float(value), rel_tol=0, abs_tol=tolerance) or (
                math.isnan(got[ours]) and math.isnan(float(value))
            ), f"{region} {ours}: {got[ours]}, theirs {theirs}: {value}"
            compared += 1
    assert compared >= 7
