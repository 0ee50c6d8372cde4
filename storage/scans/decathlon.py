"""The Medical Segmentation Decathlon's brain task: 4-D images, one file a case, described by dataset.json.

Source: Antonelli et al. 2022, "The Medical Segmentation Decathlon"; Task01_BrainTumour as it is downloaded.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from storage.errors import InputError, Refusal
from storage.labels.conventions import MSD
from storage.scans.case import Case, CaseSearch, Naming
from storage.scans.listing import Folder, ScanFile
from storage.scans.naming import is_nifti_name, nifti_stem

DATASET_FILE = "dataset.json"
_MODALITY_BY_NAME = {
    "flair": "flair", "t1w": "t1", "t1": "t1", "t1gd": "t1ce", "t1ce": "t1ce", "t2w": "t2", "t2": "t2",
}  # fmt: skip
# What dataset.json says of each label, by a word that is in every spelling seen (tumor, tumour, enhancing-tumour).
_LABEL_WORDS = {"0": "background", "1": "edema", "2": "non-enhancing", "3": "enhancing"}


def is_msd_folder(folder: Folder) -> bool:
    """Whether this is a task's own folder: dataset.json beside imagesTr."""
    return DATASET_FILE in folder.files and "imagesTr" in folder.folders


def find_msd_cases(folder: Folder, modalities: Sequence[str]) -> CaseSearch:
    """Cases of imagesTr (with labelsTr) and imagesTs (unlabelled).

    Raises InputError when dataset.json does not list the wanted modalities or means other labels than the brain task.
    """
    file = folder.files[DATASET_FILE]
    description = _read_description(file)
    volumes = _volume_indices(description, file, modalities)
    _check_labels(description, file)
    cases: list[Case] = []
    refused: list[Refusal] = []
    for image_folder, label_folder in (("imagesTr", "labelsTr"), ("imagesTs", None)):
        images, labels = (_files_of(folder, name) for name in (image_folder, label_folder))
        for path in images.values():
            if not is_nifti_name(path.name):
                continue
            label = labels.get(path.name)
            case_id = nifti_stem(path.name)
            if label_folder is not None and label is None:
                finding = f"{image_folder}/{path.name} has no {label_folder}/{path.name}"
                remedy = "add the label, or move the image to imagesTs"
                refused.append(Refusal(case_id=case_id, file=str(path), finding=finding, remedy=remedy))
                continue
            cases.append(
                Case(
                    case_id=case_id,
                    subject=case_id,
                    files=dict.fromkeys(modalities, path),
                    label=label,
                    naming=Naming.MSD,
                    volumes=volumes,
                )
            )
    return CaseSearch(cases=tuple(cases), refused=tuple(refused), convention=MSD)


def _files_of(folder: Folder, name: str | None) -> Mapping[str, ScanFile]:
    return folder.folders[name].files if name is not None and name in folder.folders else {}


def _read_description(path: ScanFile) -> Mapping[str, Any]:
    try:
        description = json.loads(path.read_bytes().decode())
    except (OSError, ValueError) as error:
        raise InputError(f"wanted the decathlon's {DATASET_FILE}, {path} cannot be read: {error}") from None
    if not isinstance(description, dict):
        raise InputError(f"wanted an object in {path}, found {type(description).__name__}; download the task again")
    return description


def _volume_indices(description: Mapping[str, Any], file: ScanFile, modalities: Sequence[str]) -> dict[str, int]:
    listed = description.get("modality") or {}
    volumes = {
        _MODALITY_BY_NAME[str(name).lower()]: int(index)
        for index, name in listed.items()
        if str(name).lower() in _MODALITY_BY_NAME
    }
    missing = [modality for modality in modalities if modality not in volumes]
    if missing:
        raise InputError(
            f"wanted modalities {', '.join(modalities)}, {file} lists {listed}; name the ones it has with --modalities"
        )
    return {modality: volumes[modality] for modality in modalities}


def _check_labels(description: Mapping[str, Any], file: ScanFile) -> None:
    listed = {str(value): str(name).lower() for value, name in (description.get("labels") or {}).items()}
    if set(listed) != set(_LABEL_WORDS) or any(word not in listed[value] for value, word in _LABEL_WORDS.items()):
        raise InputError(
            f"wanted the brain task's labels (1 edema, 2 non-enhancing, 3 enhancing), "
            f"{file} lists {listed}; this is another task or an edited file"
        )
