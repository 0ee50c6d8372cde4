"""Signals while training: the first asks for an end, the second is one."""

import os
import signal
import sys
import threading

import pytest

from ray_jobs.settings.exit_status import StoppedBySignalError, run_command
from ray_jobs.training.gentle_stop import Stop


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_asks_and_the_work_ends_itself(number: int, status: int) -> None:
    before = signal.getsignal(number)
    asked = threading.Event()

    def work() -> str:
        send(number)
        assert asked.wait(30)
        return "saved"

    def ask() -> bool:
        asked.set()
        return True

    stop = Stop()
    assert stop.guard(work, ask=ask) == "saved"
    assert stop.exit_status == status
    assert signal.getsignal(number) is before


def test_the_second_signal_cuts_the_work_off() -> None:
    let_go = threading.Event()
    asked: list[int] = []

    def ask() -> bool:
        asked.append(1)
        send(signal.SIGINT)  # the user has no patience
        return True

    def work() -> None:
        send(signal.SIGINT)
        let_go.wait(30)

    with pytest.raises(StoppedBySignalError) as cut_off:
        Stop().guard(work, ask=ask)
    let_go.set()
    assert cut_off.value.status == 130
    assert asked == [1]


def test_where_nobody_can_save_the_first_signal_is_the_end() -> None:
    let_go = threading.Event()

    def work() -> None:
        send(signal.SIGTERM)
        let_go.wait(30)

    with pytest.raises(StoppedBySignalError) as cut_off:
        Stop().guard(work, ask=lambda: False)
    let_go.set()
    assert cut_off.value.status == 143


def test_what_the_work_raises_comes_out() -> None:
    def work() -> None:
        raise ZeroDivisionError("in a worker")

    with pytest.raises(ZeroDivisionError, match="in a worker"):
        Stop().guard(work, ask=lambda: True)


def test_a_command_that_is_cut_off_ends_with_the_signals_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])

    def main(_arguments: object) -> int:
        raise StoppedBySignalError(143)

    assert run_command(main) == 143
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [(StoppedBySignalError(143), 143, "cut off; "), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_a_signal_that_c_code_covered_ends_a_command_as_any_other(
    raised: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["convert.py"])

    def main(_arguments: object) -> int:
        try:
            raise RuntimeError("a task") from SystemError("returned a result with an exception set")
        except RuntimeError as error:
            error.__cause__.__cause__ = raised  # type: ignore[union-attr]
            raise

    assert run_command(main) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)


def test_another_error_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["convert.py"])

    def main(_arguments: object) -> int:
        raise ZeroDivisionError("our own")

    with pytest.raises(ZeroDivisionError, match="our own"):
        run_command(main)
