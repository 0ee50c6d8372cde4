"""Which label convention a cohort uses, from its file names and the union of its labels; refused when ambiguous.

Values 1 and 2 mean the same in every BraTS convention; what 3 and 4 mean is what has to be told apart:
    names of 2018-2021, labels within {1, 2, 4}         brats-124
    names of 2023 on, labels within {1, 2, 3}           brats-123
    BraTS-GLI-* names of 2023 on, both 3 and 4          gli-2024 (4 is the resection cavity)
    a decathlon's dataset.json                          msd
Anything else could be read in two ways (a 4 rewritten as 3, nnU-Net's swapped 1 and 2, BraTS 2013), so the user says.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from storage.case import Case, Naming
from storage.errors import InputError
from storage.labels import BRATS_123, BRATS_124, CONVENTIONS, GLI_2024, MSD, LabelConvention
from storage.nifti import NiftiError, as_labels, read_volume

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
    """The cohort's convention. Raises InputError with the flag to set when it cannot be told.

    Values that no convention has are not counted, since the case that holds them will be refused.
    """
    namings = {case.naming for case in cases}
    if len(namings) != 1:
        found = " and ".join(sorted(naming.value for naming in namings)) or "no case"
        raise InputError(f"wanted one naming convention to tell the labels by, found {found}; {_FLAG}")
    naming = namings.pop()
    if naming is Naming.MSD:
        return MSD
    if naming is Naming.TOLD:
        raise InputError(f"labels of files with other than BraTS names cannot be told; {_FLAG}")
    with_value = {
        value: [case_id for case_id, values in sorted(values_by_case.items()) if values and value in values]
        for value in (3, 4)
    }
    has_3, has_4 = bool(with_value[3]), bool(with_value[4])
    if naming is Naming.UNDERSCORE and not has_3:
        return BRATS_124
    if naming is Naming.HYPHEN and not has_4:
        return BRATS_123
    all_glioma = all(case.case_id.upper().startswith("BRATS-GLI-") for case in cases)
    if naming is Naming.HYPHEN and has_3 and all_glioma:
        return GLI_2024
    seen = "; ".join(
        f"{value} in {len(case_ids)} cases, such as {case_ids[0]}" for value, case_ids in with_value.items() if case_ids
    )
    raise InputError(f"cannot tell what the labels mean under the names of {naming.value} ({seen}); {_FLAG}")
