"""nnU-Net's raw format: a file for each channel, and a dataset.json that says what channels and labels are.

    dataset.json
    imagesTr/<id>_0000.nii.gz, <id>_0001.nii.gz …   labelsTr/<id>.nii.gz   imagesTs/…   (labelsTs/…)

Version 1 has `modality` and labels by value, version 2 `channel_names` and labels by name, which may be regions.
Source: nnU-Net v2, documentation/dataset_format.md and convert_msd_dataset.md.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from storage.errors import Refusal
from storage.labels.conventions import MODALITIES, LabelConvention
from storage.labels.tasks import person_of
from storage.scans.case import Case, CaseSearch, Naming
from storage.scans.dataset_json import DATASET_FILE, IMAGES, LABELS_OF, read_description, scans_in
from storage.scans.decathlon import refuse_without_label
from storage.scans.label_names import UnclearLabelsError, convention_by_names
from storage.scans.listing import Folder, ScanFile
from storage.scans.naming import modality_named, nifti_stem


def is_raw_folder(folder: Folder) -> bool:
    """Whether this is a dataset's folder: dataset.json, and images with the numbers of their channels.

    A decathlon's BRATS_0484 ends in no channel: none is the first, or its label is called like it. A file or two that
    somebody left among them change nothing.
    """
    images = [name for part in IMAGES for name in scans_in(folder, part)]
    numbers = [match[2] for name in images if (match := match_channel(name))]
    decathlon = scans_in(folder, "imagesTr").keys() & scans_in(folder, "labelsTr").keys()
    return DATASET_FILE in folder.files and 2 * len(numbers) > len(images) and "0000" in numbers and not decathlon


def find_raw_cases(folder: Folder, modalities: Sequence[str] | None) -> CaseSearch:
    """Cases of imagesTr and imagesTs, with what their labels mean where the names of dataset.json tell it.

    `modalities` None takes all that the dataset has. Raises InputError where dataset.json is no JSON object.
    """
    file = folder.files[DATASET_FILE]
    description = read_description(file)
    listed = _channels(description)
    channels = _channel_of(listed)
    has = tuple(modality for modality in MODALITIES if modality in channels)
    wanted = modalities or (has if len(has) == len(listed) > 0 else MODALITIES)
    if any(modality not in channels for modality in wanted):
        return CaseSearch(cases=(), refused=(_refuse_channels(folder, file, listed, wanted),))
    parts = {part: _images(folder, part) for part in IMAGES}
    convention: LabelConvention | None = None
    notices: tuple[str, ...] = ()
    try:
        convention = convention_by_names(description, [case_id for images in parts.values() for case_id in images])
    except UnclearLabelsError as error:
        notices = (f"{file} does not say what its labels mean: {error}; say it with --task or --label-map",)
    cases: list[Case] = []
    refused: list[Refusal] = _refuse_without_channel(folder)
    for part, images in parts.items():
        labels = {nifti_stem(name): label for name, label in scans_in(folder, LABELS_OF[part]).items()}
        refused += [
            _refuse_without_images(case_id, label) for case_id, label in labels.items() if case_id not in images
        ]
        for case_id, by_channel in images.items():
            missing = [modality for modality in wanted if channels[modality] not in by_channel]
            first = next(iter(by_channel.values()))
            if missing:
                finding = f"missing {', '.join(f'{case_id}_{channels[each]:04d} ({each})' for each in missing)}"
                remedy = "add the files, or name the scans that all cases have with --modalities"
                refused.append(Refusal(case_id=case_id, file=str(first.parent), finding=finding, remedy=remedy))
            elif part == "imagesTr" and case_id not in labels:
                refused.append(refuse_without_label(case_id, first, f"{case_id}.nii.gz"))
            else:
                cases.append(
                    Case(
                        case_id=case_id,
                        subject=person_of(case_id),
                        files={modality: by_channel[channels[modality]] for modality in wanted},
                        label=labels.get(case_id),
                        naming=Naming.NNUNET,
                        convention=convention,
                    )
                )
    return CaseSearch(cases=tuple(cases), refused=tuple(refused), notices=notices)


def match_channel(name: str) -> re.Match[str] | None:
    """The case (group 1) and channel (group 2) that the name of an image says; None where it ends in no channel."""
    return re.fullmatch(r"(.+)_(\d{4})", nifti_stem(name))


def _channels(description: Mapping[str, Any]) -> dict[int, str]:
    """The name of each channel in a dataset.json of either version."""
    listed = description.get("channel_names") or description.get("modality") or {}
    if isinstance(listed, list):
        listed = dict(enumerate(listed))
    return {int(index): str(name) for index, name in listed.items() if str(index).isdigit()}


def _channel_of(listed: Mapping[int, str]) -> dict[str, int]:
    """The channel of each modality; none where two have the same, since then the names do not mean what they say."""
    named = {index: modality for index, name in listed.items() if (modality := modality_named(name))}
    channels = {modality: index for index, modality in named.items()}
    return channels if len(channels) == len(named) else {}


def _images(folder: Folder, part: str) -> dict[str, dict[int, ScanFile]]:
    """The files of each case by channel."""
    images: dict[str, dict[int, ScanFile]] = defaultdict(dict)
    for name, file in scans_in(folder, part).items():
        if match := match_channel(name):
            images[match[1]][int(match[2])] = file
    return images


def _refuse_without_channel(folder: Folder) -> list[Refusal]:
    """Files beside the images whose names end in no channel."""
    strange = [file for part in IMAGES for name, file in scans_in(folder, part).items() if match_channel(name) is None]
    remedy = "end its name in its channel, such as _0000, or move it elsewhere"
    return [
        Refusal(case_id=nifti_stem(file.name), file=str(file), finding="its name ends in no channel", remedy=remedy)
        for file in strange
    ]


def _refuse_without_images(case_id: str, label: ScanFile) -> Refusal:
    finding = f"{label.parent.name}/{label.name} has no images {case_id}_0000, …"
    return Refusal(case_id=case_id, file=str(label), finding=finding, remedy="add them, or take the label away")


def _refuse_channels(folder: Folder, file: ScanFile, listed: Mapping[int, str], wanted: Sequence[str]) -> Refusal:
    named = ", ".join(f"{index} {name}" for index, name in listed.items()) or "none"
    return Refusal(
        case_id=folder.path.name,
        file=str(file),
        finding=f"wanted channels that are {', '.join(wanted)}, those listed are {named}",
        remedy=f"name them so in it, or {say_channels(f'{index:04d}' for index in listed)}",
    )


def say_channels(channels: Iterable[str]) -> str:
    """How the scan of each channel is told on the command line."""
    order = " ".join(f"SCAN {channel}" for channel in sorted(channels)) or "SCAN 0000"
    return f"say which scan each channel is with --names {order}, a SCAN being flair, t1, t1ce or t2, and --modalities"
