"""A cross-validation's page: all cases out of fold, and its folds; of one that is not finished what there is."""

import re
from pathlib import Path

from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.reporting.folds_page import build_folds_page, write_folds_page
from tests.ray_jobs.recorded import rows, sections, write_folds


def test_the_page_of_the_whole(tmp_path: Path) -> None:
    folder = write_folds(tmp_path)
    (folder / "fold-0" / "report.html").write_text("its own")
    write_folds_page(RunFolder(str(tmp_path), "cv"))
    page = (folder / "report.html").read_text()
    assert sections(page) == ["next", "scores", "folds", "cases", "thresholds", "mishaps", "configuration"]
    assert "Finished at 2026-11-30T06:27:07+00:00." in page
    assert re.findall(r'href="([^#"]*/report.html)"', page) == ["fold-0/report.html"]  # the other has none yet
    scores = rows(page, "All cases, as decided")["mean"]
    assert re.fullmatch(r"0\.\d{3}–0\.\d{3}", scores[1])
    cases = rows(page, "Each case, the worst first")
    assert next(iter(cases)) == "BraTS20_Training_003" and cases["BraTS20_Training_003"][:2] == ["1", "HGG"]
    assert page.count("data:image/webp") == 6
    assert {name: row[0] for name, row in rows(page, "Each fold is a run with a page of its own").items()} == {
        "fold 0": "finished",
        "fold 1": "finished",
    }
    assert "IoU by grade (cases)" in page and "As the preset demo says it" not in page


def test_the_page_of_one_that_goes_on(tmp_path: Path) -> None:
    write_folds(tmp_path, finished=1)
    page = build_folds_page(RunFolder(str(tmp_path), "cv")).decode()
    assert "1 of 2 folds are finished." in page and "Folds are missing" in page
    folds = rows(page, "Each fold is a run with a page of its own")
    assert folds["fold 0"][0] == "finished" and folds["fold 1"][0] == "not finished"
    assert "scores" not in sections(page) and "<figcaption>Loss of each fold</figcaption>" in page
