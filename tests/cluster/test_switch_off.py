"""switch_off.sh against stand-ins for what it asks: what keeps a head and a worker, and that nothing else does."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "node" / "switch_off.sh"

pytestmark = pytest.mark.processes


class Machine:
    """Commands that answer as the test says, a clock that only `sleep` moves, and what was asked of `sudo`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "bin").mkdir()
        (place / ".ray").mkdir()
        (place / ".ray" / "auth_token").write_text("secret")
        (place / "brats.env").write_text("export BRATS_HEAD_IDLE_MINUTES=3 BRATS_WORKER_ALONE_MINUTES=2\n")
        self.says("sudo", f'shift; echo "$@" >> {place / "said"}; [ "$3" != now ] || touch {place / "off"}')
        self.says("curl", "exit 7")
        self.says("pgrep", "exit 1")
        self.says("find", "exit 0")

    def says(self, name: str, text: str) -> None:
        path = self.place / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def rounds(self, kind: str, *, most: int) -> int | None:
        """How often it looked before it shut the machine down; None when it had not after `most` times."""
        rounds = self.place / "rounds"
        # Each sleep takes no time and moves bash's own clock by a minute.
        text = SCRIPT.read_text().replace(
            "    sleep 10\n",
            f"    ((SECONDS += 60)); echo >> {rounds}; (($(wc -l < {rounds}) < {most})) || exit 9\n",
        )
        assert str(rounds) in text
        environment = {"HOME": str(self.place), "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", text, "switch_off.sh", kind], env=environment, capture_output=True, text=True
        )
        assert done.returncode in (0, 9), done.stderr
        assert (self.place / "off").exists() == (done.returncode == 0)
        return len(rounds.read_text().splitlines()) if done.returncode == 0 else None


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(("kind", "minutes"), [("worker", 10), ("head", 60)])
def test_nobody_needs_it(machine: Machine, kind: str, minutes: int) -> None:
    (machine.place / "brats.env").unlink()
    assert machine.rounds(kind, most=100) in (minutes, minutes + 1)
    assert (machine.place / "said").read_text() == "shutdown -c\nshutdown -h now\n"


def test_the_minutes_are_a_setting(machine: Machine) -> None:
    assert machine.rounds("head", most=9) in (3, 4)
    (machine.place / "rounds").unlink()
    (machine.place / "off").unlink()
    assert machine.rounds("worker", most=9) in (2, 3)


@pytest.mark.parametrize("given", ["0", "0.5", "never", ""])
def test_minutes_that_are_none_are_the_usual_ones(machine: Machine, given: str) -> None:
    """A slip must not end a machine at once."""
    (machine.place / "brats.env").write_text(f"export BRATS_WORKER_ALONE_MINUTES={given}\n")
    assert machine.rounds("worker", most=99) in (10, 11)


def test_a_worker_lives_as_long_as_its_raylet(machine: Machine) -> None:
    machine.says("pgrep", '[ "$*" = "--exact raylet" ]')
    assert machine.rounds("worker", most=9) is None
    (machine.place / "rounds").unlink()
    assert machine.rounds("head", most=9) is not None  # which has one of its own


@pytest.mark.parametrize("status", ["RUNNING", "PENDING"])
def test_a_job_keeps_the_head_and_nobody_sees_the_token(machine: Machine, status: str) -> None:
    seen = machine.place / "seen"
    answer = f'[{{"type": "SUBMISSION", "status": "SUCCEEDED"}}, {{"type": "DRIVER", "status": "{status}"}}]'
    machine.says("curl", f'echo "$@" >> {seen}; cat "${{5#@}}" >> {seen}; echo \'{answer}\'')
    assert machine.rounds("head", most=9) is None
    told = seen.read_text()
    assert "http://127.0.0.1:8265/api/jobs/" in told
    assert told.count("Authorization: Bearer secret") == told.count("--silent")
    assert not any("secret" in line for line in told.splitlines() if line.startswith("--silent"))


def test_jobs_that_are_over_do_not(machine: Machine) -> None:
    machine.says("curl", """echo '[{"status": "FAILED", "message": "\\"status\\": \\"RUNNING\\""}]'""")
    assert machine.rounds("head", most=9) is not None


def test_a_command_of_the_project_and_a_terminal_in_use_keep_the_head(machine: Machine) -> None:
    machine.says("pgrep", '[ "$*" = "--full python.* ray_jobs/" ]')
    assert machine.rounds("head", most=9) is None
    machine.says("pgrep", "exit 1")
    machine.says("find", "echo /dev/pts/1")
    (machine.place / "rounds").unlink()
    assert machine.rounds("head", most=9) is None
