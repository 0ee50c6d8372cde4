"""The Medical Segmentation Decathlon's brain task: 4-D images, one file a case, described by dataset.json.

Source: Antonelli et al. 2022, "The Medical Segmentation Decathlon"; Task01_BrainTumour as it is downloaded.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from storage.errors import InputError, Refusal
from storage.labels.conventions import MODALITIES
from storage.labels.tasks import person_of
from storage.scans.case import Case, CaseSearch, Naming
from storage.scans.dataset_json import DATASET_FILE, IMAGES, LABELS_OF, read_description, scans_in
from storage.scans.listing import Folder, ScanFile
from storage.scans.naming import modality_named, nifti_stem

# What dataset.json says of each label, by a word that is in every spelling seen (tumor, tumour, enhancing-tumour).
_LABEL_WORDS = {"0": "background", "1": "edema", "2": "non-enhancing", "3": "enhancing"}
# The task's own order, for images that were taken without their dataset.json. Nothing else calls its cases so.
_VOLUMES = {"flair": 0, "t1": 1, "t1ce": 2, "t2": 3}
_CASE_ID = re.compile(r"BRATS_\d{3}")


def is_msd_folder(folder: Folder) -> bool:
    """Whether this is a task's own folder: images beside dataset.json, or called as the brain task calls its cases."""
    images = [name for part in IMAGES for name in scans_in(folder, part)]
    if DATASET_FILE in folder.files:
        return any(part in folder.folders for part in IMAGES)
    return bool(images) and all(_CASE_ID.fullmatch(nifti_stem(name)) for name in images)


def find_msd_cases(folder: Folder, modalities: Sequence[str] | None) -> CaseSearch:
    """Cases of imagesTr (with labelsTr) and imagesTs (unlabelled); all four modalities where none are named.

    Raises InputError when dataset.json does not list the wanted modalities or means other labels than the brain task.
    """
    file = folder.files.get(DATASET_FILE)
    volumes = _VOLUMES
    notes: tuple[str, ...] = (f"no {DATASET_FILE}: volumes taken to be FLAIR, T1w, T1gd, T2w, as in Task01",)
    if file is not None:
        description = read_description(file)
        volumes, notes = _volume_indices(description, file, modalities or MODALITIES), ()
        _check_labels(description, file)
    cases: list[Case] = []
    refused: list[Refusal] = []
    for part in IMAGES:
        labels = scans_in(folder, LABELS_OF[part]) if part == "imagesTr" else {}
        for name, path in scans_in(folder, part).items():
            case_id = nifti_stem(name)
            if part == "imagesTr" and name not in labels:
                refused.append(refuse_without_label(case_id, path, name))
                continue
            cases.append(
                Case(
                    case_id=case_id,
                    subject=person_of(case_id),
                    files=dict.fromkeys(modalities or MODALITIES, path),
                    label=labels.get(name),
                    naming=Naming.MSD,
                    volumes={modality: volumes[modality] for modality in modalities or MODALITIES},
                    notes=notes,
                )
            )
    return CaseSearch(cases=tuple(cases), refused=tuple(refused))


def refuse_without_label(case_id: str, image: ScanFile, label: str) -> Refusal:
    """An image among those for training that has no label is left out: it may have been lost."""
    finding = f"imagesTr/{image.name} has no labelsTr/{label}"
    return Refusal(
        case_id=case_id, file=str(image), finding=finding, remedy="add the label, or move the image to imagesTs"
    )


def _volume_indices(description: Mapping[str, Any], file: ScanFile, modalities: Sequence[str]) -> dict[str, int]:
    listed = description.get("modality") or {}
    volumes = {modality: int(index) for index, name in listed.items() if (modality := modality_named(str(name)))}
    missing = [modality for modality in modalities if modality not in volumes]
    if missing:
        raise InputError(
            f"wanted modalities {', '.join(modalities)}, {file} lists {listed}; name the ones it has with --modalities"
        )
    return volumes


def _check_labels(description: Mapping[str, Any], file: ScanFile) -> None:
    listed = {str(value): str(name).lower() for value, name in (description.get("labels") or {}).items()}
    if set(listed) != set(_LABEL_WORDS) or any(word not in listed[value] for value, word in _LABEL_WORDS.items()):
        raise InputError(
            f"wanted the brain task's labels (1 edema, 2 non-enhancing, 3 enhancing), "
            f"{file} lists {listed}; this is another task or an edited file"
        )
