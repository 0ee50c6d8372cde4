"""The world of the drills: one for all of them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def world(phantom_source: Path) -> Iterator[Any]:
    if os.environ.get("BRATS_DRILL") != "1":
        pytest.skip("it takes a network and mounts of its own, and root: make drill-cluster")
    from tests.system.cluster_drill.world import World

    folder = Path(tempfile.mkdtemp(prefix="drill-", dir="/var/tmp"))  # not in /tmp: hosts have one of their own
    folder.chmod(0o755)
    made = World(folder, phantom_source)
    try:
        yield made
    finally:
        made.stop()
        if os.environ.get("BRATS_DRILL_KEEP") != "1":
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def lost() -> Iterator[Any]:
    """What two files' scenes tell of a head that is lost."""
    from tests.system.cluster_drill.world import Lost

    made = Lost()
    yield made
    if made.command is not None:
        made.command.stop()
