"""Our scores of 2026 of all pairs in a folder, in one process: what the score benchmark runs beside brats-evaluate.

`python -m benchmarks.score_pairs FOLDER TASK` reads FOLDER/prediction and FOLDER/label and writes FOLDER/ours.json.
"""

import json
import sys
from pathlib import Path

import numpy as np

from scoring import Scores, score_case
from storage import TASKS
from storage.scans.nifti import read_segmentation


def score_pair(prediction: Path, label: Path, task: str) -> dict[str, Scores]:
    """The scores of one pair of files on one grid, by region."""
    predicted, true = read_segmentation(prediction), read_segmentation(label)
    to_stored = TASKS[task].convention.to_stored
    width, height, depth = (float(side) for side in np.linalg.norm(predicted.affine[:3, :3], axis=0))
    return score_case(
        to_stored(predicted.array.T),
        to_stored(true.array.T),
        task=TASKS[task],
        rules="2026",
        spacing_mm=(depth, height, width),
    )


def main(folder: Path, task: str) -> None:
    """Score every pair."""
    pairs = {label: folder / "prediction" / label.name for label in sorted((folder / "label").iterdir())}
    scores = {
        label.name.removesuffix(".nii.gz"): score_pair(prediction, label, task) for label, prediction in pairs.items()
    }
    (folder / "ours.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
