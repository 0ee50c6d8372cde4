"""What to do after a search."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models import Objective
from ray_jobs.searching.results import has_folds
from ray_jobs.settings.objective import SCORE_NAMES

NEAR = 0.01  # in score: trials as good as the best, for all that few cases can tell


def steps_after_search(rows: Sequence[Mapping[str, Any]], uri: str, objective: Objective) -> list[str]:
    """Return what there is to do, by the rows of results.json; what can be typed is between `."""
    scored = [row for row in rows if objective in row]
    if not scored:
        return ["No trial came to a score: the errors below say why."]
    return [*_failed(rows), *_at_an_end(scored), *_cheaper(scored, objective), *_use(scored[0], uri)]


def _failed(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    failed = sum(row["status"] == "failed" for row in rows)
    if failed:
        yield f"{failed} of {len(rows)} trials failed; what they ended with is below."


def _at_an_end(scored: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where the best value of a field is the least or the greatest that was tried."""
    for field, best in scored[0]["values"].items():
        tried = sorted({row["values"][field] for row in scored if isinstance(row["values"].get(field), int | float)})
        if len(tried) > 2 and best in (tried[0], tried[-1]):
            end, way = ("least", "lower") if best == tried[0] else ("greatest", "higher")
            yield f"The best {field} is the {end} that was tried: {way} ones may be better still."


def _cheaper(scored: Sequence[Mapping[str, Any]], objective: Objective) -> Iterator[str]:
    best = scored[0]
    near = [row for row in scored if row[objective]["mean"] >= best[objective]["mean"] - NEAR]
    cheapest = min(near, key=lambda row: row["seconds"])
    if cheapest["seconds"] < 0.7 * best["seconds"]:
        yield (
            f"Trial {scored.index(cheapest) + 1} came within {NEAR:g} {SCORE_NAMES[objective]} of the best in "
            f"{cheapest['seconds'] / best['seconds']:.0%} of its time."
        )


def _use(best: Mapping[str, Any], uri: str) -> Iterator[str]:
    flags = " ".join(
        f"--{field.replace('_', '-')} {shlex.quote(str(value))}" for field, value in best["values"].items()
    )
    yield f"Train on with the best values: the training's own command with `{flags}`"
    if best.get("checkpoint") is not None:
        place = shlex.quote(best["checkpoint"] if has_folds(best) else uri)
        yield f"New scans: `python ray_jobs/predict.py --checkpoint {place} --input SCANS --output predictions`"
