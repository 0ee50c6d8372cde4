"""`brats-evaluate` (PyPI brats-evaluation 0.0.10, AGPL), run as a program in an environment of its own, and its table.

Nothing of it is imported. Its names of scores are put beside ours, which a test of its printed numbers uses too.
"""

import csv
import subprocess
from collections.abc import Mapping
from pathlib import Path

from storage import InputError

CONFIGURATIONS = {
    "gli-2024": "gli",
    "ped-2024": "ped",
    "met-2024": "mets",
    "men-rt": "MenRT",
    "men": "MenPre",
    "goat": "GoAT",
}
"""By our names of tasks."""

_COUNTS = {"tp": "found", "fp": "false", "fn": "missed", "prec": "precision", "rec": "recall", "f1": "f1"}
OUR_NAMES = {
    **{f"all_instance_{theirs}": f"lesions_{ours}" for theirs, ours in _COUNTS.items()},
    **{
        f"{size}_instance_{theirs}": f"{size}_lesions_{ours}"
        for size in ("small", "large")
        for theirs, ours in _COUNTS.items()
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
"""By its names of scores; "{}" is `matched_` where its plain table is of metastases."""


def evaluate_words(program: Path, folder: Path, task: str) -> list[str]:
    """What to run for the pairs in `folder/prediction` and `folder/label`."""
    folders = ["--ref_path", str(folder / "label"), "--pred_path", str(folder / "prediction")]
    return [
        *(str(program), *folders, "--config", CONFIGURATIONS[task]),
        *("--summary_json", str(folder / "brats-evaluate.json")),
    ]


def read_scores(program: Path, folder: Path, task: str) -> dict[str, dict[str, dict[str, float]]]:
    """What it said of the pairs in `folder`, by case, region and our name of the score."""
    table = folder / "brats-evaluate.csv"
    words = [
        *(str(program.with_name("brats-parse-metrics")), "mets" if task == "met-2024" else "seg"),
        *("--json_path", str(folder / "brats-evaluate.json"), "--output_csv_path", str(table)),
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(f"{words[0]} failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    with table.open(newline="") as rows:
        return {
            row["subject_id"].removesuffix(".nii.gz"): _by_region(row, task)
            for row in csv.DictReader(rows)
            if row["subject_id"] not in ("mean", "std", "median")
        }


def _by_region(row: Mapping[str, str], task: str) -> dict[str, dict[str, float]]:
    regions: dict[str, dict[str, float]] = {}
    called = {"NETC": "NET"} if task == "ped-2024" else {}
    for column, value in row.items():
        theirs, _, region = column.rpartition("_")
        if theirs in OUR_NAMES:
            name = called.get(region.upper(), region.upper())
            regions.setdefault(name, {})[OUR_NAMES[theirs].format("")] = float(value or "nan")
    return regions
