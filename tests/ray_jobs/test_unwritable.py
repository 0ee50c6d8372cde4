"""What cannot be written is said before anything is computed for it, in one line that names the place."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage import CohortStore, InputError
from storage.store.objects import refuse_unwritable

PLACES = ("/proc/none/here", "a file/here", f"{'long' * 70}/here")  # no user, root included, can write to the first

Run = Callable[..., Any]


@pytest.mark.parametrize("place", PLACES)
def test_where_nothing_can_be_written_is_said_and_left_alone(place: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(InputError, match=r"another place") as caught:
        refuse_unwritable(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_where_something_can_be_written_nothing_is() -> None:
    refuse_unwritable("s3://nobodys-bucket/here")  # is not asked: that takes a request, and answers when it is used


def test_a_folder_that_is_not_there_yet_will_do(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "a" / "b")
    refuse_unwritable(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", ["train", "tune", "thresholds", "predict", "score", "convert", "mirror", "package", "give"]
)
def test_no_command_begins_what_it_cannot_write(
    command: str,
    tmp_path: Path,
    phantom_source: Path,
    phantom_store: CohortStore,
    make_checkpoint: Callable[..., str],
    run_here: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, trained, place = (
        ["--store", phantom_store.uri],
        ["--checkpoint", make_checkpoint("trained", seed=1)],
        PLACES[0],
    )
    labels = ["--prediction", str(phantom_source), "--label", phantom_store.uri]
    arguments: dict[str, Sequence[str]] = {
        "train": ["train.py", *store, "--runs", place],
        "tune": ["tune.py", *store, "--runs", place],
        "thresholds": ["tune.py", "--search", "threshold", "--split", "all", *store, *trained, "--runs", place],
        "predict": ["predict.py", *trained, "--input", phantom_store.uri, "--output", place],
        "score": ["score.py", *labels, "--output", place],
        "convert": ["convert.py", "--source", str(phantom_source), "--store", place],
        "mirror": ["convert.py", *store, "--mirror", place],
        "package": ["package.py", *trained, "--tag", "team", "--output", place],
        "give": ["give.py", "onnx", *trained, "--output", place],
    }
    for job in ("on_ray.ray_start.ray_running", "exchange.giving.give", "predicting.score_job.score_pairs"):
        monkeypatch.setattr(f"ray_jobs.{job}", None)  # nobody comes to these
    done = run_here(*arguments[command])
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and place in done.stderr


@pytest.mark.parametrize(
    ("name", "begins"),
    [("études", "é"), ("a/b", "slashes"), (".hidden", ". and -"), ("n" * 101, "100"), ("a\nb", "plain")],
)
@pytest.mark.parametrize("script", ["train.py", "tune.py"])
def test_a_name_that_cannot_be_is_refused_at_once(script: str, name: str, begins: str, run_here: Run) -> None:
    done = run_here(script, "--name", name)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: --name must be a plain word") and begins in done.stderr


def test_folders_of_the_machine_are_asked_too(run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    done = run_here("train.py")
    assert done.returncode == 2 and "XDG_CACHE_HOME" in done.stderr and done.stderr.count("\n") == 1
