"""Segmentations found by the names of their cases, and predictions with their labels."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from storage.scans.listing import list_folder
from storage.scans.segmentations import Segmentations, Side, find_segmentations, pair_by_name

ID, OTHER = "BraTS-GLI-00057-001", "BraTS-GLI-00057-000"


def found(folder: Path, files: Sequence[str], side: Side) -> dict[str, list[str]]:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    files_of = find_segmentations(list_folder(folder), side).files
    return {
        case: [Path(str(file)).relative_to(folder).as_posix() for file in named] for case, named in files_of.items()
    }


@pytest.mark.parametrize(
    ("files", "side", "cases"),
    [
        ([f"{ID}/{ID}-seg.nii.gz", f"{ID}/{ID}-t1c.nii.gz", f"{ID}/{ID}-t2f.nii.gz"], "label", [ID]),
        ([f"{ID}_seg.nii.gz", f"{ID}_prob.nii.gz", "config.json", f"{ID}_seg.json"], "prediction", [ID]),
        ([f"{ID}.nii.gz", f"{OTHER}.nii", ".hidden.nii.gz", "notes.txt"], "prediction", [OTHER, ID]),
        ([f"{ID}/seg.nii.gz", f"{OTHER}/prediction.nii.gz"], "prediction", [OTHER, ID]),
        ([f"{ID}_seg.nii.gz", f"{OTHER}.nii.gz"], "prediction", [ID, OTHER]),
        ([f"{ID}_seg.nii.gz", f"{OTHER}.nii.gz", f"{OTHER}-t1n.nii.gz"], "prediction", [ID]),  # scans lie about
        (["x_label.nii.gz", "y_mask.nii.gz"], "prediction", ["y"]),
        (["x_label.nii.gz"], "prediction", ["x"]),  # where there is nothing else at all
        (["BraTS20_Training_355/W39_1998.09.19_Segm.nii"], "label", ["BraTS20_Training_355"]),
        (["case_7_pred.nii.gz", "case_7_truth.nii.gz"], "prediction", ["case_7"]),
        (["case_7_pred.nii.gz", "case_7_truth.nii.gz"], "label", ["case_7"]),
        (["BraTS-MEN-RT-0001-1_gtv.nii.gz", "BraTS-MEN-RT-0001-1_t1c.nii.gz"], "label", ["BraTS-MEN-RT-0001-1"]),
        ([f"{ID}_seg_ensemble.nii.gz"], "prediction", [ID]),
        ([f"{ID}-t1c.nii.gz"], "prediction", []),
    ],
)
def test_the_name_says_which_files_are_segmentations(
    files: Sequence[str], side: Side, cases: Sequence[str], tmp_path: Path
) -> None:
    assert list(found(tmp_path, files, side)) == cases


def test_two_files_of_a_name_are_both_there(tmp_path: Path) -> None:
    files = [f"one/{ID}_seg.nii.gz", f"two/{ID}_seg.nii.gz"]
    assert found(tmp_path, files, "label") == {ID: files}


@pytest.mark.parametrize(
    ("prediction", "labels", "label"),
    [
        (ID, [ID, OTHER], ID),
        (ID.lower(), [ID, OTHER], ID),
        (f"team_{ID}_v2", [ID, OTHER], ID),
        ("00057-001", [ID, OTHER], ID),
        ("case-1", ["case-1", "case-1-b"], "case-1"),
        ("x-case-1-b", ["case-1", "case-1-b"], "case-1-b"),  # the longer one
    ],
)
def test_a_prediction_is_of_the_label_of_its_name(prediction: str, labels: list[str], label: str) -> None:
    file = Path("p.nii.gz")
    matched = pair_by_name(Segmentations(files={prediction: [file]}), labels)
    assert matched.pairs == {label: file}
    assert matched.inexact == ({} if prediction.lower() == label.lower() else {label: prediction})
    assert [str(each) for each in matched.refused] == [
        f"{each}: no prediction has its name; call each prediction like its case" for each in labels if each != label
    ]


@pytest.mark.parametrize(
    ("predictions", "labels", "said"),
    [
        (["00057"], [ID, OTHER], f"00057 (p0.nii.gz): its name fits several labels: {OTHER}, {ID}"),
        (["BraTS-GLI-1"], ["BraTS-GLI-11"], "BraTS-GLI-1 (p0.nii.gz): none of 1 labels has its name"),
        ([f"a-{ID}", f"{ID}-b"], [ID], f"{ID}: 2 predictions have its name: p0.nii.gz, p1.nii.gz; keep one of them"),
        (["UCSF-PDGM-0431_FU001d"], ["UCSF-PDGM-0431"], "UCSF-PDGM-0431_FU001d (p0.nii.gz): none of 1 labels has its"),
        (["fold_1"], ["1"], "fold_1 (p0.nii.gz): none of 1 labels has its name"),
    ],
)
def test_what_has_no_partner_or_two_is_told(predictions: list[str], labels: list[str], said: str) -> None:
    files = {name: [Path(f"p{number}.nii.gz")] for number, name in enumerate(predictions)}
    matched = pair_by_name(Segmentations(files=files), labels)
    assert matched.pairs == {}
    assert any(str(each).startswith(said) for each in matched.refused), [str(each) for each in matched.refused]


def test_the_exact_name_is_taken_and_what_holds_it_told() -> None:
    files = {name: [Path(f"{name}.nii.gz")] for name in (ID, f"{ID}_unc_whole")}
    matched = pair_by_name(Segmentations(files=files), [ID])
    assert matched.pairs == {ID: Path(f"{ID}.nii.gz")} and matched.inexact == {}
    (told,) = matched.refused
    assert str(told).startswith(f"{ID}_unc_whole ({ID}_unc_whole.nii.gz): its name holds that of {ID}, which has a")


def test_a_file_that_was_passed_over_is_named(tmp_path: Path) -> None:
    for name in (f"{OTHER}_pred.nii.gz", f"{ID}.nii.gz", f"{ID}-t1c.nii.gz"):
        (tmp_path / name).touch()
    matched = pair_by_name(find_segmentations(list_folder(tmp_path), "prediction"), [ID, OTHER])
    assert list(matched.pairs) == [OTHER]
    (told,) = matched.refused
    assert f"no prediction has its name; {tmp_path}/{ID}.nii.gz was passed over" in str(told)
