"""A copy holds the scans within JPEG's error, and label and prediction exactly, where the scanner had them."""

import base64
import dataclasses
import gzip
import io
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ray_jobs.pictures.copies import encode_copy
from storage import HeldCase, region_masks
from storage.labels.tasks import GLIOMA_REGIONS
from tests.small_case import AFFINE, CASE_ID, HIGH, LOW, SHAPE, hold_small_case

IN_FILE = tuple(slice(low, high) for low, high in zip(LOW, HIGH, strict=True))  # what a copy holds of the files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def held(files: Path) -> HeldCase:
    return hold_small_case(files)


def copy_of(held: HeldCase, *, labelled: bool = True, **others: bool) -> dict[str, Any]:
    label_DHW = held.arrays.label_DHW
    assert label_DHW is not None
    true_RDHW = region_masks(label_DHW, GLIOMA_REGIONS).astype(bool)
    predicted_RDHW = np.roll(true_RDHW, 2, axis=3)  # in LPS: to the left
    label_RDHW = true_RDHW if labelled else None
    script = encode_copy(held.case, GLIOMA_REGIONS, held.arrays.image_MDHW, label_RDHW, predicted_RDHW, **others)
    place, _, copy = script.decode().partition(" = ")
    assert place.startswith("(globalThis.brainCopies ??= {})[") and copy.endswith(";\n")
    decoded: dict[str, Any] = json.loads(copy[:-2])
    assert json.loads(place.partition("[")[2][:-1]) == decoded["case"]
    return decoded


def decode_scan(copy: dict[str, Any], number: int) -> np.ndarray:
    """As the page does: intensities XYZ."""
    (width, height, depth), (wide, tall) = copy["shape"], copy["tile"]
    scan = copy["scans"][number]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(scan["jpeg"]))))
    slices = []
    for z in range(depth):
        top, left = z // copy["columns"] * tall, z % copy["columns"] * wide
        slices.append(picture[top : top + height, left : left + width])
    grey_XYZ = np.stack(slices).T.astype(float)
    return scan["low"] + grey_XYZ / 255 * (scan["high"] - scan["low"])


def decode_masks(encoded: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(encoded)))


def test_scans_are_theirs_within_the_error_of_jpeg(held: HeldCase, files: Path) -> None:
    copy = copy_of(held)
    assert copy["shape"] == [high - low for low, high in zip(LOW, HIGH, strict=True)]
    assert [scan["name"] for scan in copy["scans"]] == list(held.case.modalities)
    for number, scan in enumerate(copy["scans"]):
        original = nib.load(files / CASE_ID / f"{CASE_ID}_{scan['name']}.nii.gz").get_fdata()[IN_FILE]
        error = np.abs(decode_scan(copy, number) - original)
        assert error.max() < 0.05 * scan["high"], scan["name"]
        black, white = (scan["low"] + grey / 255 * (scan["high"] - scan["low"]) for grey in scan["window"])
        assert (
            0 <= black <= np.percentile(original, 3) + 2
            and np.percentile(original, 97) <= white <= 1.01 * original.max()
        )


def test_label_and_prediction_are_exact_and_lie_where_the_scanner_had_them(held: HeldCase, files: Path) -> None:
    copy = copy_of(held)
    label = nib.load(files / CASE_ID / f"{CASE_ID}_seg.nii.gz").get_fdata().astype(int)
    painted = np.array([0, 2, 1, 0, 3])[label]  # BraTS' 1 is the core's, 2 edema, 4 enhancing
    shown = decode_masks(copy["label"])
    assert (np.asarray(shown.dataobj) == painted[IN_FILE]).all() and painted[IN_FILE].sum() == painted.sum()
    predicted = np.asarray(decode_masks(copy["prediction"]).dataobj)
    assert (predicted == np.roll(painted, -2, axis=0)[IN_FILE]).all()  # x of the files grows to the right
    moved = AFFINE.copy()
    moved[:3, 3] += AFFINE[:3, :3] @ LOW
    assert np.allclose(shown.affine, moved)
    scans = nib.Nifti1Header.from_fileobj(io.BytesIO(base64.b64decode(copy["header"])), check=False)
    assert np.allclose(scans.get_best_affine(), moved) and scans["vox_offset"] == 352
    assert scans.get_data_shape() == (*copy["shape"], 4) and len(base64.b64decode(copy["header"])) == 352
    assert [colour["name"] for colour in copy["colours"]] == ["edema", "non-enhancing core", "enhancing"]
    x, y, z = copy["at"]
    assert painted[IN_FILE][x, y, z] > 0  # it opens in the tumour


def test_a_case_without_a_label_has_none_and_odd_values_do_no_harm(held: HeldCase) -> None:
    assert copy_of(held, labelled=False)["label"] is None
    zero = np.zeros_like(held.arrays.image_MDHW[:1])
    nothing = np.concatenate([zero, held.arrays.image_MDHW[1:] - 500]).astype(np.float32)

    def changed(values: tuple[float, ...], by: float) -> tuple[float, ...]:
        return (0.0, *(value + by for value in values[1:]))

    case = dataclasses.replace(
        held.case,
        case_id="</script><b>&\"'",
        minimum=changed(held.case.minimum, -500),
        maximum=changed(held.case.maximum, -500),
        percentiles={name: changed(values, -500) for name, values in held.case.percentiles.items()},
    )
    odd = dataclasses.replace(held, case=case, arrays=held.arrays._replace(image_MDHW=nothing))
    copy = copy_of(odd)
    assert copy["case"] == case.case_id and not decode_scan(copy, 0).any()
    right = nothing[1].T[::-1, ::-1]  # RAS
    assert np.abs(decode_scan(copy_of(odd, skull_stripped=False), 1) - right).max() < 40
    assert SHAPE[0] > copy["shape"][0]


def test_a_script_may_stand_within_a_page(held: HeldCase) -> None:
    case = dataclasses.replace(held.case, case_id="</script><!--")
    masks = np.zeros((3, *held.case.shape), bool)
    script = encode_copy(case, GLIOMA_REGIONS, held.arrays.image_MDHW, None, masks)
    assert b"<" not in script
    assert script == encode_copy(case, GLIOMA_REGIONS, held.arrays.image_MDHW, None, masks)
