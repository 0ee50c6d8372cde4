"""The label convention is told from names and labels together, or the cohort is refused with the flag to set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from storage import Case, InputError, find_cases
from storage.scans.case import Naming
from storage.scans.label_detection import detect_convention, read_label_values


def cohort(naming: Naming, *case_ids: str) -> list[Case]:
    return [Case(case_id=case_id, subject=case_id, files={}, naming=naming) for case_id in case_ids]


@pytest.mark.parametrize(
    ("naming", "case_id", "values", "expected"),
    [
        (Naming.UNDERSCORE, "Brats18_1", (1, 2, 4), "brats-124"),
        (Naming.UNDERSCORE, "Brats18_1", (2,), "brats-124"),
        (Naming.UNDERSCORE, "Brats18_1", None, "brats-124"),
        (Naming.UNDERSCORE, "Brats18_1", (1, 2, 4, 77), "brats-124"),
        (Naming.HYPHEN, "BraTS-GLI-00000-000", (1, 2, 3), "brats-123"),
        (Naming.HYPHEN, "BraTS-MET-00000-000", (1, 3), "brats-123"),
        (Naming.HYPHEN, "BraTS-GLI-00000-000", (1, 2, 3, 4), "gli-2024"),
        (Naming.MSD, "BRATS_001", (1, 2, 3), "msd"),
    ],
)
def test_what_can_be_told(naming: Naming, case_id: str, values: Sequence[int] | None, expected: str) -> None:
    assert detect_convention(cohort(naming, case_id), {case_id: values}).name == expected


@pytest.mark.parametrize(
    ("naming", "case_id", "values"),
    [
        (Naming.UNDERSCORE, "BraTS2021_00006", (1, 2, 3)),
        (Naming.UNDERSCORE, "Brats18_1", (1, 2, 3, 4)),
        (Naming.HYPHEN, "BraTS-GLI-00000-000", (1, 2, 4)),
        (Naming.HYPHEN, "BraTS-MET-00000-000", (1, 2, 3, 4)),
        (Naming.TOLD, "pat0003", (1, 2, 4)),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(naming: Naming, case_id: str, values: Sequence[int]) -> None:
    with pytest.raises(InputError, match="--label-convention"):
        detect_convention(cohort(naming, case_id), {case_id: values})


def test_the_refusal_names_a_case_of_each_label() -> None:
    with pytest.raises(InputError, match="3 in 1 case, such as B; 4 in 2 cases, such as A"):
        detect_convention(cohort(Naming.UNDERSCORE, "A", "B", "C"), {"A": (4,), "B": (3,), "C": (4,)})


@pytest.mark.parametrize(
    ("naming", "usual", "odd", "expected"),
    [(Naming.UNDERSCORE, 4, 3, "brats-124"), (Naming.HYPHEN, 3, 4, "brats-123")],
)
def test_one_odd_file_among_many_does_not_stop_the_cohort(naming: Naming, usual: int, odd: int, expected: str) -> None:
    case_ids = [f"BraTS-MET-{number:05d}-000" for number in range(11)]
    cases = cohort(naming, *case_ids)
    values: dict[str, tuple[int, ...]] = dict.fromkeys(case_ids, (1, 2, usual))
    assert detect_convention(cases, {**values, case_ids[0]: (1, 2, odd)}).name == expected
    with pytest.raises(InputError, match="cannot tell"):  # both in one case: no slip
        detect_convention(cases, {**values, case_ids[0]: (1, 2, odd, usual)})
    with pytest.raises(InputError, match="cannot tell"):  # not few
        detect_convention(cases, {**values, case_ids[0]: (odd,), case_ids[1]: (odd,)})
    with pytest.raises(InputError, match="cannot tell"):  # cases without either are no evidence
        detect_convention(cases, {**dict.fromkeys(case_ids, (1, 2)), case_ids[0]: (odd,), case_ids[1]: (usual,)})


def test_two_namings_in_one_cohort_are_refused() -> None:
    cases = cohort(Naming.UNDERSCORE, "A") + cohort(Naming.HYPHEN, "B")
    with pytest.raises(InputError, match="wanted one naming convention"):
        detect_convention(cases, {})


def test_the_values_of_a_file(tmp_path: Path, case_writer: type[Any]) -> None:
    case_writer(label_values=(2, 4)).write(tmp_path, "A")
    (case,) = find_cases(tmp_path).cases
    assert read_label_values(case) == (2, 4)
    assert case.label is not None
    case.label.write_bytes(b"")
    assert read_label_values(case) is None
