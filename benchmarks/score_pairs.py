"""What `ray_jobs/score.py` does with the pairs in a folder, in one process and without Ray.

`python -m benchmarks.score_pairs FOLDER TASK` reads FOLDER/prediction and FOLDER/label and writes FOLDER/ours.json.
"""

import json
import sys
from pathlib import Path

from ray_jobs.predicting.pair_scores import MakeScorer
from ray_jobs.predicting.pairs import find_pairs
from ray_jobs.predicting.score_config import ScoreConfig


def main(folder: Path, task: str) -> None:
    """Score every pair by the rules of 2026."""
    prediction, label = str(folder / "prediction"), str(folder / "label")
    pairs = find_pairs(ScoreConfig(prediction=prediction, label=label, output="", task=task))
    score = MakeScorer(pairs=pairs, rules="2026", trust_grid=False)()
    (folder / "ours.json").write_text(json.dumps([score(case_id).record for case_id in pairs.sources]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
