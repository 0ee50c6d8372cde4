"""Conventions map to the stored labels and back."""

import numpy as np
import pytest

from storage.labels.conventions import (
    BRATS_2013,
    CONVENTIONS,
    GLI_2024,
    MSD,
    LabelConvention,
)


@pytest.mark.parametrize("convention", [item for item in CONVENTIONS.values() if not item.lossy], ids=lambda c: c.name)
def test_a_one_to_one_convention_inverts_exactly(convention: LabelConvention) -> None:
    source = np.array(sorted(convention.stored_by_source) * 3, dtype=np.uint8).reshape(3, 1, -1)
    assert (convention.to_source(convention.to_stored(source)) == source).all()


def test_only_brats_2013_is_lossy_and_gives_necrosis_back_for_both() -> None:
    assert [item.name for item in CONVENTIONS.values() if item.lossy] == ["brats-2013"]
    stored = BRATS_2013.to_stored(np.array([[[0, 1, 2, 3, 4]]], dtype=np.uint8))
    assert stored.ravel().tolist() == [0, 1, 2, 1, 3]
    assert BRATS_2013.to_source(stored).ravel().tolist() == [0, 1, 2, 1, 4]


def test_values_outside_a_convention_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[4, 9\] are outside the convention msd"):
        MSD.to_stored(np.array([[[0, 4, 9]]], dtype=np.uint8))


def test_a_cavity_has_no_place_in_an_older_convention() -> None:
    cavity = GLI_2024.to_stored(np.array([[[4]]], dtype=np.uint8))
    with pytest.raises(ValueError, match="no value in the convention msd"):
        MSD.to_source(cavity)


def test_background_must_stay_background() -> None:
    with pytest.raises(ValueError, match="0 must mean background"):
        LabelConvention(name="odd", stored_by_source={0: 1})
