"""A folder or bucket is written to by one command at a time, and by the next as soon as that is gone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storage import InputError
from storage.store import in_use
from storage.store.in_use import only_writer
from storage.store.objects import Objects

ELSEWHERE = ["another start of a machine", "pid:[1]", "1"]


@pytest.fixture(params=["disk", "S3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else request.getfixturevalue("bucket")


def leave_mark(place: str, **changes: Any) -> dict[str, Any]:
    """Leave what a command would that had held the place."""
    mark = in_use._make_mark() | changes
    Objects(place, create=True).put("in_use_000007.json", json.dumps(mark).encode())
    return mark


def refused(place: str, pid: int) -> None:
    with pytest.raises(InputError, match=rf"is in use by `.*` \(process {pid} on .*\): wait for it"):
        only_writer(place, "wait for it").__enter__()


def test_a_second_command_is_refused_while_the_first_lives(place: str) -> None:
    with only_writer(place, "wait for it"):
        refused(place, os.getpid())
        assert Objects(place).files() == ["in_use_000001.json"]
    assert Objects(place).files() == []
    with only_writer(place, "wait for it"):
        pass


@pytest.mark.processes
def test_the_mark_of_a_process_that_was_killed_does_not_count(place: str) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = leave_mark(place, pid=gone.pid, process=in_use._identify(gone.pid))
    refused(place, gone.pid)
    gone.kill()
    gone.communicate()
    with only_writer(place, "wait for it"):
        assert Objects(place).files() == ["in_use_000008.json"]
    leave_mark(place, pid=os.getpid(), process=mark["process"])  # its number is another process's now
    with only_writer(place, "wait for it"):
        assert Objects(place).files() == ["in_use_000008.json"]


def test_a_command_on_another_machine_lives_as_long_as_it_says_so(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = leave_mark(place, process=ELSEWHERE, pid=1)
    looks: list[float] = []

    def look_later(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            leave_mark(place, **mark | {"beat": 1})

    monkeypatch.setattr(in_use.time, "sleep", look_later)
    monkeypatch.setattr(in_use.time, "monotonic", lambda: 2.0 * len(looks))
    refused(place, 1)
    assert len(looks) == 3
    with only_writer(place, "wait for it"):  # nothing more was heard of it
        assert Objects(place).files() == ["in_use_000008.json"]
    assert 2 * (len(looks) - 3) >= in_use.SILENT_RENEWALS * in_use.RENEW_SECONDS


@pytest.mark.parametrize("ended", [False, True])  # with or without a word, while the second waited for one
def test_of_two_that_find_a_dead_mark_one_gets_the_place(
    place: str, monkeypatch: pytest.MonkeyPatch, *, ended: bool
) -> None:
    leave_mark(place, process=ELSEWHERE)
    quicker = only_writer(place, "wait for it")
    judge = in_use._is_alive

    def be_overtaken(*_: object) -> bool:
        if ended:
            Objects(place).delete("in_use_000007.json")
        monkeypatch.setattr(in_use, "_is_alive", lambda *_: False)
        quicker.__enter__()
        monkeypatch.setattr(in_use, "_is_alive", judge)
        return False

    monkeypatch.setattr(in_use, "_is_alive", be_overtaken)
    refused(place, os.getpid())
    assert Objects(place).files() == ["in_use_000001.json" if ended else "in_use_000008.json"]
    quicker.__exit__(None, None, None)
    assert Objects(place).files() == []


def test_a_long_command_renews_its_mark(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_use, "RENEW_SECONDS", 0.01)
    with only_writer(place, "wait for it"):
        read = lambda: json.loads(Objects(place).get("in_use_000001.json") or b"")  # noqa: E731
        mark = read()
        while (now := read())["beat"] < 2:
            pass
    assert now | {"beat": 0} == mark | {"beat": 0}
