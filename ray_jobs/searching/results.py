"""What came of a search: a row for each trial, its cost, and the best checkpoint copied to where it is found."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from models import Objective
from ray_jobs.checkpoints.checkpoint_store import BEST, CheckpointStore
from ray_jobs.checkpoints.folds import folds_of
from ray_jobs.checkpoints.run_folder import CONFIG, SUMMARY, RunFolder
from ray_jobs.searching.space import LEARNING_RATE
from storage import InputError
from storage.store.objects import Objects

if TYPE_CHECKING:  # rows are read without Ray and PyTorch, too
    from ray_jobs.training.planning import Decided

RESULTS = "results.json"
TRIALS = "trials"  # the folder below the search's that holds the trials' runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pricing:
    """What a trial costs: the price of a node, times the share of nodes that its workers fill, times its hours."""

    price_per_node_hour: float | None
    workers: int
    workers_per_node: int

    @classmethod
    def of_cluster(cls, price: float | None, decided: "Decided") -> Self:
        """Of nodes like the largest there is now, each worker having one GPU, or one CPU where there are none."""
        import ray

        kind = "GPU" if decided.use_gpu else "CPU"
        most = max((int(node["Resources"].get(kind, 0)) for node in ray.nodes() if node["Alive"]), default=1)
        return cls(price_per_node_hour=price, workers=decided.workers, workers_per_node=max(1, most))

    def cost(self, seconds: float) -> float | None:
        """Return the price of a trial of so many seconds, None where no price was given."""
        if self.price_per_node_hour is None:
            return None
        return self.price_per_node_hour * self.workers / self.workers_per_node * seconds / 3600


def make_row(result: Any, trials: str, pricing: Pricing, *, epochs: int, objective: Objective) -> dict[str, Any]:
    """Return what results.json says of a trial: its values, its best epoch's scores and thresholds, cost, status.

    Scores are those of the best checkpoint that the trial left; where it left none, as on a full disk, of a report.
    """
    frame = result.metrics_dataframe
    reports: list[dict[str, Any]] = [] if frame is None else frame.to_dict("records")
    scored = [row for row in reports if not math.isnan(row.get("iou_mean", math.nan))]
    row: dict[str, Any] = {"values": dict(result.config), "status": "failed" if result.error else "stopped"}
    if result.error:
        row["error"] = last_line(str(result.error))
    seconds = sum(each["time_this_iter_s"] for each in reports)
    row |= {"seconds": round(seconds, 1), "cost": pricing.cost(seconds)}
    if not scored:
        return row
    best = max(scored, key=lambda each: each[f"{objective}_mean"])
    run = RunFolder(trials, str(best["trial_id"]))
    last = int(max(each["epoch"] for each in scored))
    wanted = result.config.get("epochs", epochs)
    if not result.error and (last == wanted or run.read(SUMMARY) is not None):  # a run that has lost patience has one
        row["status"] = "finished"
    store = CheckpointStore(run.uri)
    record = store.best()
    checkpoint = store.open(record).uri if record is not None else None
    if folds_of(run.read(CONFIG)) is not None:
        checkpoint = run.uri  # of all its folds
    scores = record.metrics if record is not None else best
    for kind in ("iou", "dice", "threshold"):
        found = {name.removeprefix(f"{kind}_"): value for name, value in scores.items() if name.startswith(f"{kind}_")}
        row[kind] = {name: float(value) for name, value in found.items()}
    speeds = [each["patches_per_second"] for each in scored if not math.isnan(each["patches_per_second"])]
    return row | {
        "epochs": last if record is None else max(last, record.epoch),  # one may have ended before Tune did stop it
        "patches_per_second": round(sum(speeds) / len(speeds), 2),
        "run": run.uri,
        "checkpoint": checkpoint,
    }


def sort_rows(rows: Sequence[dict[str, Any]], objective: Objective) -> list[dict[str, Any]]:
    """Return the rows from the best mean score to the worst; then those without a checkpoint, then without scores."""

    def rank(row: Mapping[str, Any]) -> tuple[bool, float]:
        return row.get("checkpoint") is None, -row[objective]["mean"] if objective in row else math.inf

    return sorted(rows, key=rank)


def export_best(rows: Sequence[Mapping[str, Any]], folder: RunFolder) -> dict[str, Any] | None:
    """Copy the best trial's best checkpoint to the search's folder; return what it is, None where no trial has one.

    Its thresholds and curves are in it. Of a trial of several folds, which has one for each, nothing is copied.
    Raises InputError where it cannot be copied.
    """
    for row in rows:
        if has_folds(row):
            return {"checkpoint": row["checkpoint"], "values": row["values"]}
        best = CheckpointStore(row["run"]).best() if "run" in row else None
        if best is None:
            continue
        source, target = Objects(row["run"]), Objects(folder.uri)
        target.delete_folder(BEST)
        for key in sorted(source.keys(best.name), key=lambda key: key.endswith("record.json")):  # the record last
            content = source.get(key)
            if content is None:
                raise InputError(f"{row['run']}/{key} vanished while it was copied; run the same command again")
            target.put(f"{BEST}/{key.removeprefix(f'{best.name}/')}", content)
        return {"checkpoint": f"{folder.uri}/{BEST}", "values": row["values"], "epoch": best.epoch, **best.metrics}
    return None


def has_folds(row: Mapping[str, Any]) -> bool:
    """Whether the trial trained several folds: it has a checkpoint for each, and its run's folder stands for all."""
    return row.get("checkpoint") is not None and row["checkpoint"] == row.get("run")


def describe_values(values: Mapping[str, Any]) -> str:
    """Return the values in words, under the last part of their fields' names."""
    parts = ((name.rsplit(".", 1)[-1], value) for name, value in values.items())
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in parts)


def learning_rate_of(row: Mapping[str, Any]) -> float:
    """Return the learning rate of a trial."""
    return float(row["values"][LEARNING_RATE])


def last_line(text: str) -> str:
    """Return the line of a traceback that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
