"""What the labels of a dataset.json are called, and what is not read because it could be two things."""

from typing import Any

import pytest

from storage.labels.conventions import BRATS_123, GLI_2024, GTV, PED_2024
from storage.scans.label_names import UnclearLabelsError, convention_by_names

EDEMA_FIRST = {0: 0, 1: 2, 2: 1, 3: 3}
CHILDREN = ("BraTS-PED-00001-000",)


@pytest.mark.parametrize(
    ("labels", "meant"),
    [
        ({"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}, EDEMA_FIRST),
        ({"background": 0, "Peritumoural oedema": 1, "NCR/NET": 2, "ET": 3}, EDEMA_FIRST),
        ({"background": 0, "ED": 2, "NCR": 1, "GD-enhancing tumor": 3, "ignore": 4}, BRATS_123.stored_by_source),
        (
            {
                "0": "",
                "1": "Necrotic and non-enhancing tumor core",
                "2": "the peritumoral edematous/invaded tissue",
                "3": "AT: active tumor",
            },
            BRATS_123.stored_by_source,
        ),
        (
            {
                "background": 0,
                "NETC": 1,
                "SNFH": 2,
                "ET": 3,
                "RC": 4,
            },
            GLI_2024.stored_by_source,
        ),
        (
            {
                "background": 0,
                "nonenhancing tumor core": [1],
                "surrounding non-enhancing FLAIR hyperintensity": [2],
                "enhancing tissue": [3],
                "resection cavity": [4],
            },
            GLI_2024.stored_by_source,
        ),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}, EDEMA_FIRST),
        ({"background": 0, "WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}, {0: 0, 1: 1, 2: 2, 4: 3}),
        (
            {
                "background": 0,
                "WT": [1, 2, 3],
                "TC": [1, 3],
                "ET": 3,
                "NETC": 1,
                "SNFH": 2,
                "RC": 4,
            },
            GLI_2024.stored_by_source,
        ),
        ({"background": 0, "ET": 1, "NET": 2, "CC": 3, "ED": 4}, PED_2024.stored_by_source),
        (
            {
                "background": 0,
                "WT": [1, 2, 3, 4],
                "TC": [1, 2, 3],
                "ET": 1,
                "Nonenhancing": 2,
                "cyst": 3,
            },
            PED_2024.stored_by_source,
        ),
        (
            {
                "0": "background",
                "1": "necrosis",
                "2": "edema",
                "3": "non-enhancing",
                "4": "enhancing",
            },
            {0: 0, 1: 1, 2: 2, 3: 1, 4: 3},
        ),
        ({"background": 0, "gross tumor volume": 1}, GTV.stored_by_source),
        ({"background": 0, "WholeTumor": [1, 2, 3], "TumorCore": [2, 3], "EnhancingTumor": 3}, EDEMA_FIRST),
        ({"background": 0, "peritumoral_edema": 1, "nonenhancing_tumor": 2, "enhancing_core": 3}, EDEMA_FIRST),
    ],
)
def test_tissues_and_regions_by_their_names(labels: dict[str, Any], meant: dict[int, int]) -> None:
    convention = convention_by_names({"labels": labels}, [])
    assert dict(sorted(convention.stored_by_source.items())) == meant
    assert convention.name == "custom-" + ",".join(f"{value}:{label}" for value, label in meant.items() if value)


@pytest.mark.parametrize(
    ("labels", "case_ids", "words"),
    [
        (None, (), "no label is listed"),
        ({"background": 0}, (), "no label is listed"),
        ({"background": 0, "tumor": 1}, (), "1 is called 'tumor', which is no tissue"),
        ({"background": 0, "edema and necrosis": 1}, (), "no tissue by its name"),
        ({"background": 0, "core without enhancing": 1}, (), "no tissue by its name"),
        ({"background": 0, "edema": [1], "enhancing": [1]}, (), "1 is called two things"),
        ({"background": 0, "edema": "?"}, (), "no label with a value"),
        ({"background": 0, "whole tumor": [1, 2, 3], "enhancing tumor": [3]}, (), "of 1, 2 only the regions are told"),
        ({"background": 0, "WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": 4}, (), "of 1, 3 only the regions are told"),
        ({"background": 0, "whole tumor": 1}, (), "of 1 only the regions"),
        ({"background": 0, "WT": [1, 2], "TC": 2}, (), "2 is the whole core, enhancing or not"),
        ({"background": 0, "WT": [1, 2, 3], "TC": [1, 2], "ET": 3}, (), "3 is called enhancing, and the values of TC"),
        ({"background": 0, "whole tumor": 1, "tumor core": 2, "enhancing": 3}, (), "3 is called enhancing"),
        ({"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3}, CHILDREN, "in BraTS-PED 2024"),
        ({"background": 0, "NET": 1, "ED": 2, "ET": 3}, CHILDREN, "in BraTS-PED 2024"),
    ],
)
def test_what_could_be_two_things_is_not_read(labels: Any, case_ids: tuple[str, ...], words: str) -> None:
    with pytest.raises(UnclearLabelsError, match=words):
        convention_by_names({"labels": labels}, case_ids)
