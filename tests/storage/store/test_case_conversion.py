"""A converted case, put back into its source's grid, equals the source voxel for voxel; bad cases leave nothing."""

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import zarr
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from storage import CaseInfo, CaseRefusedError, CohortStore, convert_case, create_store, find_cases, open_store
from storage.cases.grid import box_slices, scan_to_source
from storage.labels.conventions import BRATS_123, BRATS_2013, CONVENTIONS, MSD, LabelConvention
from storage.labels.tasks import MSD_TASK

MODALITIES = ("flair", "t1", "t1ce", "t2")
ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(("LR", "PA", "SI")) for codes in itertools.product(*axes)
]


def to_source(array_DHW: np.ndarray, info: CaseInfo) -> np.ndarray:
    """A stored-grid array back in the source's full grid and axis order, 0 outside the stored box."""
    full_DHW = np.zeros(info.original_shape, dtype=array_DHW.dtype)
    full_DHW[box_slices(info.bbox)] = array_DHW
    return scan_to_source(full_DHW, info)


def check_against_source(store: CohortStore, case_id: str, folder: Path) -> CaseInfo:
    """Compare all voxels with what nibabel reads, both ways round."""
    info = store.info(case_id)
    (case,) = (case for case in find_cases(folder, modalities=info.modalities).cases if case.case_id == case_id)
    image_MDHW, label_DHW = store.read_case(case_id)
    for modality_DHW, modality in zip(image_MDHW, info.modalities, strict=True):
        source = nib.load(case.files[modality])
        assert (to_source(modality_DHW, info) == np.asanyarray(source.dataobj)).all()
        assert (np.asarray(info.source_affine) == source.affine).all()
        turned = source.as_reoriented(ornt_transform(nib.io_orientation(source.affine), axcodes2ornt("LPS")))
        assert np.allclose(turned.affine, info.affine)
        full_DHW = np.zeros(info.original_shape, dtype=modality_DHW.dtype)
        full_DHW[box_slices(info.bbox)] = modality_DHW
        assert (full_DHW == np.asanyarray(turned.dataobj).T).all()
    if case.label is not None and label_DHW is not None and not info.label_lossy:
        back = CONVENTIONS[info.label_convention].to_source(label_DHW)
        assert (to_source(back, info) == np.asanyarray(nib.load(case.label).dataobj)).all()
    return info


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_comes_back(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore], orientation: str
) -> None:
    lps = np.array([[-0.9, 0.1, 0, 3], [0, -1.2, 0.05, 200], [0.02, 0, 2.5, -7], [0, 0, 0, 1]])
    transform = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(orientation))
    # The header of an array whose axes were permuted and flipped to `orientation`.
    affine = lps @ inv_ornt_aff(transform, (22, 20, 18))
    assert "".join(nib.aff2axcodes(affine)) == orientation
    case_writer(affine=affine, extension=".nii").write(tmp_path / "in", "A")
    store = convert_folder(tmp_path / "in")
    info = check_against_source(store, "A", tmp_path / "in")
    assert info.source_orientation == orientation
    assert info.orientation == "LPS"


def test_the_record_says_what_a_reader_needs(small_source: Path, small_store: CohortStore) -> None:
    case_id = small_store.case_ids[0]
    info = check_against_source(small_store, case_id, small_source)
    image_MDHW, label_DHW = small_store.read_case(case_id)
    assert image_MDHW.dtype == np.int16
    assert label_DHW is not None and label_DHW.dtype == np.uint8
    assert info.modalities == MODALITIES
    assert info.shape == image_MDHW.shape[1:]
    assert all(side < full for side, full in zip(info.shape, info.original_shape, strict=True))
    brain = (image_MDHW != 0).any(axis=0)
    for index in range(4):
        values = image_MDHW[index][brain]
        assert info.mean[index] == pytest.approx(values.mean())
        assert info.std[index] == pytest.approx(values.std())
        assert (info.minimum[index], info.maximum[index]) == (values.min(), values.max())
        for percentage, column in info.percentiles.items():
            assert column[index] == np.percentile(values, float(percentage), method="inverted_cdf")
    for role, source in info.sources.items():
        path = small_source / case_id / source.name
        assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest(), role
    assert info.region_voxels == {
        "WT": int((label_DHW > 0).sum()),
        "TC": int(np.isin(label_DHW, (1, 3)).sum()),
        "ET": int((label_DHW == 3).sum()),
    }


def test_the_box_is_the_smallest_that_holds_brain_and_label(small_store: CohortStore) -> None:
    for case_id in small_store.case_ids:
        image_MDHW, label_DHW = small_store.read_case(case_id)
        assert label_DHW is not None
        mask = (image_MDHW != 0).any(axis=0) | (label_DHW != 0)
        for axis in range(3):
            sides = mask.any(axis=tuple(other for other in range(3) if other != axis))
            assert sides[0] and sides[-1]


def test_a_labelled_voxel_outside_the_brain_is_kept(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    writer = case_writer()
    paths = writer.write(tmp_path / "in", "A")
    label = np.asanyarray(nib.load(paths["label"]).dataobj).copy()
    label[-1, -1, -1] = 4
    writer.save(paths["label"], label)
    check_against_source(convert_folder(tmp_path / "in"), "A", tmp_path / "in")


def test_foreground_samples_are_voxels_of_their_region(small_store: CohortStore) -> None:
    case_id = small_store.case_ids[1]
    label_DHW = small_store.read_case(case_id).label_DHW
    assert label_DHW is not None
    samples = small_store.foreground(case_id)
    for region, labels in {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}.items():
        inside = {tuple(voxel) for voxel in np.argwhere(np.isin(label_DHW, labels)).tolist()}
        assert {tuple(voxel) for voxel in samples[region].tolist()} == inside
        assert samples[region].dtype == np.int32


def test_whole_numbered_float64_becomes_int16_and_other_floats_stay(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    case_writer(dtype=np.float64).write(tmp_path / "in", "A")
    writer = case_writer()
    paths = writer.write(tmp_path / "in", "B")
    scaled = np.asanyarray(nib.load(paths["t2"]).dataobj) / np.float32(7)
    writer.save(paths["t2"], scaled.astype(np.float32))
    store = convert_folder(tmp_path / "in")
    assert store.read_case("A").image_MDHW.dtype == np.int16
    assert store.read_case("B").image_MDHW.dtype == np.float32
    for case_id in ("A", "B"):
        check_against_source(store, case_id, tmp_path / "in")


def test_negative_zero_in_an_affine_is_zero(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    writer = case_writer()
    paths = writer.write(tmp_path / "in", "A")
    affine = writer.affine.copy()
    affine[affine == 0] = -0.0
    writer.save(paths["t2"], np.asanyarray(nib.load(paths["t2"]).dataobj).copy(), affine)
    assert convert_folder(tmp_path / "in").case_ids == ("A",)


def test_an_unlabelled_case_has_no_label_and_no_foreground(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    case_writer(roles=MODALITIES).write(tmp_path / "in", "A")
    store = convert_folder(tmp_path / "in")
    assert not store.info("A").labelled
    assert store.read_case("A").label_DHW is None
    assert store.read_patch("A", (0, 0, 0), (4, 4, 4)).label_DHW is None


def test_a_label_without_a_tumour_is_a_label(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    case_writer(label_values=()).write(tmp_path / "in", "A")
    store = convert_folder(tmp_path / "in")
    label_DHW = store.read_case("A").label_DHW
    assert label_DHW is not None
    assert not label_DHW.any()
    assert {region: len(voxels) for region, voxels in store.foreground("A").items()} == {"WT": 0, "TC": 0, "ET": 0}
    check_against_source(store, "A", tmp_path / "in")


def test_fewer_modalities(tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]) -> None:
    case_writer(roles=("flair", "t1ce", "label")).write(tmp_path / "in", "A")
    store = convert_folder(tmp_path / "in", modalities=("t1ce", "flair"))
    info = check_against_source(store, "A", tmp_path / "in")
    assert info.modalities == ("t1ce", "flair")


def test_a_lossy_label_map_is_recorded(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    case_writer(label_values=(1, 2, 3, 4)).write(tmp_path / "in", "A")
    store = convert_folder(tmp_path / "in", convention=BRATS_2013)
    assert store.info("A").label_lossy
    assert set(np.unique(store.read_case("A").label_DHW)) == {0, 1, 2, 3}


def test_a_decathlon_case_from_one_4d_file(tmp_path: Path, case_writer: type[Any]) -> None:
    folder = tmp_path / "Task01_BrainTumour"
    writer = case_writer(label_values=(1, 2, 3))
    arrays = writer.arrays(seed=0)
    image = np.stack([arrays[name] for name in MODALITIES], axis=3)
    writer.save(folder / "imagesTr" / "BRATS_001.nii.gz", image)
    writer.save(folder / "labelsTr" / "BRATS_001.nii.gz", arrays["label"])
    (folder / "dataset.json").write_text(
        '{"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, "labels":'
        ' {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}}'
    )
    search = find_cases(folder)
    store = create_store(tmp_path / "store", task=MSD_TASK)
    info = convert_case(search.cases[0], store)
    store.rebuild_index()
    image_MDHW, label_DHW = store.read_case("BRATS_001")
    for index in range(4):
        assert (to_source(image_MDHW[index], info) == image[..., index]).all()
    assert label_DHW is not None
    assert (MSD.to_source(to_source(label_DHW, info)) == arrays["label"]).all()


def change_label(value: int) -> Callable[[Any, dict[str, Path]], None]:
    def change(writer: Any, paths: dict[str, Path]) -> None:
        label = np.zeros(writer.shape_XYZ, dtype=np.uint8)
        label[5, 5, 5] = value
        writer.save(paths["label"], label)

    return change


def change_shape(writer: Any, paths: dict[str, Path]) -> None:
    writer.save(paths["t1ce"], np.ones((22, 18, 20), dtype=np.int16))


def change_affine(writer: Any, paths: dict[str, Path]) -> None:
    affine = writer.affine.copy()
    affine[1, 3] += 1.5
    writer.save(paths["t2"], np.ones(writer.shape_XYZ, dtype=np.int16), affine)


def empty_all(writer: Any, paths: dict[str, Path]) -> None:
    for role in MODALITIES:
        writer.save(paths[role], np.zeros(writer.shape_XYZ, dtype=np.int16))


def empty_one(writer: Any, paths: dict[str, Path]) -> None:
    writer.save(paths["t2"], np.zeros(writer.shape_XYZ, dtype=np.int16))


def put_nan(writer: Any, paths: dict[str, Path]) -> None:
    writer.save(paths["t1"], np.full(writer.shape_XYZ, np.nan, dtype=np.float32))


def scale(factor: float) -> Callable[[Any, dict[str, Path]], None]:
    def change(writer: Any, paths: dict[str, Path]) -> None:
        writer.save(paths["flair"], np.asanyarray(nib.load(paths["flair"]).dataobj) * factor)

    return change


def fill(role: str, value: int) -> Callable[[Any, dict[str, Path]], None]:
    def change(writer: Any, paths: dict[str, Path]) -> None:
        writer.save(paths[role], np.full(writer.shape_XYZ, value, dtype=np.int16))

    return change


@pytest.mark.parametrize(
    ("change", "file", "finding", "remedy"),
    [
        (change_shape, "_t1ce", r"shape \(22, 18, 20\), A_flair.nii.gz has \(22, 20, 18\)", "resample"),
        (change_affine, "_t2", "affine differs from that of A_flair.nii.gz by up to 1.5 mm", "resample"),
        (empty_all, "_flair", "empty brain", "export"),
        (empty_one, "_t2", "every voxel of t2 is 0", "export"),
        (put_nan, "_t1", "NaN", "repair"),
        (change_label(3), "_seg", r"\[3\] are outside the convention brats-124", "--task"),
        (change_label(255), "_seg", r"\[255\] are outside", "--label-map 1 1 2 2 4 3 255 0 where it means background"),
        (scale(1e300), "_flair", "its largest number is .*e\\+30", "scale the scan"),
        (scale(1e-300), "_flair", "its largest number is .*e-29", "scale the scan"),
        (fill("t2", 7), "_t2", "every voxel of t2 is 0, or what its background is", "leave it out of --modalities"),
        (lambda writer, paths: paths["t1"].write_bytes(b""), "_t1", "zero bytes", "again"),
        (lambda writer, paths: paths["label"].unlink(), "_seg", "cannot be read", "again"),
    ],
)
def test_a_bad_case_is_refused_by_file_finding_and_remedy_and_leaves_nothing(
    tmp_path: Path, case_writer: type[Any], change: Any, file: str, finding: str, remedy: str
) -> None:
    writer = case_writer()
    paths = writer.write(tmp_path / "in", "A")
    (case,) = find_cases(tmp_path / "in").cases
    change(writer, paths)
    store = create_store(tmp_path / "store")
    with pytest.raises(CaseRefusedError, match=finding) as caught:
        convert_case(case, store)
    assert caught.value.refusal.file.endswith(f"A{file}.nii.gz")
    assert remedy in caught.value.refusal.remedy
    assert sorted(path.name for path in (tmp_path / "store" / "cases").iterdir()) == ["zarr.json"]


def test_a_value_that_is_told_to_be_background_is(tmp_path: Path, case_writer: type[Any]) -> None:
    writer = case_writer()
    paths = writer.write(tmp_path / "in", "A")
    change_label(255)(writer, paths)
    (case,) = find_cases(tmp_path / "in").cases
    told = LabelConvention(name="told", stored_by_source={0: 0, 1: 1, 2: 2, 4: 3, 255: 0})
    info = convert_case(case, create_store(tmp_path / "store", convention=told))
    assert info.labelled
    assert set(info.region_voxels.values()) == {0}


def test_scans_that_were_normalised_before_are_stored_with_their_brain(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    writer = case_writer()
    paths = writer.write(tmp_path / "in", "A")
    plain = convert_folder(tmp_path / "in", store=tmp_path / "plain").info("A")
    for index, role in enumerate(MODALITIES):
        scan = np.asanyarray(nib.load(paths[role]).dataobj)
        scaled = (scan - plain.mean[index]) / plain.std[index]
        writer.save(paths[role], np.where(scan == 0, -1024, scan) if role == "t2" else scaled.astype(np.float32))
    info = convert_folder(tmp_path / "in").info("A")
    assert (info.bbox, info.brain_voxels, info.region_voxels) == (plain.bbox, plain.brain_voxels, plain.region_voxels)
    assert info.mean[:3] == pytest.approx((0, 0, 0), abs=1e-5)
    assert info.std[:3] == pytest.approx((1, 1, 1), abs=1e-5)
    assert (info.mean[3], info.std[3]) == (plain.mean[3], plain.std[3])
    (note,) = info.notes
    assert note.startswith("background stored as 0: flair -")
    assert note.endswith(", t2 -1024")


def test_a_scan_of_one_value_is_noted(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    writer = case_writer()
    paths = writer.write(tmp_path / "in", "A")
    brain = np.asanyarray(nib.load(paths["flair"]).dataobj) > 0
    writer.save(paths["t1ce"], np.where(brain, 100, 0).astype(np.int16))
    for role in ("t1", "t2"):
        writer.save(paths[role], np.where(brain, 1, 0).astype(np.int16) * np.arange(1, 19, dtype=np.int16))
    info = convert_folder(tmp_path / "in").info("A")
    assert info.notes == ("one value all over the brain, of which a network learns nothing: t1ce 100",)


def test_any_zarr_reader_finds_its_way(small_store: CohortStore) -> None:
    group = zarr.open_group(small_store.uri, mode="r")
    case_id = small_store.case_ids[0]
    case = group["cases"][case_id]  # type: ignore[index]
    assert case.attrs["modalities"] == list(MODALITIES)
    (z0, z1), (y0, y1), (x0, x1) = case.attrs["bbox"]
    assert case["image"].shape == (4, z1 - z0, y1 - y0, x1 - x0)
    assert case["image"].metadata.dimension_names == ("modality", "z", "y", "x")
    assert case["label"].dtype == np.uint8
    assert (case["image"][...] == small_store.read_case(case_id).image_MDHW).all()
    assert [codec.to_dict()["name"] for codec in case["image"].compressors] == ["blosc", "crc32c"]


def test_a_case_without_its_commit_record_does_not_exist(small_store: CohortStore) -> None:
    case_id = small_store.case_ids[0]
    (Path(small_store.uri) / "cases" / case_id / "zarr.json").unlink()
    with pytest.raises(KeyError):
        zarr.open_group(small_store.uri, mode="r")[f"cases/{case_id}"]
    small_store.rebuild_index()
    assert case_id not in open_store(small_store.uri).case_ids


@pytest.mark.slow
def test_the_real_cases_come_back_voxel_for_voxel(tmp_path: Path, real_cases: Path) -> None:
    store = create_store(tmp_path / "store")
    cases = find_cases(real_cases).cases
    for case in (cases[0], cases[5], cases[-1]):  # of 2013 with int16 labels, an ordinary one, and the int16 maximum
        convert_case(case, store)
    store.rebuild_index()
    for case_id in store.case_ids:
        check_against_source(store, case_id, real_cases)
    assert store.info("Brats18_TCIA10_637_1").maximum == (32767.0,) * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "orientation", "labelled"),
    [
        ("BraTS-GLI-00000-000", "LPS", True),
        ("unprefixed_float64", "LPS", True),
        ("BraTS-MET-00110-000", "RAS", False),
    ],
)
def test_odd_but_sound_cases_come_back_voxel_for_voxel(
    tmp_path: Path, oddities: Path, folder: str, orientation: str, *, labelled: bool
) -> None:
    (case,) = find_cases(oddities / folder).cases
    store = create_store(tmp_path / "store", convention=BRATS_123)
    convert_case(case, store)
    store.rebuild_index()
    info = check_against_source(store, case.case_id, oddities / folder)
    assert (info.source_orientation, info.labelled) == (orientation, labelled)
    assert store.read_case(case.case_id).image_MDHW.dtype == np.int16


@pytest.mark.slow
def test_the_oddity_of_2013_converts_when_told(tmp_path: Path, oddities: Path) -> None:
    folder = oddities / "brats_2013_pat0003_1"
    names = {"flair": "Flair_subtrMeanDivStd", "t1ce": "T1c_subtrMeanDivStd", "label": "OTMultiClass"}
    (case,) = find_cases(folder, modalities=("flair", "t1ce"), names=names).cases
    store = create_store(tmp_path / "store", modalities=("flair", "t1ce"), convention=BRATS_2013)
    info = convert_case(case, store)
    store.rebuild_index()
    image_MDHW = store.read_case(case.case_id).image_MDHW
    assert image_MDHW.dtype == np.float32
    for index, modality in enumerate(info.modalities):
        source = np.asanyarray(nib.load(case.files[modality]).dataobj)
        background = source == source[0, 0, 0]  # normalised before it was published
        assert source[0, 0, 0] != 0 and background.mean() > 0.5
        assert (to_source(image_MDHW[index], info) == np.where(background, 0, source)).all()
    assert info.brain_voxels < 0.5 * np.prod(info.original_shape)
    assert any(note.startswith("background stored as 0: flair -") for note in info.notes)


def test_the_oddity_with_a_permuted_mask_lies_where_its_header_says(tmp_path: Path, oddities: Path) -> None:
    names = {"t1ce": "CT1", "label": "ct1_seg_mask"}
    (case,) = find_cases(oddities / "transposed_mask_week056", modalities=("t1ce",), names=names).cases
    store = create_store(tmp_path / "store", modalities=("t1ce",), convention=BRATS_2013)
    info = convert_case(case, store)
    store.rebuild_index()
    image_MDHW, label_DHW = store.read_case(case.case_id)
    mask = nib.load(case.label)
    turned = mask.as_reoriented(ornt_transform(nib.io_orientation(mask.affine), axcodes2ornt("LPS")))
    full_DHW = np.asanyarray(turned.dataobj).T[box_slices(info.bbox)]
    assert label_DHW is not None
    assert full_DHW.any()
    assert ((full_DHW != 0) == (label_DHW != 0)).all()
    assert image_MDHW[0][full_DHW == 1].mean() > 400  # what the mask calls enhancing is bright after contrast
