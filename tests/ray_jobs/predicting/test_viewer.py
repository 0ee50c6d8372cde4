"""The viewer lies in the report where that stays small, and beside it else; tests/system opens it in a browser."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs.predicting import viewer
from ray_jobs.predicting.finishing import CaseFinisher, Predicted
from ray_jobs.predicting.report_page import build_report
from ray_jobs.predicting.viewer import COPY, LIBRARY, NIIVUE, copies_of, open_button, viewer_part
from storage.labels.tasks import GLIOMA_REGIONS
from tests.small_case import CASE_ID, hold_small_case

# Of dist/niivue.umd.js in @niivue/niivue 0.69.0; as it came, so that anybody can compare.
SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


def record(case_id: str, *, copied: bool = True) -> dict[str, Any]:
    scores = {region.name: {"predicted_mm3": 1.0} for region in GLIOMA_REGIONS}
    files = [f"{case_id}_seg.nii.gz", *([COPY.format(case_id=case_id)] if copied else [])]
    return {"case_id": case_id, "labelled": False, "regions": scores, "mean_of": list(scores), "files": files}


def build(records: list[dict[str, Any]]) -> str:
    return build_report(
        "run", records, {}, {}, done="segmented", rules="plain", regions=GLIOMA_REGIONS, read=str.encode
    ).decode()


def test_niivue_is_as_it_was_published_and_may_stand_within_a_page() -> None:
    library = NIIVUE.read_bytes()
    assert hashlib.sha256(library).hexdigest() == SHA256
    assert b"</script" not in library.lower() and b"<!--" not in library
    said = NIIVUE.with_name("README.md").read_text()
    assert "0.69.0" in said and "BSD 2-Clause" in NIIVUE.with_name("LICENSE").read_text()


def test_a_small_page_holds_all_and_runs_nothing_yet() -> None:
    page = build([record("b"), record("a & <b>"), record("c", copied=False)])
    waiting = re.findall(r'<script type="text/plain" data-script="([^"]*)">', page)
    assert waiting == [LIBRARY, "viewer/a%20%26%20%3Cb%3E.js", "viewer/b.js"]
    assert ">viewer/b.js</script>" in page  # what was read
    assert re.findall(r'data-copy="([^"]*)"', page) == waiting[1:]
    assert NIIVUE.read_text() in page and "beside this page in" not in page
    assert 'aria-label="scroll through a &amp; &lt;b&gt;"' in page


def test_a_large_page_leaves_it_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record("a"), record("b")]
    small = len(build(records))
    monkeypatch.setattr(viewer, "MOST_WITHIN", small + 100)
    assert "data-script" in build(records)
    monkeypatch.setattr(viewer, "MOST_WITHIN", small - 2000)
    page = build(records)
    assert len(page) < 100_000 and "data-script=" not in page.replace("data-script=\"' +", "")
    assert "beside this page in viewer/" in page and f'run("{LIBRARY}")' in page
    assert re.findall(r'data-copy="([^"]*)"', page) == ["viewer/a.js", "viewer/b.js"]


def test_no_more_is_read_than_has_room() -> None:
    read: list[str] = []

    def take(name: str) -> bytes:
        read.append(name)
        return bytes(6_000_000)

    viewer_part([record(f"case{number}") for number in range(500)], take, page_bytes=0)
    assert len(read) == 3  # with NiiVue 20 MB are full


def test_without_copies_there_is_no_viewer() -> None:
    records = [record("a", copied=False)]
    page = build(records)
    assert viewer_part(records, str.encode, 0) == "" and "dialog" not in page and "niivue" not in page
    assert copies_of(records) == [] and open_button(records[0]) == ""


def test_a_copy_is_made_where_it_is_wanted(tmp_path: Path) -> None:
    held = hold_small_case(tmp_path)
    label_DHW = held.arrays.label_DHW
    assert label_DHW is not None
    whole = [(low, side - high) for (low, high), side in zip(held.case.bbox, held.case.original_shape, strict=True)]
    predicted = Predicted(held=held, predicted_DHW=np.pad(label_DHW, whole))
    for wanted in (True, False):
        result = CaseFinisher(scored_by="plain", written=None, figures=False, viewer=wanted)(predicted)
        made = [COPY.format(case_id=CASE_ID)] if wanted else []
        assert sorted(result.files) == sorted([f"{CASE_ID}_seg.nii.gz", *made])
        assert ("viewer" in result.record["seconds"]) is wanted
