"""What a challenge container is told: when it is built, and when it runs."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from ray_jobs.predicting.predict_config import InferenceConfig
from ray_jobs.settings.label_choice import told_task
from storage import InputError

CONFIG = "container.json"
# What docker takes: [HOST[:PORT]/]PATH[:VERSION], in lower case but for the version.
_TAG = re.compile(r"([a-zA-Z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InContainer:
    """What is decided when the container is built; flags of its entry program change it for one run."""

    write_task: str | None = None
    """Write the segmentations in the values of this task. Default: in those of the network's."""
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    """How file names end where they are not BraTS names: flair ENDING t1 ENDING …"""
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    seconds_per_case: float = 600.0
    """A case that takes longer is given up: its segmentation is empty."""
    gib_per_case: float = 24.0
    """The same where reading and predicting it takes more memory than this, the loaded networks included."""

    def __post_init__(self) -> None:
        told_task(self.write_task, flag="--write-task")
        for flag, value in (("--seconds-per-case", self.seconds_per_case), ("--gib-per-case", self.gib_per_case)):
            if not value > 0:
                raise InputError(f"wanted {flag} above 0, got {value:g}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackageConfig(InContainer):
    """Write a folder of which `docker build` makes an image for a challenge: /input read-only, /output flat."""

    checkpoint: tuple[str, ...]
    """Checkpoint folders, runs' folders for their best one, or a cross-validation's for that of each fold: paths or
    s3:// URLs. Several are averaged."""
    tag: str
    """The image's name, as docker takes it: team/method:1.0."""
    output: str | None = None
    """The folder to write. Default: containers/ and the tag."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.checkpoint:
            raise InputError("wanted --checkpoint FOLDER, or several, got none")
        if _TAG.fullmatch(self.tag) is None:
            raise InputError(
                f"wanted --tag as docker takes it, such as team/method:1.0 in lower case, got {self.tag!r}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(InContainer):
    """Segment every case below a folder; one that cannot be done gets an empty segmentation, and is named."""

    checkpoint: tuple[str, ...]
    """The networks' folders; several are averaged."""
    input: str = "/input"
    """Folder of NIfTI cases; nothing is written there."""
    output: str = "/output"
    """Folder for one <case_id>.nii.gz a case."""


def encode_config(config: PackageConfig) -> dict[str, Any]:
    """Return, as JSON, what the container is to know."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(InContainer)} | {
        "inference": dataclasses.asdict(config.inference)
    }


def read_config(folder: Path) -> RunConfig:
    """Return the defaults of the entry program that lies in `folder`, the build folder."""
    values = json.loads((folder / CONFIG).read_text())
    checkpoints = tuple(str(each) for each in sorted((folder / "checkpoints").iterdir()))
    return RunConfig(**values | {"inference": InferenceConfig(**values["inference"]), "checkpoint": checkpoints})
