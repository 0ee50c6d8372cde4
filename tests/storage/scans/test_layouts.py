"""Folders as people have them: who says what a file is, what lies elsewhere, and remedies that work."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from storage import CaseSearch, find_cases
from storage.scans.case import Naming

MODALITIES = ("flair", "t1", "t1ce", "t2")
NEW = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "label": "seg"}


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def ids_of(found: CaseSearch, *, refused: int = 0) -> list[str]:
    """The ids of the cases, which all have a label."""
    assert len(found.refused) == refused, found.refused
    assert all(case.label is not None for case in found.cases)
    return [case.case_id for case in found.cases]


def follow(remedy: str) -> dict[str, str]:
    """The names that a remedy says to give."""
    told = re.search(r"--names (\w+ \w+(?: \w+ \w+)*)", remedy)
    assert told is not None, remedy
    words = told[1].split()
    return dict(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ""])
def test_a_folder_for_each_file_says_what_the_file_is(tmp_path: Path, ending: str) -> None:
    inner = {"flair": "brain_flair", "t1": "brain_t1", "t1ce": "brain_t1ce", "t2": "brain_t2", "label": "final_seg"}
    for number in range(2):
        case_id = f"BraTS-GLI-0000{number}-000"
        for role, name in NEW.items():
            touch(tmp_path / case_id / f"{case_id}-{name}{ending}", f"0000005{number}_{inner[role]}.nii")
    found = find_cases(tmp_path)
    assert ids_of(found) == ["BraTS-GLI-00000-000", "BraTS-GLI-00001-000"]
    assert found.cases[0].naming is Naming.HYPHEN
    assert {role: file.name for role, file in found.cases[1].files.items()} == {
        role: f"00000051_{inner[role]}.nii" for role in MODALITIES
    }


def test_a_folder_for_each_file_with_two_files_is_refused(tmp_path: Path) -> None:
    for role in MODALITIES:
        touch(tmp_path / "A" / f"A_{role}.nii", "scan.nii", *(["scan (1).nii"] if role == "t2" else []))
    (refusal,) = find_cases(tmp_path).refused
    assert refusal.finding == "two files for one thing: scan (1).nii, scan.nii"


def upenn(root: Path, *exams: str) -> None:
    for exam in exams:
        touch(root / "images_structural" / exam, *(f"{exam}_{name}.nii.gz" for name in ("FLAIR", "T1", "T1GD", "T2")))
        touch(root / "images_structural_unstripped" / exam, f"{exam}_T1_unstripped.nii.gz")
        touch(root / "images_DTI" / exam, f"{exam}_DTI_FA.nii.gz")


def test_upenns_segmentations_lie_elsewhere_and_corrected_ones_come_first(tmp_path: Path) -> None:
    exams = ("UPENN-GBM-00001_11", "UPENN-GBM-00001_21", "UPENN-GBM-00002_11")
    upenn(tmp_path, *exams)
    touch(tmp_path / "images_segm", f"{exams[0]}_segm.nii.gz")
    touch(tmp_path / "automated_segm", *(f"{exam}_automated_approx_segm.nii.gz" for exam in (exams[0], exams[1])))
    found = find_cases(tmp_path)
    assert found.refused == () == found.notices
    assert [(case.case_id, case.subject, case.label and case.label.parent.name) for case in found.cases] == [
        (exams[0], "UPENN-GBM-00001", "images_segm"),
        (exams[1], "UPENN-GBM-00001", "automated_segm"),
        (exams[2], "UPENN-GBM-00002", None),
    ]
    assert [case.notes for case in found.cases] == [
        (),
        (f"label is {exams[1]}_automated_approx_segm.nii.gz, as there is no other",),
        (),
    ]


@pytest.mark.parametrize("folder", ["images_segm", "labels", "seg"])
def test_one_segmentation_alone_in_its_folder_is_its_cases(tmp_path: Path, folder: str) -> None:
    upenn(tmp_path, "UPENN-GBM-00001_11")
    touch(tmp_path / folder, "UPENN-GBM-00001_11_segm.nii.gz")
    assert ids_of(find_cases(tmp_path)) == ["UPENN-GBM-00001_11"]


def test_ucsf_names_and_what_is_neither_scan_nor_segmentation(tmp_path: Path) -> None:
    scans = ("T1", "T1_bias", "T1c", "T1c_bias", "T2", "T2_bias", "FLAIR_bias")
    others = ("ADC", "ASL", "SWI", "SWI_bias", "DWI", "DTI_eddy_FA", "DTI_eddy_noreg", "brain_segmentation")
    for case_id in ("UCSF-PDGM-0004", "UCSF-PDGM-0433", "UCSF-PDGM-0433_FU007d"):
        names = (*scans, *others, "brain_parenchyma_segmentation", "tumor_segmentation")
        touch(tmp_path / f"{case_id}_nifti", *(f"{case_id}_{name}.nii.gz" for name in names))
    found = find_cases(tmp_path)
    assert ids_of(found) == ["UCSF-PDGM-0004", "UCSF-PDGM-0433", "UCSF-PDGM-0433_FU007d"]
    assert [case.subject for case in found.cases] == ["UCSF-PDGM-0004", "UCSF-PDGM-0433", "UCSF-PDGM-0433"]
    case = found.cases[2]
    stems = {role: file.name.removesuffix(".nii.gz") for role, file in case.files.items()}
    wanted = {"flair": "FLAIR_bias", "t1": "T1", "t1ce": "T1c", "t2": "T2"}
    assert stems == {role: f"{case.case_id}_{name}" for role, name in wanted.items()}
    assert case.label is not None and case.label.name == f"{case.case_id}_tumor_segmentation.nii.gz"
    assert case.naming is Naming.UNDERSCORE  # as all but one of them: a T1c beside a T1 is no contradiction here
    assert case.notes == (f"flair is {case.case_id}_FLAIR_bias.nii.gz, as there is no other",)
    assert found.notices == ()


def test_two_namings_in_one_case_of_no_task_stay_a_contradiction(tmp_path: Path) -> None:
    touch(tmp_path / "A", "A_t1.nii.gz", "A_t1c.nii.gz", "A_t2.nii.gz", "A_flair.nii.gz")
    (refusal,) = find_cases(tmp_path).refused
    assert "two naming conventions" in refusal.finding


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (("t1/{}.nii.gz", "flair/{}.nii.gz", "t1ce/{}.nii.gz", "t2/{}.nii.gz", "seg/{}.nii.gz"), ("P1", "P2")),
        (("t1/{}.nii.gz", "flair/{}.nii.gz", "t1ce/{}.nii.gz", "t2/{}.nii.gz", "labels/{}.nii.gz"), ("P1",)),
        (("{}/T1/x.nii", "{}/FLAIR/x.nii", "{}/T1Gd/x.nii", "{}/T2/x.nii", "{}/seg/x.nii"), ("P1", "P2")),
        (("{}/t1/a.nii", "{}/flair/b.nii", "{}/t1ce/c.nii", "{}/t2/d.nii", "{}/label/e.nii"), ("P1",)),
        (("{}/T1w/x.nii", "{}/T2-FLAIR/x.nii", "{}/T1-Gd/x.nii", "{}/T2/x.nii", "{}/seg/x.nii"), ("P1", "P2")),
        (("{}/t1n/t1n.nii", "{}/t2f/t2f.nii", "{}/t1c/t1c.nii", "{}/t2w/t2w.nii", "{}/seg/seg.nii"), ("P1", "P2")),
        (("{}/t1/b_t1.nii", "{}/flair/b_flair.nii", "{}/t1ce/b_t1ce.nii", "{}/t2/b_t2.nii", "{}/seg/b.nii"), ("P1",)),
        (("t1/{}_t1.nii", "flair/{}_flair.nii", "t1ce/{}_t1ce.nii", "t2/{}_t2.nii", "seg/{}_seg.nii"), ("P1", "P2")),
        (("in/t1/{}.nii", "in/flair/{}.nii", "in/t1ce/{}.nii", "in/t2/{}.nii", "labelsTr/{}.nii"), ("P1", "P2")),
        (
            ("in/{0}_t1.nii", "in/{0}_flair.nii", "in/{0}_t1ce.nii", "in/{0}_t2.nii", "labels/{0}_manual.nii"),
            ("P1", "P1_later", "P2"),
        ),
        (
            ("in/{0}/{0}_t1.nii", "in/{0}/{0}_flair.nii", "in/{0}/{0}_t1ce.nii", "in/{0}/{0}_t2.nii", "gt/{0}.nii"),
            ("P1",),
        ),
    ],
)
def test_a_folder_for_each_scan(tmp_path: Path, files: Sequence[str], ids: Sequence[str]) -> None:
    for name in (file.format(case_id) for case_id in ids for file in files):
        touch((tmp_path / name).parent, (tmp_path / name).name)
    found = find_cases(tmp_path)
    assert ids_of(found) == list(ids)
    for case in found.cases:
        paths = {role: str(path) for role, path in case.files.items()}
        words = {
            "flair": ("flair", "FLAIR", "t2f"),
            "t1": ("t1/", "T1/", "T1w", "t1n", "_t1."),
            "t2": ("t2/", "T2/", "t2w", "_t2."),
        }
        assert all(any(word in paths[role] for word in words[role]) for role in words), paths


def test_segmentations_by_another_name_are_joined_by_the_flag_that_is_named(tmp_path: Path) -> None:
    for case_id in ("A", "B"):
        touch(tmp_path / "scans" / case_id, *(f"{case_id}_{name}.nii.gz" for name in MODALITIES))
        touch(tmp_path / "truth", f"{case_id}_manual.nii.gz")
    found = find_cases(tmp_path)
    assert [case.label for case in found.cases] == [None, None]
    (refusal,) = found.refused
    assert refusal.file == str(tmp_path / "truth") and "such as A in" in refusal.finding and "--task" in refusal.remedy
    assert ids_of(find_cases(tmp_path, names=follow(refusal.remedy))) == ["A", "B"]


def test_masks_may_be_of_the_brain_and_become_segmentations_where_their_folder_says_so(tmp_path: Path) -> None:
    for case_id in ("A", "B"):
        touch(tmp_path / "scans", *(f"{case_id}_{name}.nii.gz" for name in MODALITIES))
        touch(tmp_path / "masks", f"{case_id}.nii.gz")
        touch(tmp_path / "labels", f"{case_id}_brainmask.nii.gz")
    found = find_cases(tmp_path)
    assert [case.label for case in found.cases] == [None, None]
    (refusal,) = (each for each in found.refused if each.file == str(tmp_path / "masks"))
    assert refusal.remedy == "if these are the segmentations, call their folder labels"
    (tmp_path / "masks").rename(tmp_path / "more").rename(tmp_path / "segmentations")
    found = find_cases(tmp_path)
    assert [case.label and case.label.name for case in found.cases] == ["A.nii.gz", "B.nii.gz"]


def test_segmentations_of_other_ids_are_not_guessed_and_the_way_out_is_their_name(tmp_path: Path) -> None:
    touch(tmp_path / "scans", *(f"pat-001_{name}.nii.gz" for name in MODALITIES))
    touch(tmp_path / "truth", "001_seg.nii.gz")
    (refusal,) = find_cases(tmp_path).refused
    assert "such as pat-001 in" in refusal.finding
    name = re.search(r"such as (\S+)$", refusal.remedy)
    assert name is not None
    (tmp_path / "truth" / "001_seg.nii.gz").rename(tmp_path / "truth" / name[1])
    assert ids_of(find_cases(tmp_path)) == ["pat-001"]


def test_scans_under_several_ids_are_told_where_the_rest_lies(tmp_path: Path) -> None:
    touch(tmp_path / "one", "A_t1.nii.gz", "A_t1ce.nii.gz", "A_seg.nii.gz")
    touch(tmp_path / "two", "sub-A_t2.nii.gz", "sub-A_flair.nii.gz")
    refused = {refusal.case_id: refusal for refusal in find_cases(tmp_path).refused}
    assert f"flair, t2 of sub-A, in {tmp_path / 'two'}" in refused["A"].finding
    assert all("--modalities" not in refusal.remedy for refusal in refused.values())
    for name in ("t2", "flair"):
        (tmp_path / "two" / f"sub-A_{name}.nii.gz").rename(tmp_path / "two" / f"A_{name}.nii.gz")
    assert ids_of(find_cases(tmp_path)) == ["A"]


def test_what_could_be_joined_in_two_ways_is_not(tmp_path: Path) -> None:
    touch(tmp_path / "scans", *(f"{case_id}_{name}.nii.gz" for case_id in ("A", "B") for name in MODALITIES))
    touch(tmp_path / "scans", "B_seg.nii.gz")
    for rater in ("one", "two"):
        touch(tmp_path / rater, "A_seg.nii.gz")
    touch(tmp_path / "old", "B_seg.nii.gz", "B_t1.nii.gz")
    found = find_cases(tmp_path)
    assert [case.case_id for case in found.cases] == ["B"]
    assert found.cases[0].label == tmp_path / "scans" / "B_seg.nii.gz"
    first, second = found.refused
    assert "two files for one thing" in first.finding and str(tmp_path / "two" / "A_seg.nii.gz") in first.finding
    assert (second.case_id, second.file) == ("B", str(tmp_path / "old")) and "missing modalities" in second.finding


def test_scans_in_folders_that_are_called_alike_are_not_of_one_case_but_a_segmentation_is(tmp_path: Path) -> None:
    touch(tmp_path / "one" / "001", "t1.nii.gz", "t1ce.nii.gz")
    touch(tmp_path / "two" / "001", "t2.nii.gz", "flair.nii.gz")
    touch(tmp_path / "one" / "002", *(f"{name}.nii.gz" for name in MODALITIES))
    touch(tmp_path / "truth" / "002", "seg.nii.gz")
    assert ids_of(find_cases(tmp_path), refused=2) == ["002"]


def test_a_segmentation_that_names_a_case_is_never_anothers_whatever_folder_it_lies_in(tmp_path: Path) -> None:
    for own, other in (("BraTS-GLI-00001-000", "BraTS-GLI-00002-000"), ("B", "A"), ("A", "B")):
        touch(tmp_path / own, *(f"{own}_{name}.nii.gz" for name in MODALITIES), f"{other}_seg.nii.gz")
    found = find_cases(tmp_path)
    labels = {case.case_id: str(case.label and case.label.relative_to(tmp_path)) for case in found.cases}  # type: ignore[attr-defined]
    assert labels == {"A": "B/A_seg.nii.gz", "B": "A/B_seg.nii.gz", "BraTS-GLI-00001-000": "None"}
    (refusal,) = found.refused
    assert refusal.case_id == "BraTS-GLI-00002-000" and "segmentations only" in refusal.finding


def test_a_second_segmentation_elsewhere_is_refused_and_its_case_stays(tmp_path: Path) -> None:
    touch(tmp_path / "A", *(f"A_{name}.nii.gz" for name in (*MODALITIES, "seg")))
    touch(tmp_path / "again", "A_seg.nii.gz")
    found = find_cases(tmp_path)
    assert ids_of(found, refused=1) == ["A"]
    assert found.cases[0].label == tmp_path / "A" / "A_seg.nii.gz"
    assert "a second segmentation" in found.refused[0].finding


def test_predictions_below_the_source_are_nobodys_labels(tmp_path: Path) -> None:
    touch(tmp_path / "A", *(f"A_{name}.nii.gz" for name in MODALITIES))
    touch(tmp_path / "predicted", "A_seg.nii.gz", "A_prob.nii.gz", "A_seg.json", "config.json")
    found = find_cases(tmp_path)
    assert found.cases[0].label is None and found.refused == ()
    assert found.notices == (
        f"{tmp_path / 'predicted'} was written by predict.py: its segmentations are nobody's labels",
    )


@pytest.mark.parametrize("between", ["-", "_"])
def test_the_scans_of_a_case_are_those_of_the_task_that_its_id_names(tmp_path: Path, between: str) -> None:
    for case_id in ("BraTS-MEN-RT-0001-1", "BraTS-MEN-RT-0001-2"):
        touch(tmp_path / case_id, *(f"{case_id}{between}{name}.nii.gz" for name in ("t1c", "gtv")))
    touch(tmp_path / "BraTS-MEN-00001-000", "BraTS-MEN-00001-000-t1c.nii.gz")
    found = find_cases(tmp_path)
    assert ids_of(found, refused=1) == ["BraTS-MEN-RT-0001-1", "BraTS-MEN-RT-0001-2"]
    assert [(tuple(case.files), case.subject) for case in found.cases] == [(("t1ce",), "BraTS-MEN-RT-0001")] * 2
    assert found.refused[0].case_id == "BraTS-MEN-00001-000"
    assert find_cases(tmp_path, modalities=("t1ce",)).cases[0].case_id == "BraTS-MEN-00001-000"
    assert find_cases(tmp_path, modalities=MODALITIES).cases == ()


def test_ids_that_go_on_where_another_ends_are_a_notice(tmp_path: Path) -> None:
    for case_id in ("P7", "P7_later", "P70", "BraTS-GLI-00005-100", "BraTS-GLI-00005-101"):
        touch(tmp_path / case_id, *(f"{case_id}_{name}.nii.gz" for name in MODALITIES))
    (notice,) = find_cases(tmp_path).notices
    assert notice.startswith("1 case id goes on") and "such as P7 and P7_later," in notice and "--subjects" in notice
    assert find_cases(tmp_path, subjects={"P7_later": "P7"}).notices == ()
