"""A search's page: its trials, cost against score, what mattered, each trial's thresholds."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.searching.importance import importance_of
from ray_jobs.searching.search_page import build_search_page, write_search_page
from ray_jobs.searching.search_steps import steps_after_search
from storage import InputError
from tests.ray_jobs.recorded import ODD, rows, sections, write_search, write_thresholds


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_search(tmp_path_factory.mktemp("runs"))


def trials_of(search: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((search / "results.json").read_text())["trials"]
    return found


def test_the_page_of_a_search(search: Path) -> None:
    write_search_page(RunFolder(str(search.parent), search.name))
    page = (search / "report.html").read_text()
    assert sections(page) == ["next", "trials", "fields", "cost", "thresholds", "failed", "configuration"]
    assert "10 trials: 9 finished, 0 stopped, 1 failed. The best, of the highest mean IoU, had learning_rate" in page
    trials = rows(page, "Trials, the best first")
    assert list(trials) == [str(place) for place in range(1, 11)]
    best = trials_of(search)[0]
    assert trials["1"][2] == "finished" and trials["1"][-2:] == [f"{best['seconds'] / 60:.1f}", f"{best['cost']:.3g}"]
    # The search was copied since: what lies in its folder is linked, and no other trial has a page.
    links = re.findall(r'href="(trials/[^"]*)"', page)
    assert links == [f"trials/{best['run'].rpartition('/')[2]}/report.html"] and (search / links[0]).exists()
    for title in ("Over optimiser.learning_rate", "A trial&#x27;s score over what it cost", "WT, the best trials"):
        assert f"<figcaption>{title}</figcaption>" in page
    assert set(rows(page, "Thresholds that each trial was scored at")["1"][1:]) == {"0.500"}
    assert ODD not in page and "&lt;chunk&gt; &amp; crc" in page
    importance = rows(page, "Share of each field in what the score varied among 10 trials")
    assert next(iter(importance)) == "optimiser.learning_rate"


def test_the_page_of_a_search_over_thresholds(tmp_path: Path) -> None:
    write_thresholds(tmp_path)
    page = build_search_page(RunFolder(str(tmp_path), "thresholds")).decode()
    assert "11 thresholds on the validation cases." in page
    assert rows(page, "Best thresholds")["shared"] == ["0.500"] * 4


def test_a_search_that_is_not_finished_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not finished: its command with --resume goes on"):
        build_search_page(RunFolder(str(tmp_path), "none"))


def test_of_few_trials_nothing_is_said_of_importance(search: Path) -> None:
    trials = trials_of(search)
    assert importance_of(trials[:7], "iou") is None
    assert importance_of([{**row, "values": {"epochs": 4}} for row in trials], "iou") is None
    shares = importance_of(trials, "iou")
    assert shares is not None and sum(shares.values()) == pytest.approx(1.0)
    assert shares == importance_of(trials, "iou")
    words = [{**row, "values": {"optimiser.name": "sgd" if place % 2 else "adamw"}} for place, row in enumerate(trials)]
    assert importance_of(words, "iou") == {"optimiser.name": 1.0}


def test_what_to_do_after_a_search(search: Path) -> None:
    trials = trials_of(search)
    text = "\n".join(steps_after_search(trials, "runs/my search", "iou"))
    assert "1 of 10 trials failed" in text and "--checkpoint 'runs/my search' --input" in text
    assert re.search(r"`--optimiser.learning-rate 0\.00\d+ --loss.dice-weight 1`", text)
    assert "that was tried" not in text
    ends = sorted(trials, key=lambda row: -row["values"]["optimiser.learning_rate"])
    text = "\n".join(steps_after_search(ends, "s", "iou"))
    assert "The best optimiser.learning_rate is the greatest that was tried" in text
    slow = [{**trials[0], "seconds": 9000.0}, *trials[1:]]
    near = [slow[0], {**slow[1], "iou": slow[0]["iou"]}]
    assert "Trial 2 came within 0.01 IoU of the best in 1" in "\n".join(steps_after_search(near, "s", "iou"))
    assert steps_after_search([{"status": "failed", "values": {}}], "s", "iou") == [
        "No trial came to a score: the errors below say why."
    ]
