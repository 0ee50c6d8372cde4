"""A run's configuration beside that of its preset: what was given, what memory settled, and all of it folded."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ray_jobs.pages.page import folded, paragraph, table
from ray_jobs.settings.presets import PRESETS

PLACES = ("preset", "source", "store", "runs", "name", "store_digest")  # which no preset says
BESIDE = ("made_with", "task", "regions", "modalities", "spacing")  # what a checkpoint says beside its configuration


def against_preset(config: Mapping[str, Any]) -> list[str]:
    """Return what differs from the preset, and the whole; nothing of a run that says nothing of itself."""
    own = flatten({key: value for key, value in config.items() if key not in BESIDE})
    if not own:
        return []
    whole = table("All fields", ["field", "value"], [[name, _shown(value)] for name, value in own.items()], words=True)
    name = config.get("preset")
    if name not in PRESETS:
        return [paragraph("Which preset it began with is not written down."), folded("All fields", [whole])]
    theirs = flatten(json.loads(json.dumps(asdict(PRESETS[name]()))))
    differ = [
        [field, _shown(theirs[field]), _shown(value)]
        for field, value in own.items()
        if field in theirs and field not in PLACES and value != theirs[field]
    ]
    said = [paragraph(f"As the preset {name} says it.")]
    if differ:
        said = [table(f"What is not as in the preset {name}", ["field", f"{name} has", "this run"], differ, words=True)]
    return [*said, folded("All fields", [whole])]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the fields by their dotted names, as JSON has their values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
