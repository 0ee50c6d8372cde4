"""A checkpoint's decision: decision.json, and thresholds.json of earlier versions. Imports no PyTorch."""

from collections.abc import Mapping, Sequence
from typing import Any

from models import Decision
from ray_jobs.checkpoints.checkpoint import DECISION, FORMER_DECISION, Checkpoint
from ray_jobs.checkpoints.trained_on import read_task


def read_decision(checkpoint: Checkpoint) -> Decision | None:
    """Return the decision that is saved with the checkpoint, None where it was not validated.

    One of an earlier version has thresholds alone, and leaves nothing out.
    """
    regions = read_task(checkpoint).region_names
    if checkpoint.has(DECISION):
        return decode_decision(checkpoint.read_json(DECISION), regions)
    if checkpoint.has(FORMER_DECISION):
        return decode_decision({"thresholds": checkpoint.read_json(FORMER_DECISION)}, regions)
    return None


def encode_decision(decision: Decision, regions: Sequence[str]) -> dict[str, Any]:
    """Return a decision as JSON has it, by the regions' names."""
    return {
        "thresholds": dict(zip(regions, decision.thresholds, strict=True)),
        "smallest_mm3": dict(zip(regions, decision.smallest, strict=True)),
        "largest_tumour_only": decision.largest_tumour_only,
        "empty_below_mm3": dict(zip(regions, decision.empty_below, strict=True)),
    }


def decode_decision(values: Mapping[str, Any], regions: Sequence[str]) -> Decision:
    """The inverse of `encode_decision`; what is not in it is not left out."""

    def of_regions(name: str) -> tuple[float, ...]:
        return tuple(float(values.get(name, {}).get(region, 0.0)) for region in regions)

    return Decision(
        thresholds=tuple(float(values["thresholds"][region]) for region in regions),
        smallest_mm3=of_regions("smallest_mm3"),
        largest_tumour_only=bool(values.get("largest_tumour_only", False)),
        empty_below_mm3=of_regions("empty_below_mm3"),
    )
