"""What is read equals what nibabel reads, or is refused with the finding."""

import gzip
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from storage.scans.nifti import read_segmentation, read_volume
from storage.scans.nifti_header import NiftiError
from storage.scans.voxel_values import as_labels, narrowest

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
RANDOM = np.random.default_rng(0)


def save(path: Path, array: np.ndarray, kind: Any = nib.Nifti1Image, **header: Any) -> Path:
    image = kind(array, AFFINE)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("u1", "int16"),
        ("i1", "int16"),
        ("i2", "int16"),
        (">i2", "int16"),
        ("u2", "uint16"),
        ("i4", "int32"),
        ("f4", "float32"),
        (">f8", "float64"),
        ("f8", "float64"),
    ],
)
def test_voxels_equal_what_nibabel_reads(tmp_path: Path, kind: Any, extension: str, dtype: str, stored: str) -> None:
    numbers = np.dtype(dtype)
    if numbers.kind == "f":
        array = RANDOM.normal(size=(5, 4, 3)).astype(numbers)
    else:
        limits = np.iinfo(numbers)
        array = RANDOM.integers(limits.min, limits.max, (5, 4, 3), endpoint=True).astype(numbers)
        array.flat[:2] = limits.min, limits.max
    path = save(tmp_path / f"a{extension}", array, kind)
    volume = read_volume(path)
    image = nib.load(path)
    assert volume.array.dtype == stored
    assert (volume.array == np.asanyarray(image.dataobj)).all()
    assert (volume.affine == image.affine).all()


def test_the_headers_scaling_is_applied(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", RANDOM.integers(0, 99, (5, 4, 3)).astype(np.int16))
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[112:120] = np.array([0.5, 3.0], dtype="<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))
    assert (read_volume(path).array == np.asanyarray(nib.load(path).dataobj)).all()


def test_a_gzip_of_two_members_is_one_file(tmp_path: Path) -> None:
    array = RANDOM.integers(0, 99, (5, 4, 3)).astype(np.int16)
    raw = save(tmp_path / "a.nii", array).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(raw[:400]) + gzip.compress(raw[400:]) + b"\0\0")
    assert (read_volume(path).array == array).all()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0.0, 5.0, 32767.0], np.int16),
        ([0.0, 40000.0], np.uint16),
        ([-1.0, 40000.0], np.int32),
        ([0.0, 2.0**31], np.float32),
        ([0.0, 2.0**53 - 1], np.float64),
        ([0.5, 1e300], np.float64),
        ([0.5, 0.25], np.float32),
        ([0.1], np.float64),
    ],
)
def test_the_narrowest_dtype_that_loses_nothing(values: list[float], dtype: Any) -> None:
    array = np.array(values, dtype=np.float64)
    narrow = narrowest(array)
    assert narrow.dtype == dtype
    assert (narrow.astype(np.float64) == array).all()


def test_whole_numbers_of_64_bits_stay_exact() -> None:
    assert narrowest(np.array([0, 2**62 + 1])).tolist() == [0, 2**62 + 1]


def test_labels_may_be_whole_to_a_scale_slopes_precision() -> None:
    assert as_labels(np.array([0.0, 0.99999997, 4.0]))[0].tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("values", "words"), [([0.5], "not a whole number"), ([-1.0], "run from -1"), ([256.0], "to 256")]
)
def test_what_is_no_label_is_refused(values: list[float], words: str) -> None:
    with pytest.raises(NiftiError, match=words):
        as_labels(np.array(values))


def write_bytes(path: Path, change: Callable[[bytes], bytes]) -> None:
    raw = save(path.with_name("whole.nii.gz"), np.ones((5, 4, 3), dtype=np.int16)).read_bytes()
    path.write_bytes(change(raw))


def edit(start: int, new: bytes) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        plain = bytearray(gzip.decompress(raw))
        plain[start : start + len(new)] = new
        return gzip.compress(bytes(plain))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: b"", "zero bytes"),
        (lambda raw: b"not an image at all" * 30, "not a NIfTI file, whatever its name"),
        (lambda raw: gzip.compress(b"neither"), "not a NIfTI file"),
        (lambda raw: raw[: len(raw) // 2], "truncated"),
        (lambda raw: raw[:-4], "truncated"),
        (lambda raw: raw[:-8] + bytes([raw[-8] ^ 1]) + raw[-7:], "damaged"),
        (lambda raw: raw + b"tail", "follow the compressed data"),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:-5]), "truncated: 467 bytes of the 472"),
        (lambda raw: gzip.compress(gzip.decompress(raw) + bytes(9 << 20)), "more than the 472 bytes"),
        (edit(40, np.array([0, 5, 4, 3], "<i2").tobytes()), "dimensions|valid"),
        (edit(40, np.array([3, 30000, 30000, 30000], "<i2").tobytes()), "announces"),
        (edit(70, np.array([32], "<i2").tobytes()), "complex"),
        (edit(70, np.array([128], "<i2").tobytes()), "RGB"),
        (edit(70, np.array([9999], "<i2").tobytes()), "not valid NIfTI"),
        (edit(344, b"ni1\0"), "single-file"),
        (edit(280, np.array([np.nan], "<f4").tobytes()), "affine"),
        (edit(280, np.zeros(12, "<f4").tobytes()), "affine"),
        (edit(68, np.array([3002], "<i2").tobytes()), "CIFTI"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change: Callable[[bytes], bytes], words: str) -> None:
    path = tmp_path / "a.nii.gz"
    write_bytes(path, change)
    with pytest.raises(NiftiError, match=words) as caught:
        read_volume(path)
    assert caught.value.remedy


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path, bad: float) -> None:
    array = np.ones((5, 4, 3), dtype=np.float32)
    array[1, 2, :2] = bad
    with pytest.raises(NiftiError, match="2 voxels are NaN or infinite"):
        read_volume(save(tmp_path / "a.nii.gz", array))


def test_wrong_dimensions(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.ones((5, 4, 3, 2), dtype=np.int16))
    with pytest.raises(NiftiError, match=r"4 dimensions \(5, 4, 3, 2\), wanted 3"):
        read_volume(path)
    assert read_volume(path, dimensions=4).array.shape == (5, 4, 3, 2)


@pytest.mark.parametrize("tail", [(1,), (1, 1)])
def test_a_fourth_axis_of_one_volume_is_none(tmp_path: Path, tail: tuple[int, ...]) -> None:
    array = RANDOM.integers(0, 3, (5, 4, 3)).astype(np.uint8)
    path = save(tmp_path / "a.nii.gz", array.reshape(*array.shape, *tail))
    assert (read_volume(path).array == array).all()
    assert (read_segmentation(path).array == array).all()
    assert read_volume(path, dimensions=4).array.shape == (5, 4, 3, 1)
    with pytest.raises(NiftiError, match=r"5 dimensions \(5, 4, 3, 1, 2\), wanted 3"):
        read_volume(save(tmp_path / "b.nii", np.stack([array[..., None]] * 2, axis=-1)))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_that_begin_at_0_follow_the_header(tmp_path: Path, kind: Any) -> None:
    array = RANDOM.integers(0, 99, (5, 4, 3)).astype(np.int16)
    path = save(tmp_path / "a.nii", array, kind)
    raw = bytearray(path.read_bytes())
    place = slice(108, 112) if kind is nib.Nifti1Image else slice(168, 176)
    raw[place] = bytes(place.stop - place.start)
    path.write_bytes(gzip.compress(bytes(raw)))
    assert (read_volume(path).array == array).all()
    path.write_bytes(bytes(raw) + b"more")  # then nothing says which bytes are the voxels
    with pytest.raises(NiftiError, match="begin at byte 0"):
        read_volume(path)


def test_labels_are_rounded_to_half_a_step_of_their_own_file(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.array([0.0, 1, 2, 4] * 6).reshape(4, 3, 2), AFFINE)
    image.set_data_dtype(np.uint8)  # what a program does that saves floats under a label's header
    nib.save(image, tmp_path / "a.nii")
    assert np.abs(np.asanyarray(nib.load(tmp_path / "a.nii").dataobj) - 2).min() > 1e-3
    read = read_segmentation(tmp_path / "a.nii")
    assert read.array.ravel().tolist() == [0, 1, 2, 4] * 6
    assert read.array.dtype == np.uint8
    assert [note.kind for note in read.notes] == ["labels rounded to whole numbers"]


def test_what_a_header_does_not_say_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = nib.Nifti1Image(np.ones((5, 4, 3), np.int16), None)
    raw = bytearray(image.to_bytes())
    raw[80:92] = bytes(12)
    (tmp_path / "a.nii").write_bytes(raw)
    read = read_volume(tmp_path / "a.nii")
    assert (read.affine == [[-1, 0, 0, 2], [0, 1, 0, -1.5], [0, 0, 1, -1], [0, 0, 0, 1]]).all()
    assert not read.place.coded
    assert not read.place.said
    assert [note.kind for note in read.notes] == [
        "voxels 0 mm wide by their header, read as 1 mm",
        "no orientation in the header, read as LAS",
    ]
    assert caplog.records == []  # nibabel would print it, without the file's name


def test_the_form_that_is_none_is_passed_over(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((5, 4, 3), np.int16), AFFINE)
    image.set_qform(AFFINE, code=1)
    raw = bytearray(image.to_bytes())
    raw[280:328] = bytes(48)  # an sform with a code and nothing in it
    (tmp_path / "a.nii").write_bytes(raw)
    read = read_volume(tmp_path / "a.nii")
    assert (read.affine == AFFINE).all()
    assert [note.kind for note in read.notes] == ["sform that is no affine, the qform is taken"]


def test_no_permission() -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    path = save(folder / "a.nii.gz", np.ones((5, 4, 3), dtype=np.int16))
    path.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(NiftiError, match="no permission"):
            read_volume(path)
    finally:
        os.seteuid(before)
        path.unlink()
        folder.rmdir()


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(NiftiError, match="cannot be read"):
        read_volume(tmp_path / "none.nii.gz")
