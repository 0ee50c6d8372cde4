"""A case of a few thousand voxels that is another one when it is turned or mirrored, for tests of viewers."""

from pathlib import Path

import nibabel as nib
import numpy as np

from storage import HeldCase, find_cases
from storage.labels.conventions import BRATS_124, MODALITIES
from storage.labels.tasks import GLI_2021_TASK
from storage.store.held_case import hold_source

SHAPE = (40, 44, 26)  # x y z of the files, RAS
LOW, HIGH = (5, 4, 2), (37, 42, 22)  # the brain's box in them
AFFINE = np.array([[1.5, 0, 0, -20.0], [0, 1.0, 0, -35.0], [0, 0, 2.0, 12.0], [0, 0, 0, 1]])
CASE_ID = "BraTS20_Training_007"


def hold_small_case(folder: Path) -> HeldCase:
    """Write the case's files below `folder`, and read them.

    Intensities grow to the right, forwards or upwards, by the scan. The tumour lies in the patient's left front, low.
    """
    case = folder / CASE_ID
    case.mkdir(parents=True)
    grid = np.indices(SHAPE)
    brain = np.all([(low <= axis) & (axis < high) for axis, low, high in zip(grid, LOW, HIGH, strict=True)], axis=0)
    grown = {"flair": grid[0], "t1": grid[1], "t1ce": grid[2], "t2": grid.sum(axis=0)}
    for name in MODALITIES:
        _write(case / f"{CASE_ID}_{name}.nii.gz", np.where(brain, 100 + 10 * grown[name], 0).astype(np.int16))
    label = np.zeros(SHAPE, np.uint8)
    label[9:19, 24:38, 5:15] = 2
    label[11:17, 26:32, 6:13] = 4
    label[13:16, 27:30, 7:11] = 1
    label[17, 37, 9] = 4  # a voxel alone, at a corner
    _write(case / f"{CASE_ID}_seg.nii.gz", label)
    (found,) = find_cases(folder).cases
    return hold_source(found, MODALITIES, BRATS_124, GLI_2021_TASK)


def _write(path: Path, array: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(array, AFFINE), path)
