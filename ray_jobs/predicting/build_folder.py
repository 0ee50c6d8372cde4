"""A folder of which docker makes a challenge's image: recipe, code, weights, entry program, licence. Builds nothing."""

import json
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ray_jobs.checkpoints.checkpoint import DECISION, FORMER_DECISION, MODEL, RECORD, Checkpoint
from ray_jobs.checkpoints.run_folder import CONFIG as OF_CHECKPOINT
from ray_jobs.predicting.container_config import CONFIG, PackageConfig, encode_config
from storage import InputError

PROJECT = Path(__file__).parents[2]
# What the entry program imports, and what installing it wants.
ROOMS = ("storage", "scoring", "dali_pipelines", "models", "ray_jobs")
FILES = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE")
WEIGHTS = (MODEL, OF_CHECKPOINT, RECORD, DECISION, FORMER_DECISION)
ENTRY = "segment.py"

RECIPE = """\
# {tag}: segments every case below /input, which may be read-only, into /output, without a network.
#   {build}
#   {run}
FROM python:3.12-slim-bookworm

# gcc: what PyTorch compiles for a GPU when it meets one.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \\
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 1000 segmenter
WORKDIR /opt/brats-stream
COPY project/ ./
RUN pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt --editable ".[train]"
COPY checkpoints/ checkpoints/
COPY {config} {entry} ./

USER segmenter
# The user's home may be read-only, too.
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["python", "/opt/brats-stream/{entry}"]
"""

PROGRAM = '''\
"""Segment every case below /input into /output: exit status 0, 3 where some failed (named on stderr), 2 where all did.

`python segment.py --help` says what one run may be told.
"""

import sys
from pathlib import Path

from ray_jobs.predicting.container import main
from ray_jobs.settings.exit_status import run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda arguments: main(arguments, Path(__file__).parent)))
'''


def folder_of(config: PackageConfig) -> Path:
    """Return the folder to write; raises InputError where something else lies there."""
    folder = Path(config.output or f"containers/{config.tag.replace('/', '-').replace(':', '-')}").expanduser()
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise InputError(
            f"wanted a new or empty folder to build in, found {folder}: remove it, or give --output another"
        )
    return folder


def write_package(config: PackageConfig, checkpoints: Sequence[Checkpoint], folder: Path) -> list[str]:
    """Write the folder, whole or not at all; return the commands that build and run the image."""
    if missing := [name for name in (*ROOMS, *FILES) if not (PROJECT / name).exists()]:
        raise InputError(
            f"wanted the project's folder to copy, found no {missing[0]} in {PROJECT}: type this in a checkout"
        )
    build = shlex.join(["docker", "build", "--tag", config.tag, str(folder)])
    run = (
        "docker run --rm --network none --gpus all --shm-size 2g --volume SCANS:/input:ro "
        f"--volume SEGMENTATIONS:/output {config.tag}"
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".package-") as scratch:
        made = Path(scratch) / "made"
        for room in ROOMS:
            shutil.copytree(PROJECT / room, made / "project" / room, ignore=shutil.ignore_patterns("__pycache__"))
        for file in FILES:
            shutil.copy(PROJECT / file, made / "project")
        shutil.copy(PROJECT / "LICENSE", made)
        for number, checkpoint in enumerate(checkpoints):
            copied = made / "checkpoints" / f"{number:02d}"
            copied.mkdir(parents=True)
            for name in WEIGHTS:
                if checkpoint.has(name):
                    (copied / name).write_bytes(checkpoint.read(name))
        (made / CONFIG).write_text(json.dumps(encode_config(config), indent=2) + "\n")
        (made / ENTRY).write_text(PROGRAM)
        recipe = RECIPE.format(
            tag=config.tag, build=build.replace(str(folder), "."), run=run, config=CONFIG, entry=ENTRY
        )
        (made / "Dockerfile").write_text(recipe)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return [build, run]
