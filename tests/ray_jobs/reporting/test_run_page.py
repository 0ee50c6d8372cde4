"""A run's page says what its folder says: of a finished run, of one that goes on, and of one of an earlier version."""

import json
import re
from pathlib import Path

import pytest

from models import mean_interval
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.reporting.run_page import build_run_page, keep_page, write_run_page
from ray_jobs.reporting.run_record import read_run
from tests.ray_jobs.recorded import ODD, rows, sections, write_run


def page_of(folder: Path) -> str:
    return build_run_page(read_run(str(folder), folder.name)).decode()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs"))


def test_the_page_of_a_finished_run(finished: Path) -> None:
    page = page_of(finished)
    assert sections(page) == ["next", "curves", "scores", "thresholds", "time", "mishaps", "configuration", "origin"]
    assert "Finished at 2026-11-30T06:27:07+00:00; kept are the weights after epoch 5 of 8." in page
    for title in ("Loss", "IoU on validation cases", "Learning rate", "Share of the time spent waiting for data"):
        assert f"<figcaption>{title}</figcaption>" in page
    assert rows(page, "Where the time of the last start went")["wait"][0] == "100.0"
    assert "cost: $0.50 for 0.17 hours of workers" in page and "restarts: 1, 1.2 minutes and $0.02 lost" in page
    restarts = rows(page, "Workers that were started again, seconds by part")
    assert restarts == {"1, after a notice": [*["10"] * 7, "70", "2", "0.02"]}
    assert set(rows(page, "Cases that could not be read")) == {"BraTS20_Training_098", "BraTS20_Training_099"}
    differ = rows(page, "What is not as in the preset demo")
    assert differ == {"sampling.global_batch_size": ["4", "8"]}
    assert "checkpoint_epoch_0005" in "".join(rows(page, "Where it lies and what it was made with")["kept checkpoint"])
    assert ODD not in page and "&lt;chunk&gt; &amp; crc" in page


def test_cases_come_worst_first_each_with_its_picture(finished: Path) -> None:
    page, summary = page_of(finished), json.loads((finished / "summary.json").read_text())
    cases = summary["validation"]["by_case"]
    ordered = sorted(cases, key=lambda case: cases[case]["iou"]["mean"])
    found = rows(page, "Each validation case, the worst first")
    assert list(found) == ordered and ordered[0] == "BraTS20_Training_003"
    assert found[ordered[0]][0] == f"{cases[ordered[0]]['iou']['mean']:.3f}"
    assert re.findall(r"Picture of (\w+)</summary>", page)[:5] == ordered
    assert page.count("<details open>") == 3 + 2  # the worst three, and both test cases
    assert page.count("data:image/webp;base64,") == 7


def test_means_have_intervals_over_subjects(finished: Path) -> None:
    found = rows(page_of(finished), "Means over cases, with 95 % intervals over subjects")
    summary = json.loads((finished / "summary.json").read_text())
    part = summary["validation"]
    low, high = mean_interval([own["iou"]["mean"] for own in part["by_case"].values()]) or (0, 0)
    assert found["mean"][:2] == [f"{part['iou']['mean']:.3f}", f"{low:.3f}–{high:.3f}"]
    assert found["mean"][-1] == "0.200"  # the baseline
    checkpoint = finished / "checkpoint_epoch_0005" / "cases.json"
    cases = json.loads(checkpoint.read_text())
    try:
        checkpoint.write_text(json.dumps({case: {**own, "subject": "one"} for case, own in cases.items()}))
        assert rows(page_of(finished), "Means over cases, with 95 % intervals over subjects")["mean"][1] == ""
    finally:
        checkpoint.write_text(json.dumps(cases))


def test_the_curve_of_what_was_done_twice_is_there_once(finished: Path) -> None:
    run = read_run(str(finished), "first")
    assert run.across == "epoch" and [at for at, _ in run.series("epoch/loss")] == list(range(1, 9))
    steps = run.series("loss/step")
    assert len(steps) == 80 and steps[-1][0] == 8.0


def test_the_page_of_a_run_that_goes_on(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, finished=False))
    assert "Not finished: this is the run after 5 of 8 epochs." in page
    assert "the command that began it goes on from there" in page
    assert next(iter(rows(page, "Each validation case, the worst first"))) == "BraTS20_Training_003"
    assert "So far 0.17 hours of workers, $0.50 by list prices." in page
    assert rows(page, "What is not as in the preset demo")["sampling.global_batch_size"] == ["4", "8"]
    assert rows(page, "What makes regions of the probabilities")["WT"] == ["0.450", "50", "0"]


def test_the_page_of_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    folder = write_run(tmp_path, finished=False)
    for place in (folder / "checkpoint_epoch_0005").iterdir():
        place.unlink()
    for file in folder.glob("events.*"):
        file.unlink()
    (folder / "spent.json").unlink()
    page = page_of(folder)
    assert "Not finished; no checkpoint yet." in page and "Which preset it began with is not written down." in page
    assert sections(page) == ["next", "mishaps", "configuration", "origin"]


def test_the_page_of_an_earlier_version_that_kept_less(finished: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    for name in ("curves.json", "cases.json"):
        (folder / "checkpoint_epoch_0005" / name).unlink()
    for file in folder.glob("events.*"):
        file.unlink()
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("decision", "objective", "restarts", "cost"):
        del summary[key]
    del summary["validation"]["by_case"], summary["validation"]["by_case_at_half"], summary["validation"]["plain"]
    (folder / "summary.json").write_text(json.dumps(summary))
    page = page_of(folder)
    assert "<figcaption>Loss</figcaption>" in page  # by the summary's history
    assert "Each test case, the worst first" in page and "Each validation case" not in page


def test_it_is_the_same_page_of_the_same_folder_and_one_file(finished: Path) -> None:
    write_run_page(RunFolder(str(finished.parent), finished.name))
    page = (finished / "report.html").read_text()
    assert page == page_of(finished)
    assert not re.findall(r'(?:href|src)="(?!data:|#)', page) and "<script" not in page and "url(" not in page


def test_what_keeps_a_page_from_being_written_is_told_and_costs_nothing_else(tmp_path: Path) -> None:
    told: list[str] = []

    def broken(folder: RunFolder) -> None:
        raise ValueError("odd")

    keep_page(broken, RunFolder(str(tmp_path), "first"), told.append)
    assert told == ["report.html of first is not up to date: odd"]
