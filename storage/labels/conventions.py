"""Modalities and labels: decided here once, in this order, for every other file.

Stores hold labels in one convention whatever the source used; a `LabelConvention` says how a source's values map to it.
Source of the cavity label: de Verdier et al. 2024, "The 2024 BraTS Challenge: Glioma Segmentation on Post-treatment
MRI".

Shapes: D H W are voxels z y x.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MODALITIES = ("flair", "t1", "t1ce", "t2")
"""The four scans of a BraTS case, in the order of a store's image (M, D, H, W) where nothing else is said."""

# The stored convention: a label is one meaning, whatever task and year it comes from. Numbers are never given anew.
# Adult tumours' non-enhancing core may hold cysts; in children NON_ENHANCING_TUMOUR and CYSTIC_COMPONENT are apart.
BACKGROUND, NECROTIC_CORE, EDEMA, ENHANCING, RESECTION_CAVITY = range(5)
CYSTIC_COMPONENT, NON_ENHANCING_TUMOUR, GROSS_TUMOUR_VOLUME = range(5, 8)

STORED_LABEL_NAMES = (
    *("background", "necrotic_or_non_enhancing_core", "edema", "enhancing", "resection_cavity"),
    *("cystic_component", "non_enhancing_tumour", "gross_tumour_volume"),
)


@dataclass(frozen=True, kw_only=True)
class LabelConvention:
    """What the values of a source's label files mean, as a map from each source value to the stored label."""

    name: str
    stored_by_source: Mapping[int, int]

    def __post_init__(self) -> None:
        if self.stored_by_source.get(0) != BACKGROUND:
            raise ValueError(f"label convention {self.name}: 0 must mean background, got {dict(self.stored_by_source)}")
        for source, stored in self.stored_by_source.items():
            if not 0 <= source <= 255:
                raise ValueError(
                    f"wanted values from 0 to 255 in the files, got {source} (which {stored} is to stand for)"
                )
            if not 0 <= stored < len(STORED_LABEL_NAMES):
                meant = ", ".join(f"{label} {name}" for label, name in enumerate(STORED_LABEL_NAMES))
                raise ValueError(f"wanted a stored label for the value {source} ({meant}), got {stored}")

    @property
    def labels(self) -> frozenset[int]:
        """The stored labels that the values stand for, without the background."""
        return frozenset(self.stored_by_source.values()) - {BACKGROUND}

    @property
    def lossy(self) -> bool:
        """True when two source values become one stored label, so that the source cannot be rebuilt."""
        return len(set(self.stored_by_source.values())) < len(self.stored_by_source)

    def read_values(self, label_DHW: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[int]]:
        """Source values to stored labels, and the values that mean nothing here, which become 0."""
        return _replace_values(label_DHW, self.stored_by_source)

    def to_stored(self, label_DHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Source values to stored labels; raises ValueError naming values outside the convention."""
        stored_DHW, unknown = self.read_values(label_DHW)
        if unknown:
            known = sorted(self.stored_by_source)
            raise ValueError(f"label values {unknown} are outside the convention {self.name} {known}")
        return stored_DHW

    def to_source(self, label_DHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Stored labels back to the source's values. A lossy convention gives the lowest source value of each label.

        Raises ValueError when a stored label has no source value (a cavity in a convention without one).
        """
        lowest = {self.stored_by_source[source]: source for source in sorted(self.stored_by_source, reverse=True)}
        source_DHW, homeless = _replace_values(label_DHW, lowest)
        if homeless:
            raise ValueError(f"stored labels {homeless} have no value in the convention {self.name}")
        return source_DHW


BRATS_124 = LabelConvention(name="brats-124", stored_by_source={0: 0, 1: NECROTIC_CORE, 2: EDEMA, 4: ENHANCING})
BRATS_123 = LabelConvention(name="brats-123", stored_by_source={0: 0, 1: NECROTIC_CORE, 2: EDEMA, 3: ENHANCING})
GLI_2024 = LabelConvention(
    name="gli-2024", stored_by_source={0: 0, 1: NECROTIC_CORE, 2: EDEMA, 3: ENHANCING, 4: RESECTION_CAVITY}
)
PED_2024 = LabelConvention(
    name="ped-2024", stored_by_source={0: 0, 1: ENHANCING, 2: NON_ENHANCING_TUMOUR, 3: CYSTIC_COMPONENT, 4: EDEMA}
)
GTV = LabelConvention(name="gtv", stored_by_source={0: 0, 1: GROSS_TUMOUR_VOLUME})
MSD = LabelConvention(name="msd", stored_by_source={0: 0, 1: EDEMA, 2: NECROTIC_CORE, 3: ENHANCING})
# BraTS 2013 told necrosis (1) from non-enhancing core (3); later years do not, so both become 1: lossy.
BRATS_2013 = LabelConvention(
    name="brats-2013", stored_by_source={0: 0, 1: NECROTIC_CORE, 2: EDEMA, 3: NECROTIC_CORE, 4: ENHANCING}
)
CONVENTIONS: dict[str, LabelConvention] = {
    convention.name: convention for convention in (BRATS_124, BRATS_123, GLI_2024, PED_2024, GTV, MSD, BRATS_2013)
}


_CUSTOM = "custom-"


def custom_convention(stored_by_source: Mapping[int, int]) -> LabelConvention:
    """The convention of these values, named after them; raises ValueError for values that cannot be."""
    pairs = ",".join(f"{source}:{stored}" for source, stored in sorted(stored_by_source.items()) if source)
    return LabelConvention(name=f"{_CUSTOM}{pairs}", stored_by_source={0: 0, **stored_by_source})


def convention_named(name: str) -> LabelConvention:
    """The convention that a record names; raises ValueError for one that this version does not know."""
    if name in CONVENTIONS:
        return CONVENTIONS[name]
    try:
        pairs = [pair.split(":") for pair in name.removeprefix(_CUSTOM).split(",")]
        return custom_convention({int(source): int(stored) for source, stored in pairs})
    except ValueError:
        raise ValueError(f"wanted a label convention of {', '.join(CONVENTIONS)}, found {name}") from None


def _replace_values(label_DHW: NDArray[np.uint8], new: Mapping[int, int]) -> tuple[NDArray[np.uint8], list[int]]:
    """The map with new values, 0 for 0, and those that have none; looking at the few foreground voxels is cheap."""
    flat = label_DHW.ravel()
    foreground = np.flatnonzero(flat != 0)
    values = flat[foreground]
    table = np.zeros(256, dtype=np.uint8)
    table[list(new)] = list(new.values())
    replaced = np.zeros_like(flat)
    replaced[foreground] = table[values]
    return replaced.reshape(label_DHW.shape), sorted(set(np.flatnonzero(np.bincount(values)).tolist()) - set(new))
