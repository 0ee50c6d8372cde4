"""What ends a job whose workers cannot be made ready, and what does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.on_ray.failed_setups import SetupLog


def failed(machine: str) -> str:
    """A line of Ray 2.60's monitor.log."""
    said = f"Ray installation failed on instance {machine}: Ray installation failed with unexpected status: x"
    return f"2026-11-29 12:00:00,000 INFO threaded_ray_installer.py:75 -- {said}\n"


READY = "2026-11-29 12:00:00,000 INFO im.py:263 -- Update instance RAY_INSTALLING->RAY_RUNNING (id=1, type=g4dn): x\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Those of a head where another job's workers failed before."""
    (tmp_path / "monitor.log").write_text(failed("i-0") * 3)
    (tmp_path / "monitor.out").write_text("set-up failed: long ago\n")
    return tmp_path


def add(logs: Path, text: str, name: str = "monitor.log") -> None:
    with (logs / name).open("a") as file:
        file.write(text)


def test_three_failures_of_one_machine_are_told_with_the_reason(logs: Path) -> None:
    log = SetupLog(logs)
    assert log.trouble() is None
    add(logs, failed("i-1") + failed("i-2") + failed("i-1") + failed("i-2"))
    assert log.trouble() is None
    add(logs, "…\r\nset-up failed: wanted NVIDIA driver 580\r\nConnection closed\n", "monitor.out")
    add(logs, failed("i-2")[:-9])  # in the middle of being written
    assert log.trouble() is None
    add(logs, failed("i-2")[-9:])
    assert log.trouble() == "the set-up of a worker failed 3 times on i-2: wanted NVIDIA driver 580"


def test_logs_that_went_with_their_cluster_say_nothing(logs: Path) -> None:
    log = SetupLog(logs)
    for name in ("monitor.log", "monitor.out"):
        (logs / name).unlink()
    assert log.trouble() is None


def test_a_reason_that_nobody_gave_is_in_the_log(logs: Path) -> None:
    log = SetupLog(logs)
    add(logs, failed("i-1") * 3)
    assert str(log.trouble()).endswith(f"on i-1: the end of {logs / 'monitor.out'} says why")


def test_a_machine_that_came_up_clears_the_others(logs: Path) -> None:
    log = SetupLog(logs)
    add(logs, failed("i-1") * 2)
    assert log.trouble() is None
    add(logs, READY)
    assert log.trouble() is None
    add(logs, failed("i-1"))
    assert log.trouble() is None


def test_a_machine_that_was_taken_away_is_no_failure(logs: Path) -> None:
    log = SetupLog(logs)
    add(logs, failed("i-1") * 2)
    assert log.trouble() is None
    gone = "(id=1, type=g4dn_xlarge, cloud_instance_id=i-1, ray_id=): cloud instance i-1 no longer found"
    add(logs, f"2026-11-29 12:00:00,000 INFO im.py:263 -- Update instance RAY_INSTALLING->TERMINATED {gone}\n")
    assert log.trouble() is None
    add(logs, failed("i-1"))
    assert log.trouble() is None


@pytest.mark.processes
def test_the_process_ends_as_after_sigterm(logs: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from ray_jobs.on_ray import failed_setups\n"
        "logs = Path(sys.argv[1]); failed_setups.SECONDS_BETWEEN_LOOKS = 0.05\n"
        "failed_setups.end_where_setups_fail(logs)\n"
        "print('watching', flush=True); time.sleep(3600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, logs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "watching\n"
    while process.poll() is None:  # its first look may come after this
        add(logs, failed("i-1") * 3)
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode == -15
    assert "error: the set-up of a worker failed" in process.stderr.read()
    process.stdout.close()
    process.stderr.close()
