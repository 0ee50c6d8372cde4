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
    assert stop.guard_all([work], ask=ask) == {0: "saved"}
    assert stop.exit_status == status
    assert signal.getsignal(number) is before


def test_works_side_by_side_or_one_after_the_other() -> None:
    met = threading.Barrier(2, timeout=30)
    meet = [lambda number=number: (met.wait(), number)[1] for number in range(4)]
    assert Stop().guard_all(meet, ask=lambda: True, at_once=2) == {0: 0, 1: 1, 2: 2, 3: 3}
    begun: list[int] = []
    alone = threading.Lock()

    def be_alone(number: int) -> None:
        assert alone.acquire(blocking=False)
        begun.append(number)
        alone.release()

    Stop().guard_all([lambda number=number: be_alone(number) for number in range(4)], ask=lambda: True)
    assert begun == [0, 1, 2, 3]


def test_after_a_signal_no_other_work_begins() -> None:
    asked = threading.Event()

    def work() -> str:
        send(signal.SIGTERM)
        assert asked.wait(30)
        return "saved"

    stop = Stop()
    assert stop.guard_all([lambda: "done", work, work], ask=lambda: asked.set() or True) == {0: "done", 1: "saved"}
    assert stop.asked


def test_what_one_work_raises_ends_the_others_and_comes_out() -> None:
    asked = threading.Event()
    ended: list[bool] = []

    def fail() -> None:
        raise ZeroDivisionError("in a worker")

    with pytest.raises(ZeroDivisionError, match="in a worker"):
        Stop().guard_all([fail, lambda: ended.append(asked.wait(30))], ask=lambda: asked.set() or True, at_once=2)
    assert ended in ([True], [])  # asked to end, or not begun


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
        Stop().guard_all([work], ask=ask)
    let_go.set()
    assert cut_off.value.status == 130
    assert asked == [1]


def test_where_nobody_can_save_the_first_signal_is_the_end() -> None:
    let_go = threading.Event()

    def work() -> None:
        send(signal.SIGTERM)
        let_go.wait(30)

    with pytest.raises(StoppedBySignalError) as cut_off:
        Stop().guard_all([work], ask=lambda: False)
    let_go.set()
    assert cut_off.value.status == 143


def test_what_the_work_raises_comes_out() -> None:
    def work() -> None:
        raise ZeroDivisionError("in a worker")

    with pytest.raises(ZeroDivisionError, match="in a worker"):
        Stop().guard_all([work], ask=lambda: True)


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
