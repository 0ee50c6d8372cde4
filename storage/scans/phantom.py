"""A synthetic cohort, written as a task publishes its own: real NIfTI files with real names and the task's values.

Each case is a head (phantom_head.py) with a tumour (phantom_tumours.py) whose place, size and shape differ.

Shapes: XYZ as NIfTI stores them; M modalities in the order of the task's scans.
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from storage.labels.conventions import MODALITIES
from storage.labels.tasks import GLI_2021_TASK, TASKS, Task
from storage.scans.phantom_head import draw_anatomy, draw_head, show_head, tissue_of_label
from storage.scans.phantom_tumours import TUMOURS, grade_of

SPACING_MM = 2.0

_NAMES_OF_2023 = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}


@dataclass(frozen=True, kw_only=True)
class _Published:
    """How a task's cohort is called: its folder, its cases, and what their files' names end in."""

    folder: str
    case_id: str
    scan: str = "-{}"
    label: str = "-seg"
    names: Mapping[str, str] = field(default_factory=lambda: _NAMES_OF_2023)
    first_exam: int = 0
    followed_up: bool = False  # of three exams two are of one person

    def name_case(self, number: int) -> str:
        """The id of the case with this number, from 1 on."""
        if not self.followed_up:
            return self.case_id.format(person=number, exam=self.first_exam)
        three, exam = divmod(number - 1, 3)
        person, again = 2 * three + 1 + exam // 2, exam % 2
        return self.case_id.format(person=person, exam=self.first_exam + again)


_PUBLISHED = {
    "gli-2021": _Published(
        folder="MICCAI_BraTS2020_TrainingData",
        case_id="BraTS20_Training_{person:03d}",
        scan="_{}",
        label="_seg",
        names={modality: modality for modality in MODALITIES},
    ),
    "gli-2023": _Published(
        folder="ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData", case_id="BraTS-GLI-{person:05d}-{exam:03d}"
    ),
    "gli-2024": _Published(
        folder="training_data1_v2", case_id="BraTS-GLI-{person:05d}-{exam}", first_exam=100, followed_up=True
    ),
    "met-2024": _Published(folder="MICCAI-BraTS2024-MET-Challenge-Training", case_id="BraTS-MET-{person:05d}-000"),
    "ped-2024": _Published(folder="BraTS-PEDs2024_Training", case_id="BraTS-PED-{person:05d}-000"),
    "men-rt": _Published(
        folder="BraTS-MEN-RT-Train-v2",
        case_id="BraTS-MEN-RT-{person:04d}-{exam}",
        scan="_{}",
        label="_gtv",
        first_exam=1,
        followed_up=True,
    ),
}


def write_phantom_cohort(
    folder: Path,
    *,
    task: str = GLI_2021_TASK.name,
    cases: int = 16,
    seed: int = 0,
    spacing_mm: float = SPACING_MM,
    on_case: Callable[[str], None] = lambda case_id: None,
) -> Path:
    """Write `cases` synthetic cases of a task below `folder` and return the folder that holds them.

    Names, values and scans are the task's own; of gli-2021 those of BraTS 2020, with `name_mapping.csv`:
    `MICCAI_BraTS2020_TrainingData/BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz` and so on. Scans are int16
    and labels uint8, on 120 x 120 x 78 voxels of 2 mm, or as `spacing_mm` says; where the head is whole, each exam has
    a grid of its own. The same `seed` gives the same voxels. A case that is already complete is left as it is.
    `on_case` is called with the id of each case once its files are there.
    Raises KeyError for a task that has no phantom.
    """
    published, meant = _PUBLISHED[task], TASKS[task]
    root = folder / published.folder
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, cases + 1):
        case_id = published.name_case(number)
        done = root / case_id / f"{case_id}{published.label}.nii.gz"
        if not done.exists():
            phantom = make_phantom(np.random.default_rng([seed, number]), meant, number, spacing_mm)
            done.parent.mkdir(exist_ok=True)
            for modality, scan_XYZ in zip(meant.scans, phantom.image_MXYZ, strict=True):
                end = published.scan.format(published.names[modality])
                _save(scan_XYZ, phantom.affine, done.with_name(f"{case_id}{end}.nii.gz"))
            _save(phantom.label_XYZ, phantom.affine, done)
        on_case(case_id)
    if meant is GLI_2021_TASK:
        with (root / "name_mapping.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Grade", "BraTS_2020_subject_ID"])
            writer.writerows([grade_of(number), published.name_case(number)] for number in range(1, cases + 1))
    return root


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """One case: image_MXYZ int16, label_XYZ uint8 in the task's values, and the affine of their grid."""

    image_MXYZ: NDArray[np.int16]
    label_XYZ: NDArray[np.uint8]
    affine: NDArray[np.float64]


def make_phantom(rng: np.random.Generator, task: Task, number: int, spacing_mm: float = SPACING_MM) -> Phantom:
    """The case with this number, which decides what parts its tumour has."""
    spacing = np.full(3, spacing_mm)
    if not task.skull_stripped:  # nor resampled: each scanner's own grid, and slices thicker than their pixels
        spacing = spacing * np.array([*[rng.uniform(0.9, 1.1)] * 2, rng.uniform(1.2, 1.6)])
    head = draw_head(rng, spacing.tolist())
    tissue = draw_anatomy(rng, head, skull_stripped=task.skull_stripped)
    label_XYZ = TUMOURS[task.name](rng, head, number)
    tumour = label_XYZ > 0
    label_XYZ[~head.brain] = 0
    for label in task.labels:
        tissue[label_XYZ == label] = tissue_of_label(label)
    image_MXYZ = show_head(rng, tissue, tumour, task.scans, head.brain if task.skull_stripped else None)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[1, 3] = (head.shape_XYZ[1] - 1) * spacing[1]  # LPS with the origin where BraTS has it
    label_XYZ = task.convention.to_source(label_XYZ)
    if not task.skull_stripped and number % 2 == 0:  # kept in another order of axes
        return Phantom(
            image_MXYZ=image_MXYZ.transpose(0, 2, 3, 1),
            label_XYZ=label_XYZ.transpose(1, 2, 0),
            affine=affine[:, [1, 2, 0, 3]],
        )
    return Phantom(image_MXYZ=image_MXYZ, label_XYZ=label_XYZ, affine=affine)


def _save(array_XYZ: NDArray[np.int16] | NDArray[np.uint8], affine: NDArray[np.float64], path: Path) -> None:
    part = path.with_name(f"part-{path.name}")
    nibabel.save(nibabel.Nifti1Image(array_XYZ, affine), part)
    part.replace(path)  # an interrupted run leaves no half-written scan under a real name
