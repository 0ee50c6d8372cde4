"""Six hundred damaged NIfTI files: each is refused, or reads as what nibabel reads. Nothing crashes, nothing hangs."""

import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from storage.scans.nifti import read_volume
from storage.scans.nifti_header import NiftiError

MUTANTS = 600


def mutate(raw: bytes, random: np.random.Generator) -> bytes:
    """One to three changes: flipped bits (mostly in the header), overwritten or removed or inserted runs of bytes."""
    data = bytearray(raw)
    for _ in range(random.integers(1, 4)):
        place = (
            int(random.integers(0, min(len(data), 352))) if random.random() < 0.7 else int(random.integers(len(data)))
        )
        length = int(random.integers(1, 9))
        match random.integers(5):
            case 0 | 1:
                data[place] ^= 1 << int(random.integers(8))
            case 2:
                data[place : place + length] = random.bytes(length)
            case 3:
                del data[place : place + length]
            case _:
                data[place:place] = random.bytes(length)
    return bytes(data)


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
def test_mutants_are_refused_or_read_as_nibabel_reads_them(
    tmp_path: Path, extension: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("nibabel.global"), "disabled", True)
    random = np.random.default_rng(version)
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    path = tmp_path / f"mutant{extension}"
    nib.save(kind(random.integers(0, 900, (9, 8, 7)).astype(np.int16), np.diag([-1.0, -1, 1, 1])), path)
    plain = path.read_bytes() if extension == ".nii" else gzip.decompress(path.read_bytes())
    packed = path.read_bytes()
    refused = 0
    for number in range(MUTANTS // 4):
        # Half of the compressed mutants are broken inside the stream and packed again, so that they get past its CRC.
        if extension == ".nii":
            mutant = mutate(plain, random)
        else:
            mutant = mutate(packed, random) if number % 2 else gzip.compress(mutate(plain, random), compresslevel=1)
        path.write_bytes(mutant)
        try:
            volume = read_volume(path)
        except NiftiError as error:
            assert error.finding
            assert error.remedy
            refused += 1
            continue
        with np.errstate(all="ignore"):
            expected = np.asanyarray(nib.load(path).dataobj)
        assert volume.array.shape == expected.shape
        assert (volume.array == expected).all()
    # Both outcomes must occur, or the mutator tests nothing.
    assert 10 < refused < MUTANTS // 4 - 10
