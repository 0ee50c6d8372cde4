"""Peers' inputs and outputs as files: nnU-Net's raw format, which both read, and segmentations in the source's values.

Shapes: X Y Z voxels in the file's own order.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.contest.job import Job
from storage import open_store
from storage.store.nnunet_export import dataset_convention

DATASET = 501
DATASET_NAME = f"Dataset{DATASET}_contest"


def raw_folder(job: Job) -> Path:
    """The cases in nnU-Net's raw format."""
    return Path(job.shared) / "raw" / DATASET_NAME


def scan_files(job: Job, case_id: str, modalities: int) -> list[str]:
    """A case's scans, in the store's order."""
    return [str(raw_folder(job) / "imagesTr" / f"{case_id}_{channel:04d}.nii.gz") for channel in range(modalities)]


def label_file(job: Job, case_id: str) -> str:
    """Its label in nnU-Net's values."""
    return str(raw_folder(job) / "labelsTr" / f"{case_id}.nii.gz")


def region_values(dataset: Mapping[str, Any]) -> list[list[int]]:
    """The values of each region, as dataset.json has them."""
    labels = [value for name, value in dataset["labels"].items() if name != "background"]
    return [value if isinstance(value, list) else [value] for value in labels]


def write_in_source_values(job: Job, case_id: str, written: Path, target: Path) -> None:
    """Rewrite a segmentation, whose values are nnU-Net's, in those of the case's own label; whole or not."""
    store = open_store(job.store)
    image = nib.load(written)
    stored_XYZ, _ = dataset_convention(store).read_values(np.asanyarray(image.dataobj).astype(np.uint8))
    source_XYZ = store.convention_of(store.info(case_id)).to_source(stored_XYZ)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"unfinished-{target.name}")
    nib.save(nib.Nifti1Image(source_XYZ, image.affine), unfinished)
    unfinished.replace(target)


def cases_left(job: Job, folder: Path) -> dict[str, Path]:
    """The test cases that are not segmented yet, each with its file to be."""
    files = {case_id: folder / f"{case_id}.nii.gz" for case_id in job.test}
    return {case_id: file for case_id, file in files.items() if not file.exists()}
