"""The label convention as the command line tells it."""

from collections.abc import Mapping

from storage import InputError
from storage.labels.conventions import CONVENTIONS, EDEMA, ENHANCING, NECROTIC_CORE, STORED_LABEL_NAMES, LabelConvention


def told_convention(
    name: str | None, label_map: Mapping[int, int], *, flag: str = "--label-convention"
) -> LabelConvention | None:
    """Return the convention called `name`, given as `flag`, or that of --label-map; None where neither is given.

    Raises InputError.
    """
    if label_map and name:
        raise InputError(f"wanted {flag} or --label-map, got both; give one")
    if label_map:
        pairs = ",".join(f"{source}:{stored}" for source, stored in sorted(label_map.items()))
        try:
            return LabelConvention(name=f"custom-{pairs}", stored_by_source={0: 0, **label_map})
        except ValueError as error:
            raise InputError(f"--label-map: {error}") from None
    if name is None:
        return None
    if name not in CONVENTIONS:
        raise InputError(f"wanted {flag} {', '.join(CONVENTIONS)}, got {name}")
    return CONVENTIONS[name]


def refuse_incomplete(convention: LabelConvention) -> None:
    """Raise InputError for a convention in which not every segmentation can be written."""
    missing = {NECROTIC_CORE, EDEMA, ENHANCING} - set(convention.stored_by_source.values())
    if missing:
        names = ", ".join(f"{STORED_LABEL_NAMES[label]} ({label})" for label in sorted(missing))
        raise InputError(
            f"segmentations are to be written as {convention.name}, which has no value for {names}: "
            "give one in --label-map, or another --write-convention"
        )
