"""What to do after a run, or with one that is not finished: sentences by what its folder says."""

import shlex
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from ray_jobs.reporting.run_record import RunRecord
from ray_jobs.settings.objective import SCORE_NAMES

FEW_SUBJECTS = 10  # of whose mean score little is known
FAR_BELOW = 0.3  # the median: a case that may be wrong, and not only hard
EARLY = 0.6  # of the epochs: a best one before that while the loss still fell
LOST_TO_RESTARTS = 0.05  # of the time that was paid
SKIPPED = 10  # steps without an update, more than a loss scale takes to settle


def next_steps(run: RunRecord) -> list[str]:
    """Return what there is to do, the most pressing first; what can be typed is between `."""
    return [*_go_on(run), *_look_at_cases(run), *_train_otherwise(run), *_use(run)]


def best_epoch(run: RunRecord) -> int | None:
    """Return the epoch whose weights are kept as the best, None before there is one."""
    return None if run.best is None else run.best.epoch


def _go_on(run: RunRecord) -> Iterator[str]:
    if run.summary is not None:
        return
    done = "before its first checkpoint" if run.newest is None else f"at the checkpoint {run.newest.name}"
    yield (
        f"The run is not finished; its folder stands {done}. Where nothing trains it now, the command that began it "
        "goes on from there: exactly, in mid-epoch too."
    )


def _look_at_cases(run: RunRecord) -> Iterator[str]:
    yield from _mend(bad_cases(run))
    validated, name = run.part("validation"), SCORE_NAMES[run.objective]
    scores = {case: own[run.objective]["mean"] for case, own in ((validated or {}).get("by_case") or {}).items()}
    yield from _outlier(scores, name)
    baseline = (run.summary or {}).get("baseline_iou")
    if validated and baseline and validated["iou"]["mean"] <= baseline["mean"]:
        yield (
            f"No better than a threshold on a single scan (IoU {validated['iou']['mean']:.3f}, that has "
            f"{baseline['mean']:.3f}): train longer, and see in the pictures whether labels and scans belong together."
        )


def _mend(bad: Mapping[str, str]) -> Iterator[str]:
    if bad:
        some = ", ".join(sorted(bad)[:3])
        yield (
            f"{len(bad)} case{'s' * (len(bad) > 1)} could not be read ({some}): mend the files and convert them again, "
            "or they are missing in the training and in the scores."
        )


def _outlier(scores: Mapping[str, float], name: str) -> Iterator[str]:
    if len(scores) > 2:
        worst, median = min(scores, key=lambda case: scores[case]), statistics.median(scores.values())
        if scores[worst] < median - FAR_BELOW:
            yield (
                f"Look at {worst} first: its mean {name} is {scores[worst]:.3f}, where half of the cases have more "
                f"than {median:.3f}. Its label, a scan or their registration may be wrong."
            )


def _train_otherwise(run: RunRecord) -> Iterator[str]:
    summary = run.summary
    if summary is None:
        return
    yield f"Speed: {summary['time']['advice']}."
    best, last = best_epoch(run), max((each["epoch"] for each in summary["history"]), default=0)
    losses = run.series("epoch/loss")
    if summary["validation"] and best is not None and len(summary["history"]) > 2:
        if best == last == run.epochs:
            yield f"The last epoch was the best: `--epochs {2 * run.epochs}` and another `--name` may score higher."
        elif best < EARLY * last and losses[-1][1] < losses[0][1]:
            yield (
                f"The score was highest after epoch {best:.0f} of {last:.0f}, and the loss fell on: the network learns "
                "its cases by heart. More cases or more augmentation help; `--patience` ends such a run sooner."
            )
    if summary["validation"] and run.config.get("splits", {}).get("folds") is None:
        subjects = len({run.subject_of(case) for case in summary["validation"].get("by_case") or {}})
        if 0 < subjects < FEW_SUBJECTS:
            yield (
                f"{subjects} validation subject{'s' * (subjects > 1)} say little: `--splits.folds 5` scores every case "
                "once, by a network that did not train on it."
            )
    skipped = max((each.get("skipped_steps", 0) for each in summary["history"]), default=0)
    if skipped > SKIPPED:
        yield f"{skipped} steps had gradients that are not finite: a lower `--optimiser.learning-rate` has fewer."
    lost, paid = (summary.get("restarts") or {}).get("seconds_lost", 0), (summary.get("cost") or {}).get("seconds", 0)
    if paid and lost > LOST_TO_RESTARTS * paid:
        yield (
            f"Restarts lost {lost / paid:.0%} of the time: `--checkpoints.every-minutes` saves more often, on-demand "
            "machines are not taken away."
        )


def _use(run: RunRecord) -> Iterator[str]:
    if run.summary is not None:
        yield f"New scans: {_predict(run.uri)}"
        yield f"Other programs: `python ray_jobs/give.py onnx --checkpoint {shlex.quote(run.uri)} --output given`"


def _predict(uri: str) -> str:
    return f"`python ray_jobs/predict.py --checkpoint {shlex.quote(uri)} --input SCANS --output predictions`"


def steps_after_folds(whole: Mapping[str, Any], uri: str) -> list[str]:
    """Return what there is to do after a cross-validation, or with one that has no summary yet."""
    if "out_of_fold" not in whole:
        return ["Folds are missing: the command that began it trains those, and keeps what is finished."]
    scores = {case: own[whole["objective"]]["mean"] for case, own in whole["by_case"].items()}
    return [
        *_mend(whole["bad_cases"]),
        *_outlier(scores, SCORE_NAMES[whole["objective"]]),
        f"New scans, by all networks together: {_predict(uri)}",
    ]


def bad_cases(run: RunRecord) -> dict[str, str]:
    """Return the cases that could not be read, and what came of that."""
    found: dict[str, str] = {}
    if run.summary is not None:
        for case, times in run.summary.get("bad_cases", {}).items():
            found[case] = f"others took its place {times} time{'s' * (times > 1)} in the training"
    for name in ("validation", "test"):
        part: Mapping[str, Any] = run.part(name) or {}
        for case, why in (part.get("bad_cases") or {}).items():
            found[case] = f"left out of the {name} scores: {why}"
    return found
