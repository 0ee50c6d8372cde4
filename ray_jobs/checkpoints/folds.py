"""Where the folds of a cross-validation lie: each a run of its own in the folder of the whole."""

from collections.abc import Mapping
from typing import Any

from ray_jobs.checkpoints.run_folder import RunFolder


def fold_name(fold: int) -> str:
    """The fold's folder in that of the whole."""
    return f"fold-{fold}"


def fold_folder(whole: RunFolder, fold: int) -> RunFolder:
    """The folder of the fold's run."""
    return whole.inside(fold_name(fold))


def folds_of(identity: Mapping[str, Any] | None) -> int | None:
    """How many folds the cross-validation of this config.json has; None where it is of none, or of a search by such."""
    identity = identity or {}
    splits = identity.get("splits") or {}
    return splits.get("folds") if splits.get("fold") is None and "search" not in identity else None


def fold_of(identity: Mapping[str, Any] | None) -> int | None:
    """Which fold the run of this config.json is; None where it is none."""
    splits = (identity or {}).get("splits") or {}
    return None if splits.get("folds") is None else splits.get("fold")
