"""Files of one case that lie in other orders, a little apart or nowhere: turned, noted, or refused with what helps."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform

from storage import CaseRefusedError, find_cases
from storage.cases.source_case import SourceCase

MODALITIES = ("flair", "t1", "t1ce", "t2")
AFFINE = np.array([[-1.0, 0, 0, 80.5], [0, -1.25, 0, 119], [0, 0, 1.5, -60], [0, 0, 0, 1]])
BARE = np.diag([-1, -1.25, 1.5, 1])
SHAPE = (14, 12, 10)


def shifted(by: float) -> Any:
    affine = AFFINE.copy()
    affine[0, 3] += by
    return affine


def turned(codes: str) -> Callable[[Any], Any]:
    """The image with its axes in another order and direction, its voxels where they were."""

    def turn(image: Any) -> Any:
        whole = nib.Nifti1Image(np.asanyarray(image.dataobj), image.header.get_best_affine())
        return whole.as_reoriented(ornt_transform(nib.io_orientation(whole.affine), axcodes2ornt(codes)))

    return turn


def moved(affine: Any, *, codes: tuple[int, int] = (2, 2)) -> Callable[[Any], Any]:
    """The image with another affine and codes, its voxels as they were."""

    def move(image: Any) -> Any:
        header = image.header.copy()
        header.set_sform(affine, code=codes[0])
        header.set_qform(affine, code=codes[1])
        return nib.Nifti1Image(np.asanyarray(image.dataobj), None, header)  # an affine would be written as the sform

    return move


def two_forms(sform: Any, qform: Any) -> Callable[[Any], Any]:
    def write(image: Any) -> Any:
        other = nib.Nifti1Image(np.asanyarray(image.dataobj), sform)
        other.set_sform(sform, code=1)
        other.set_qform(qform, code=1)
        return other

    return write


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., SourceCase]:
    """Read a case of which some files were changed; `all` changes each."""

    def read_changed(
        changes: dict[str, Any], *, trust_grid: bool = False, shape: tuple[int, ...] = SHAPE
    ) -> SourceCase:
        random = np.random.default_rng(0)
        arrays = {role: np.zeros(shape, np.int16) for role in (*MODALITIES, "seg")}
        for role, array in arrays.items():
            inside = array[2:-2, 2:-2, 2:-2]
            inside[...] = random.integers(1, 3 if role == "seg" else 900, inside.shape)
        (tmp_path / "A").mkdir(exist_ok=True)
        for role, array in arrays.items():
            image = nib.Nifti1Image(array, AFFINE)
            image.set_qform(AFFINE, code=1)
            change = changes.get(role, changes.get("all"))
            nib.save(image if change is None else change(image), tmp_path / "A" / f"A_{role}.nii")
        (case,) = find_cases(tmp_path, trust_grid=trust_grid).cases
        return SourceCase(case, MODALITIES, skull_stripped=True)

    return read_changed


def check_same(found: SourceCase, wanted: SourceCase) -> None:
    assert found.label_DHW is not None and wanted.label_DHW is not None
    for one, other in zip([*found.scans_DHW, found.label_DHW], [*wanted.scans_DHW, wanted.label_DHW], strict=True):
        assert one.any()
        assert (one == other).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"seg": turned("RAS")},
        {"t1": turned("RAS"), "t2": turned("SPL"), "seg": turned("PIR")},
        {"flair": turned("SAR")},
        {"all": turned("ILA"), "t1ce": turned("LPS")},
        {"all": moved(BARE), "t1": lambda image: turned("RAS")(moved(BARE)(image))},
    ],
)
def test_each_file_is_turned_by_its_own_header(read: Callable[..., SourceCase], changes: dict[str, Any]) -> None:
    plain, found = read({}), read(changes)
    check_same(found, plain)
    assert found.notes == ()
    assert (found.affine == nib.load(found.case.files["flair"]).affine).all()  # the first scan's grid is the case's


@pytest.mark.parametrize(
    ("by", "notes"),
    [(0.0005, ()), (0.009, ()), (0.05, ("grids a little apart, taken as one: label by 0.05 mm",))],
)
def test_a_hair_is_nothing_and_less_than_a_voxel_is_said(
    read: Callable[..., SourceCase], by: float, notes: tuple[str, ...]
) -> None:
    found = read({"seg": moved(shifted(by))})
    check_same(found, read({}))
    assert found.notes == notes


@pytest.mark.parametrize(
    ("affine", "codes", "finding", "remedy"),
    [
        (shifted(0.4), (1, 1), "by up to 0.4 mm$", "resample it to the grid of A_flair.nii, or, if only its header"),
        (np.eye(4), (2, 0), "A_seg.nii says no place", "copy the header of A_flair.nii to A_seg.nii"),
        (np.diag([-1.0, -1, 1, 1]), (1, 1), "A_seg.nii says no place", "copy the header of A_flair.nii to A_seg.nii"),
        (np.diag([1, 1.25, 1.5, 1]), (2, 2), "A_seg.nii says no place", "copy the header of A_flair.nii to A_seg.nii"),
        (np.eye(4), (0, 0), "A_seg.nii says no place", "copy the header of A_flair.nii to A_seg.nii"),
    ],
)
def test_a_grid_that_lies_elsewhere_is_refused_and_taken_when_told(
    read: Callable[..., SourceCase], affine: Any, codes: tuple[int, int], finding: str, remedy: str
) -> None:
    changes = {"seg": moved(affine, codes=codes)}
    with pytest.raises(CaseRefusedError) as caught:
        read(changes)
    refusal = caught.value.refusal
    assert refusal.file.endswith("A_seg.nii")
    assert re.search(finding, refusal.finding)
    assert remedy in refusal.remedy
    assert "--trust-grid" in refusal.remedy
    told = read(changes, trust_grid=True)
    check_same(told, read({}))
    assert "voxels taken to lie alike whatever the header says (--trust-grid): label" in told.notes


def test_the_one_scan_that_lies_elsewhere_is_named_though_it_be_the_first(read: Callable[..., SourceCase]) -> None:
    changes = {"flair": moved(np.eye(4))}
    with pytest.raises(CaseRefusedError, match=r"copy the header of A_t1\.nii to A_flair\.nii") as caught:
        read(changes)
    assert caught.value.refusal.file.endswith("A_flair.nii")
    told = read(changes, trust_grid=True)
    check_same(told, read({}))
    assert (told.affine == AFFINE).all()


def test_no_flag_lets_a_file_be_mirrored(read: Callable[..., SourceCase]) -> None:
    mirrored = AFFINE @ np.diag([-1.0, 1, 1, 1])
    with pytest.raises(CaseRefusedError) as caught:
        read({"seg": moved(mirrored)}, trust_grid=True)
    assert "--trust-grid" not in caught.value.refusal.remedy
    assert "copy that of A_flair.nii to it" in caught.value.refusal.remedy


def test_other_shapes_are_refused_told_or_not(read: Callable[..., SourceCase]) -> None:
    def cut(image: Any) -> Any:
        return nib.Nifti1Image(np.asanyarray(image.dataobj)[:-1], image.affine)

    for trust_grid in (False, True):
        with pytest.raises(CaseRefusedError, match=r"shape \(13, 12, 10\), A_flair.nii has \(14, 12, 10\)"):
            read({"t2": cut}, trust_grid=trust_grid)


def test_what_nibabel_assumes_flips_nothing(read: Callable[..., SourceCase]) -> None:
    """A header without codes is read as LAS about the middle, which fits a scan about the middle in LPS: by chance."""
    middle = AFFINE.copy()
    middle[:3, 3] = -middle[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    changes = {"all": moved(middle), "seg": lambda image: _without_codes(image, sides=(1, 1.25, 1.5))}
    with pytest.raises(CaseRefusedError, match=r"A_seg\.nii says no place"):
        read(changes)
    check_same(read(changes, trust_grid=True), read({}))


def _without_codes(image: Any, sides: tuple[float, ...]) -> Any:
    bare = nib.Nifti1Image(np.asanyarray(image.dataobj), None)
    bare.header.set_zooms(sides)
    bare = nib.Nifti1Image(np.asanyarray(image.dataobj), None, bare.header)
    bare.header["qform_code"] = bare.header["sform_code"] = 0
    return bare


def test_a_case_whose_headers_say_no_orientation_is_read_and_it_is_said(read: Callable[..., SourceCase]) -> None:
    found = read({"all": lambda image: _without_codes(image, sides=(1, 1.25, 1.5))})
    assert found.notes == ("no orientation in the header, read as LAS: flair, t1, t1ce, t2, label",)


def test_sform_and_qform_may_differ(read: Callable[..., SourceCase]) -> None:
    """Programs keep one of a header's two: a label lies on the scans where one of each fits."""
    plain, wrong = read({}), np.diag([1.0, 1.25, 1.5, 1])
    both = read({"all": two_forms(AFFINE, wrong)})
    check_same(both, plain)
    assert (both.affine == AFFINE).all()
    (note,) = both.notes
    assert note.startswith("sform and qform differ, the sform is taken: flair by ")
    check_same(read({"all": two_forms(AFFINE, wrong), "seg": moved(wrong)}), plain)
    check_same(read({"seg": two_forms(wrong, AFFINE)}), plain)


def test_an_oblique_quaternion_is_the_matrix_it_was_made_of(read: Callable[..., SourceCase]) -> None:
    cosine, sine = np.cos(0.2), np.sin(0.2)
    oblique = np.eye(4)
    oblique[:3, :3] = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ np.diag([-0.9375, -0.9375, 1.2])
    oblique[:3, 3] = (112.347, 131.88, -71.123)
    found = read({"all": moved(oblique, codes=(0, 1)), "seg": moved(oblique, codes=(1, 0))})
    assert found.notes == ()


def test_a_quaternion_near_half_a_turn_is_taken_for_what_it_was_rounded_from(read: Callable[..., SourceCase]) -> None:
    """Its real part is lost: a thousandth of a radian, half a voxel after 400."""
    nearly = AFFINE.copy()
    nearly[:3, :3] = np.array([[-1, 1.29e-3, 0], [-1.29e-3, -1, 0], [0, 0, 1]])
    by_sform = {role: moved(nearly, codes=(1, 0)) for role in MODALITIES}
    found = read({**by_sform, "seg": moved(nearly, codes=(0, 1))}, shape=(420, 6, 6))
    check_same(found, read(by_sform | {"seg": by_sform["t1"]}, shape=(420, 6, 6)))
    assert found.notes == ("grids a little apart, taken as one: label by 0.541 mm",)
    nearly_there = nearly.copy()
    nearly_there[2, 3] += 0.4  # everywhere, which no rounding does
    with pytest.raises(CaseRefusedError, match="affine differs"):
        read({**by_sform, "seg": moved(nearly_there, codes=(0, 1))}, shape=(420, 6, 6))


def test_scans_that_are_not_skull_stripped_stay_as_they_are(read: Callable[..., SourceCase]) -> None:
    def whole_head(image: Any) -> Any:
        array = np.asanyarray(image.dataobj)
        return nib.Nifti1Image(np.where(array == 0, -7, array).astype(np.int16), image.affine)

    stripped = read({"all": whole_head, "seg": None})
    assert stripped.notes == ("background stored as 0: flair -7, t1 -7, t1ce -7, t2 -7",)
    head = SourceCase(stripped.case, MODALITIES, skull_stripped=False)
    assert head.notes == ()
    assert head.scans_DHW[0].min() == -7
