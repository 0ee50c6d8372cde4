"""A store as nnU-Net v2's raw format: a file for each scan on the source's own grid, labels as nnU-Net counts them.

nnU-Net wants values 1, 2, 3 … without a gap, and regions as lists of values, each with the value that is written where
it is found (`regions_class_order`), later ones over earlier ones; a region of one value is that number, not a list.
Source: nnU-Net v2, documentation/dataset_format.md and region_based_training.md.

Shapes: M modality, D H W voxels z y x in LPS of the whole scan.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.cases.grid import uncropped
from storage.cases.segmentation import encode_scan, encode_segmentation
from storage.errors import InputError
from storage.labels.conventions import STORED_LABEL_NAMES, LabelConvention, custom_convention
from storage.scans.dataset_json import DATASET_FILE
from storage.scans.label_names import TISSUES_KEY
from storage.store.cohort_store import CohortStore

_ENDING = ".nii.gz"
_CHANNEL_NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}


def export_case(store: CohortStore, case_id: str, folder: Path) -> None:
    """Write a case's files: among those for training where it has a label, else among those to predict.

    Raises CorruptStoreError for a damaged case, InputError where the disk does not take it.
    """
    info = store.info(case_id)
    arrays = store.read_case(case_id)
    part = "imagesTr" if info.labelled else "imagesTs"
    for channel, scan_DHW in enumerate(arrays.image_MDHW):
        _write(folder / part / f"{case_id}_{channel:04d}{_ENDING}", encode_scan(uncropped(scan_DHW, info), info))
    if arrays.label_DHW is not None:
        encoded = encode_segmentation(uncropped(arrays.label_DHW, info), info, dataset_convention(store))
        _write(folder / "labelsTr" / f"{case_id}{_ENDING}", encoded)


def finish_export(store: CohortStore, folder: Path) -> None:
    """Write dataset.json, last: without it the folder is no dataset."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)  # nnU-Net wants both, whatever the store has
    _write(folder / DATASET_FILE, (json.dumps(describe_dataset(store), indent=2) + "\n").encode())


def dataset_convention(store: CohortStore) -> LabelConvention:
    """The values in which a store's labels are written: its task's, in their order, counted from 1 without a gap."""
    conventions = (store.task.convention, store.settings.convention)
    values = [pair for convention in conventions for pair in sorted(convention.stored_by_source.items())]
    return custom_convention(dict(enumerate(dict.fromkeys(label for _, label in values if label), 1)))


def describe_dataset(store: CohortStore) -> dict[str, Any]:
    """The dataset.json of a store: its regions, and besides what each value is, which regions do not always tell."""
    stored = dataset_convention(store).stored_by_source
    value_of = {label: value for value, label in stored.items() if value}
    regions = {region.title: [label for label in region.labels if label in value_of] for region in store.task.regions}
    inside = {label for labels in regions.values() for label in labels}
    # nnU-Net wants every value in some region.
    regions |= {STORED_LABEL_NAMES[label].replace("_", " "): [label] for label in value_of if label not in inside}
    regions = {title: labels for title, labels in regions.items() if labels}
    values = {title: sorted(value_of[label] for label in labels) for title, labels in regions.items()}
    description: dict[str, Any] = {
        "channel_names": {
            str(index): _CHANNEL_NAMES.get(name, name) for index, name in enumerate(store.settings.modalities)
        },
        "labels": {"background": 0} | {title: each if len(each) > 1 else each[0] for title, each in values.items()},
        "numTraining": sum(info.labelled for info in store.infos()),
        "file_ending": _ENDING,
        TISSUES_KEY: {str(value): STORED_LABEL_NAMES[label] for label, value in value_of.items()},
    }
    if any(len(each) > 1 for each in values.values()):
        listed = list(regions.values())
        description["regions_class_order"] = [value_of[_own_label(labels, listed)] for labels in listed]
    return description


def _own_label(labels: Sequence[int], regions: Sequence[Sequence[int]]) -> int:
    """What a voxel of a region is where no region within takes it: of its labels the one that lies in the fewest."""
    within = {label for other in regions if set(other) < set(labels) for label in other}
    left = [label for label in labels if label not in within]
    return min(left or labels, key=lambda label: sum(label in other for other in regions))


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free space, or name another folder"
        ) from None
