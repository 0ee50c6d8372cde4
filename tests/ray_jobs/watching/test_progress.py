"""The run's news in words, on a terminal and in a log."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.settings import console
from ray_jobs.settings.console import WIDTH_OF_A_LOG, open_console, tracked
from ray_jobs.watching import progress
from ray_jobs.watching.ledger import Ledger
from ray_jobs.watching.progress import Bar, Lines, News, TrainingProgress


def latest(epoch: int, step: int, iou: float = float("nan")) -> dict[str, Any]:
    figures = {"loss": 0.5, "patches_per_second": 4.0, "data_wait_fraction": 0.012, "score_name": "IoU", "score": iou}
    return {"stage": "training", "epoch": epoch, "step": step, "steps": 10, **figures}


def test_figures_and_the_time_left() -> None:
    news = News(epochs=4)
    news.take(latest(0, 0), now=100.0)
    assert news.left == ""  # no pace yet
    news.take(latest(1, 0), now=130.0)
    assert (news.done, news.total, news.stage) == (10, 40, "training, epoch 2 of 4")
    assert news.figures == "loss 0.500  4.0 patches/s  data wait 1.2%"
    assert news.left == "0:01:30 left"
    news.take(latest(3, 10, iou=0.7), now=200.0)
    assert news.figures.endswith("IoU 0.700")
    assert news.left == "0:00:00 left"


def test_the_pace_of_a_resumed_run_is_that_of_this_start() -> None:
    news = News(epochs=4)
    news.take(latest(3, 0), now=0.0)
    news.take(latest(3, 5), now=10.0)
    assert news.left == "0:00:10 left"


def test_workers_that_are_started_again_have_a_pace_of_their_own() -> None:
    news = News(epochs=4)
    news.take(latest(0, 0), now=0.0)
    news.take(latest(2, 0), now=20.0)
    assert news.left == "0:00:20 left"
    news.take(latest(1, 5), now=500.0)  # from the checkpoint before; a machine was waited for meanwhile
    assert news.left == ""
    news.take(latest(2, 0), now=505.0)
    assert news.left == "0:00:20 left"


def test_whoever_asks_to_stop_hears_whether_a_worker_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = [(None, [], [], []), (latest(0, 1), [], [], [])]
    asked: list[str] = []
    board = SimpleNamespace(
        look=SimpleNamespace(remote=lambda: seen.pop(0)),
        stop=SimpleNamespace(remote=lambda: asked.append("stop")),
    )
    monkeypatch.setattr(progress, "start_board", lambda: board)
    monkeypatch.setattr(progress.ray, "get", lambda answer: answer)
    ledger = Ledger(RunFolder(str(tmp_path), "run"))
    shown = TrainingProgress(Console(file=io.StringIO()), ledger, epochs=2, workers=2, use_gpu=False)
    shown._metrics = SimpleNamespace(show=lambda figures: None)
    shown._show()
    assert not shown.ask_to_stop()
    shown._show()
    assert shown.ask_to_stop()
    assert asked == ["stop", "stop"]  # a worker that begins later finds it on the board


def test_after_an_epochs_last_checkpoint_the_page_is_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = ("saved", 0, 5.0)
    seen: list[Any] = [(latest(0, 1), [], [("step", 1, 4.0)], []), (latest(1, 0), [], [saved, saved], [])]
    board = SimpleNamespace(look=SimpleNamespace(remote=lambda: seen.pop(0)))
    monkeypatch.setattr(progress, "start_board", lambda: board)
    monkeypatch.setattr(progress.ray, "get", lambda answer: answer)
    asked: list[int] = []
    shown = TrainingProgress(
        Console(file=io.StringIO()),
        Ledger(RunFolder(str(tmp_path), "run")),
        **{"epochs": 2, "workers": 2, "use_gpu": False},
        after_saving=lambda: asked.append(len(seen)),
    )
    shown._metrics = SimpleNamespace(show=lambda figures: None)
    monkeypatch.setattr(shown, "_stop", SimpleNamespace(wait=lambda seconds: not seen))
    shown._watch()
    assert asked == [0]


def test_a_log_gets_a_line_an_epoch_or_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    lines, news = Lines(Console(file=log, width=WIDTH_OF_A_LOG)), News(epochs=2)
    for step in range(10):
        now[0] += 10.0
        news.take(latest(0, step, iou=0.5), now[0])
        lines.show(news)
    assert log.getvalue().count("\n") == 4  # at 10, 40, 70 and 100 s
    news.take(latest(1, 1), now[0])
    lines.show(news)
    written = log.getvalue().splitlines()
    assert len(written) == 5
    assert written[-1].startswith("training, epoch 2 of 2, 55%:  loss 0.500  4.0 patches/s")
    assert written[-1].endswith(" left")


def test_items_in_a_log_get_a_line_now_and_then_and_a_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    for _ in tracked(range(8), Console(file=log, width=WIDTH_OF_A_LOG), "predicting", total=10, done=2):
        now[0] += 12.0
    assert log.getvalue().splitlines() == [
        "predicting  5/10  0:01:00 left",
        "predicting  8/10  0:00:24 left",
        "predicting  10/10  0:00:00 left",
    ]


def test_items_on_a_terminal_get_a_bar() -> None:
    terminal = io.StringIO()
    shown = Console(file=terminal, force_terminal=True, width=WIDTH_OF_A_LOG)
    assert list(tracked("ab", shown, "predicting", total=3, done=1)) == ["a", "b"]
    assert "predicting" in terminal.getvalue() and "3/3" in terminal.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    terminal = io.StringIO()
    bar, news = Bar(Console(file=terminal, force_terminal=True, width=WIDTH_OF_A_LOG)), News(epochs=2)
    bar.start()
    news.take(latest(0, 5, iou=0.25), now=0.0)
    news.take(latest(1, 0, iou=0.25), now=1.0)
    bar.show(news)
    bar.stop()
    shown = terminal.getvalue()
    for word in ("epoch 2 of 2", "50%", "data wait 1.2%", "IoU 0.250", "0:00:02 left"):
        assert word in shown


def test_a_log_is_wide_enough_to_break_no_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    open_console().print("a line of a hundred characters " * 4)
    assert len(capsys.readouterr().out.splitlines()) == 1
    monkeypatch.setenv("COLUMNS", "70")
    assert open_console().width == 70
