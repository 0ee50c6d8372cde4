"""Score segmentations: `python ray_jobs/score.py --prediction DIR --label DIR_OR_STORE --output DIR --rules 2024`.

Exit status: 0 when every case is scored, 3 when some were refused (named here and in metrics.json), 2 when nothing
could be done with what was given. Run again, it does only what is missing.
"""

import sys
from collections.abc import Sequence

from ray_jobs.predicting.folder import CaseFolder
from ray_jobs.predicting.pairs import find_pairs
from ray_jobs.predicting.predict_config import choose_rules
from ray_jobs.predicting.score_config import ScoreConfig
from ray_jobs.settings.command import parse
from ray_jobs.settings.console import open_console
from ray_jobs.settings.exit_status import run_command
from storage.store.objects import refuse_unwritable


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = parse(arguments, ScoreConfig, seldom=("--trust-grid", "--workers"))
    folder = CaseFolder(config.output, record="{case_id}_scores.json", made="scores")
    pairs = find_pairs(config)
    rules = choose_rules(config.rules, pairs.task)
    refuse_unwritable(folder.uri)
    # NumPy's friends take a second to import: not before the command line stands.
    from ray_jobs.predicting.score_job import score_pairs

    return score_pairs(config, pairs, rules, folder, open_console())


if __name__ == "__main__":
    sys.exit(run_command(main))
