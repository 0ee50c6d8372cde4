"""A folder with a dataset.json beside imagesTr, labelsTr and imagesTs, as the Decathlon and nnU-Net have it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.errors import InputError
from storage.scans.listing import Folder, Listing, ScanFile, UnreadableError, list_folder
from storage.scans.naming import is_nifti_name

DATASET_FILE = "dataset.json"
IMAGES = ("imagesTr", "imagesTs")
LABELS_OF = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}


def read_description(file: ScanFile) -> Mapping[str, Any]:
    """What dataset.json says; raises InputError where it is no JSON object."""
    try:
        description = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, UnreadableError) as error:
        raise InputError(f"wanted a {DATASET_FILE} in JSON, {file} cannot be read: {error}") from None
    if not isinstance(description, dict):
        raise InputError(f"wanted an object in {file}, found {type(description).__name__}; download the task again")
    return description


def scans_in(folder: Folder, name: str) -> dict[str, ScanFile]:
    """The NIfTI files of the folder's folder of that name; none where there is no such folder."""
    below = folder.folders.get(name)
    return {} if below is None else {each: file for each, file in below.files.items() if is_nifti_name(each)}


def with_description(listing: Listing) -> Folder:
    """The listed folder, or where it is imagesTr or imagesTs itself, the one it lies in, with what describes it."""
    top = listing.top
    if top.path.name not in IMAGES:
        return top
    files: dict[str, ScanFile] = {}
    folders = {top.path.name: top}
    if isinstance(top.path, Path):  # what else can list itself was opened there, and nothing lies around it
        around = top.path.absolute().parent
        if (around / DATASET_FILE).is_file():
            files[DATASET_FILE] = around / DATASET_FILE
        labels = LABELS_OF[top.path.name]
        if (around / labels).is_dir():
            folders[labels] = list_folder(around / labels).top
    return Folder(path=top.path.parent, files=files, folders=folders)


def check_dataset_folder(folder: Path) -> None:
    """Raise InputError where nnU-Net would not find the folder, or where something else lies in it.

    What is left of an export that was stopped does not: it is written anew.
    """
    if not re.fullmatch(r"Dataset\d{3}_\w+", folder.name):
        raise InputError(
            "--to-nnunet: wanted a folder called as nnU-Net looks for it, such as "
            f"{folder.parent / 'Dataset101_BraTS'}, got {folder}; give it such a name"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--to-nnunet: wanted a new or empty folder, found a file at {folder}; name another")
    foreign = sorted(path.name for path in folder.glob("*") if path.name not in (*IMAGES, *LABELS_OF.values()))
    if foreign:
        raise InputError(f"--to-nnunet: wanted a new or empty folder, found {foreign[0]} in {folder}; name another")
