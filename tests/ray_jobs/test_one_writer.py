"""Whatever a command writes to, another that is at it already is named, and loses nothing."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from storage import CohortStore
from storage.store.in_use import only_writer


@pytest.mark.processes
@pytest.mark.usefixtures("on_shared_head")
@pytest.mark.parametrize("command", ["train", "tune", "thresholds", "threshold", "predict", "score", "convert"])
def test_a_place_that_another_command_writes_to_is_refused(
    command: str,
    tmp_path: Path,
    phantom_source: Path,
    phantom_store: CohortStore,
    make_checkpoint: Callable[..., str],
    run_here: Callable[..., object],
    small_arguments: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, store = tmp_path / "runs" / "twice", ["--store", phantom_store.uri]
    of_run = ["--runs", str(place.parent), "--name", place.name]
    labels = ["--prediction", str(phantom_source), "--label", phantom_store.uri]
    trained = ["--checkpoint", make_checkpoint("trained", seed=1)]
    arguments = {
        "train": ["train.py", *store, *of_run, *small_arguments],
        "tune": ["tune.py", *store, *of_run, *small_arguments],
        "thresholds": ["tune.py", "--search", "threshold", "--split", "all", *store, *of_run, *trained],
        "threshold": ["threshold.py", *store, *trained, "--split", "all", "--output", str(place)],
        "predict": ["predict.py", *trained, "--input", phantom_store.uri, "--output", str(place)],
        "score": ["score.py", *labels, "--output", str(place)],
        "convert": ["convert.py", "--source", str(phantom_source), "--store", str(place)],
    }[command]
    if command == "convert":  # into a store, in which a case is missing
        assert run_here(*arguments).returncode == 0
        shutil.rmtree(place / "cases" / "BraTS20_Training_002")
    else:
        half = place / "checkpoint_epoch_0001" / "model.safetensors"  # the other is about to write the rest
        half.parent.mkdir(parents=True)
        half.touch()
    if command == "predict":  # into a folder of its own
        monkeypatch.setattr("ray_jobs.predicting.job.describe_prediction", lambda *_: {})
        (place / "config.json").write_text("{}")
    if command == "score":
        places = {"prediction": str(phantom_source), "label": phantom_store.uri}
        (place / "config.json").write_text(
            json.dumps({**places, "task": "gli-2021", "rules": "plain", "trust_grid": False})
        )
    with only_writer(str(place), "wait"):
        before = {path for path in place.rglob("*") if path.name != "config.json"}
        done = run_here(*arguments)
        assert {path for path in place.rglob("*") if path.name != "config.json"} == before
    assert done.returncode == 2, done.stdout + done.stderr
    assert "is in use by `" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr, done.stderr
