"""Which label convention a cohort uses, from its file names and the union of its labels; refused when ambiguous.

Values 1 and 2 mean the same in every BraTS convention; what 3 and 4 mean is what has to be told apart:
    names of 2018-2021, labels within {1, 2, 4}         brats-124
    names of 2023 on, labels within {1, 2, 3}           brats-123
    BraTS-GLI-* names of 2023 on, both 3 and 4          gli-2024 (4 is the resection cavity)
    a decathlon's dataset.json                          msd
Anything else could be read in two ways (a 4 rewritten as 3, nnU-Net's swapped 1 and 2, BraTS 2013), so the user says.

One odd file does not stop a cohort: where 3 and 4 are never in one case and one of them is in nine cases for each that
has the other, the many decide, and the few are refused by name, as their value is none of that convention. Nothing is
mislabelled by it: 1 and 2 mean the same in every BraTS year, and the odd value is never read. Gliomas in names of 2023
on are left out, since there a case may well hold the cavity (4) and no enhancing tumour (3).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from storage.errors import UnknownLabelsError
from storage.labels.conventions import BRATS_123, BRATS_124, CONVENTIONS, GLI_2024, MSD, LabelConvention
from storage.scans.case import Case, Naming
from storage.scans.nifti import NiftiError, as_labels, read_volume

# So many cases with the usual value for each with the odd one: the odd ones are at most a tenth of both.
_USUAL_FOR_EACH_ODD = 9
_FLAG = (
    f"say which with --label-convention ({', '.join(CONVENTIONS)}) or --label-map "
    f"(source value, stored label, …: 1 1 2 2 4 3)"
)


def read_label_values(case: Case) -> tuple[int, ...] | None:
    """The distinct non-zero values of a case's segmentation; None when there is none or it cannot be read.

    Unreadable files are no evidence here: the conversion refuses their case and says why.
    """
    if case.label is None:
        return None
    try:
        labels = as_labels(read_volume(case.label).array)
    except NiftiError:
        return None
    counts = np.bincount(labels.ravel(order="K"), minlength=1)
    return tuple(int(value) for value in np.flatnonzero(counts) if value != 0)


def detect_convention(cases: Sequence[Case], values_by_case: Mapping[str, Sequence[int] | None]) -> LabelConvention:
    """The cohort's convention. Raises UnknownLabelsError with the flag to set when it cannot be told.

    Cases with values outside of it, which may be a few, are to be refused; values that no convention has count nothing.
    """
    namings = {case.naming for case in cases}
    if len(namings) != 1:
        found = " and ".join(sorted(naming.value for naming in namings)) or "no case"
        raise UnknownLabelsError(f"wanted one naming convention to tell the labels by, found {found}", _FLAG)
    naming = namings.pop()
    if naming is Naming.MSD:
        return MSD
    if naming is Naming.TOLD:
        raise UnknownLabelsError("labels of files with other than BraTS names cannot be told", _FLAG)
    with_value = {
        value: [case_id for case_id, values in sorted(values_by_case.items()) if values and value in values]
        for value in (3, 4)
    }
    if naming is Naming.UNDERSCORE and _are_few(with_value[3], beside=with_value[4]):
        return BRATS_124
    all_glioma = all(case.case_id.upper().startswith("BRATS-GLI-") for case in cases)
    if naming is Naming.HYPHEN and all_glioma and with_value[3] and with_value[4]:
        return GLI_2024
    if naming is Naming.HYPHEN and _are_few(with_value[4], beside=with_value[3]):
        return BRATS_123
    seen = "; ".join(
        f"{value} in {len(case_ids)} {'case' if len(case_ids) == 1 else 'cases'}, such as {case_ids[0]}"
        for value, case_ids in with_value.items()
        if case_ids
    )
    raise UnknownLabelsError(f"cannot tell what the labels mean under the names of {naming.value} ({seen})", _FLAG)


def _are_few(odd: Sequence[str], *, beside: Sequence[str]) -> bool:
    """Whether the cases with an odd value are none, or so few, beside those with the usual one, that they are wrong."""
    return not set(odd) & set(beside) and len(odd) * _USUAL_FOR_EACH_ODD <= len(beside)
