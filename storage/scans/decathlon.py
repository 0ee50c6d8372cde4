"""The Medical Segmentation Decathlon's brain task: 4-D images, one file a case, described by dataset.json.

Source: Antonelli et al. 2022, "The Medical Segmentation Decathlon"; Task01_BrainTumour as it is downloaded.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.errors import InputError, Refusal
from storage.labels.conventions import MSD
from storage.scans.case import Case, CaseSearch, Naming
from storage.scans.naming import is_nifti_name, nifti_stem

DATASET_FILE = "dataset.json"
_MODALITY_BY_NAME = {
    "flair": "flair", "t1w": "t1", "t1": "t1", "t1gd": "t1ce", "t1ce": "t1ce", "t2w": "t2", "t2": "t2",
}  # fmt: skip
# What dataset.json says of each label, by a word that is in every spelling seen (tumor, tumour, enhancing-tumour).
_LABEL_WORDS = {"0": "background", "1": "edema", "2": "non-enhancing", "3": "enhancing"}


def is_msd_folder(folder: Path) -> bool:
    """Whether this is a task's own folder: dataset.json beside imagesTr."""
    return (folder / DATASET_FILE).is_file() and (folder / "imagesTr").is_dir()


def find_msd_cases(folder: Path, modalities: Sequence[str]) -> CaseSearch:
    """Cases of imagesTr (with labelsTr) and imagesTs (unlabelled).

    Raises InputError when dataset.json does not list the wanted modalities or means other labels than the brain task.
    """
    description = _read_description(folder / DATASET_FILE)
    volumes = _volume_indices(description, folder, modalities)
    _check_labels(description, folder)
    cases: list[Case] = []
    refused: list[Refusal] = []
    for image_folder, label_folder in (("imagesTr", "labelsTr"), ("imagesTs", None)):
        for path in sorted((folder / image_folder).glob("*")):
            if not is_nifti_name(path.name):
                continue
            label = folder / label_folder / path.name if label_folder else None
            case_id = nifti_stem(path)
            if label is not None and not label.exists():
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


def _read_description(path: Path) -> Mapping[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"wanted the decathlon's {DATASET_FILE}, {path} cannot be read: {error}") from None
    if not isinstance(description, dict):
        raise InputError(f"wanted an object in {path}, found {type(description).__name__}; download the task again")
    return description


def _volume_indices(description: Mapping[str, Any], folder: Path, modalities: Sequence[str]) -> dict[str, int]:
    listed = description.get("modality") or {}
    volumes = {
        _MODALITY_BY_NAME[str(name).lower()]: int(index)
        for index, name in listed.items()
        if str(name).lower() in _MODALITY_BY_NAME
    }
    missing = [modality for modality in modalities if modality not in volumes]
    if missing:
        raise InputError(
            f"wanted modalities {', '.join(modalities)}, {folder / DATASET_FILE} lists {listed}; "
            f"name the ones it has with --modalities"
        )
    return {modality: volumes[modality] for modality in modalities}


def _check_labels(description: Mapping[str, Any], folder: Path) -> None:
    listed = {str(value): str(name).lower() for value, name in (description.get("labels") or {}).items()}
    if set(listed) != set(_LABEL_WORDS) or any(word not in listed[value] for value, word in _LABEL_WORDS.items()):
        raise InputError(
            f"wanted the brain task's labels (1 edema, 2 non-enhancing, 3 enhancing), "
            f"{folder / DATASET_FILE} lists {listed}; this is another task or an edited file"
        )
