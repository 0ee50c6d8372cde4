"""Events that were flushed outlive the process."""

import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ray_jobs.watching.event_file import EventFile

KILLED = """
import os, signal, sys
from pathlib import Path

import pytest
from ray_jobs.watching.event_file import EventFile
events = EventFile(Path(sys.argv[1]), print)
events.begin(1)
for step in range(1, 501):
    events.scalars({"loss": float(step)}, step)
events.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.processes
def test_all_that_was_flushed_is_there_after_a_kill(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path(__file__).parents[3])
    assert done.returncode == -9
    found = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in found] == [(step, float(step)) for step in range(1, 501)]


def test_a_later_start_takes_back_what_it_does_again(tmp_path: Path) -> None:
    for first, value in ((1, 1.0), (3, 2.0)):
        events = EventFile(tmp_path, print)
        events.begin(first)
        for step in range(first, 6):
            events.scalars({"loss": value}, step)
        events.close()
    found = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in found] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)]


def test_a_disk_that_takes_no_more_is_said_once_and_ends_the_events() -> None:
    told: list[str] = []
    events = EventFile(Path("/proc/self"), told.append)  # where nobody can make a file
    events.begin(1)
    for step in range(3):
        events.scalars({"loss": 1.0}, step)
        events.flush()
    events.begin(3)
    events.close()
    assert len(told) == 1 and told[0].startswith("no more events for TensorBoard")


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    events = EventFile(None, print)
    events.begin(1)
    events.scalars({"loss": 1.0}, 1)
    events.flush()
    events.close()
    assert list(tmp_path.iterdir()) == []
