"""The report is one file that needs nothing else, with the worst case first; a browser opens it in tests/system."""

import base64
import io
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ray_jobs.predicting.report_page import build_report, sort_worst_first
from storage import Region
from storage.labels.tasks import (
    GLI_2021_TASK,
    GLIOMA_REGIONS,
    GTV_REGIONS,
    PAEDIATRIC_REGIONS,
    POST_TREATMENT_REGIONS,
)

REGIONS = GLI_2021_TASK.region_names


def record(case_id: str, dice: float | None, names: Sequence[str] = REGIONS) -> dict[str, Any]:
    scores = {} if dice is None else {"dice": dice, "hd95": 3.25, "lesion_dice": dice}
    regions = {region: {**scores, "predicted_mm3": 12500.0} for region in names}
    files = [f"figures/{case_id}_3d.png", f"figures/{case_id}_sections.png", f"{case_id}_seg.nii.gz"]
    labelled = dice is not None
    return {"case_id": case_id, "labelled": labelled, "regions": regions, "mean_of": list(names), "files": files}


RECORDS = [record("good", 0.9), record("b", None), record("bad & <b>", 0.2), record("a", None), record("fair", 0.5)]


def picture(name: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), 255 if "3d" in name else 0, np.uint8)).save(file, "PNG")
    return file.getvalue()


def build(
    records: list[dict[str, Any]], refused: dict[str, str] | None = None, regions: Sequence[Region] = GLIOMA_REGIONS
) -> str:
    settings = {"thresholds": {"WT": 0.5, "TC": 0.25}, "figures": True, "inference": {"overlap": None}, "input": "a<b"}
    return build_report(
        "run & name", records, refused or {}, settings, done="segmented", rules="2023", regions=regions, read=picture
    ).decode()


def test_the_worst_come_first_and_those_without_a_label_last() -> None:
    assert [each["case_id"] for each in sort_worst_first(RECORDS)] == ["bad & <b>", "fair", "good", "a", "b"]
    page = build(RECORDS)
    assert re.findall(r'<tbody class="case" id="([^"]*)"', page) == ["bad &amp; &lt;b&gt;", "fair", "good", "a", "b"]


def test_what_is_odd_is_listed() -> None:
    page = build_report(
        "run",
        RECORDS,
        {},
        {},
        done="segmented",
        rules="plain",
        notices=["2 cases: <odd>"],
        regions=GLIOMA_REGIONS,
        read=picture,
    ).decode()
    assert '<section id="notices"><h2>Noticed</h2><ul><li>2 cases: &lt;odd&gt;</li></ul></section>' in page
    assert 'id="notices"' not in build(RECORDS)


def test_why_a_label_was_refused_is_said() -> None:
    page = build([*RECORDS[:1], {**RECORDS[1], "label_refused": "b (b_seg.nii.gz): zero <bytes>"}], {"x": "x: cut"})
    assert '<section id="unscored"><h2>Not scored</h2><ul><li>b (b_seg.nii.gz): zero &lt;bytes&gt;</li></ul>' in page
    assert "<li>x: cut</li>" in page and 'id="unscored"' not in build(RECORDS)


def test_names_from_outside_are_text_not_markup() -> None:
    page = build(RECORDS, {"x": "x: <script>alert(1)</script>"})
    assert "<b>" not in page and "run &amp; name" in page and "a&lt;b" in page
    assert page.count("<script>") == 1 and "&lt;script&gt;alert(1)" in page


def test_all_figures_lie_within_the_cross_sections_first() -> None:
    page = build(RECORDS)
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 10 and all(source.startswith("data:image/webp;base64,") for source in sources)
    shades = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each.split(",")[1]))).convert("L")) for each in sources]
    assert [int(shade.mean()) for shade in shades] == [0, 255] * 5
    assert not re.findall(r'(?:href|src)="(?!data:)', page) and "@import" not in page and "url(" not in page


def test_settings_scores_and_refusals_are_said() -> None:
    page = build(RECORDS, {"x": "x: truncated"})
    assert "5 cases segmented, 3 of them with a label, 1 refused." in page
    assert "x: truncated" in page and "WT: 0.5; TC: 0.25" in page and "overlap: as validated" in page
    assert page.count(" data-value=") == 5 * (1 + 1 + 9 + 3) + 4 * 4
    assert 'data-value="0.533333">0.533<' in page  # the mean Dice of the labelled


def test_cases_without_labels_have_a_shorter_table() -> None:
    page = build([RECORDS[1], RECORDS[3]])
    assert "Dice" not in page.split("<script>")[0] and "Sorted by name" in page
    assert 'scope="col" aria-sort="ascending"><button type="button">case<' in page


@pytest.mark.parametrize("cases", [2, 5])
def test_only_the_worst_are_unfolded(cases: int) -> None:
    page = build([record(f"case{number}", number / 10) for number in range(cases)])
    assert page.count('<tr class="figures">') == min(cases, 3)
    assert page.count('<tr class="figures" hidden>') == max(cases - 3, 0)


class Elements(HTMLParser):
    """What is on a page; fails where an element is closed that is not the last one opened."""

    ALONE = ("meta", "link", "img", "!doctype")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.ALONE:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


@pytest.mark.parametrize("regions", [GLIOMA_REGIONS, POST_TREATMENT_REGIONS, PAEDIATRIC_REGIONS, GTV_REGIONS])
def test_of_many_regions_one_score_at_a_time_is_shown(regions: Sequence[Region]) -> None:
    names = [region.name for region in regions]
    page = build([record("a", 0.5, names), record("b", None, names)], regions=regions)
    elements = Elements(page).found
    many = len(regions) > 3
    for tag, rows in (("th", 1), ("td", 2)):
        scores = [attributes for name, attributes in elements if name == tag and "data-score" in attributes]
        assert Counter(each["data-score"] for each in scores) == dict.fromkeys(
            ("dice", "hd95", "lesion_dice", "predicted_mm3"), rows * len(regions)
        )
        assert {str(each["data-score"]) for each in scores if "hidden" not in each} == (
            {"dice"} if many else {"dice", "hd95", "lesion_dice", "predicted_mm3"}
        )
    chosen = [attributes["value"] for name, attributes in elements if name == "option" and "selected" in attributes]
    assert chosen == ["dice" if many else "all"]
    width = 2 + len(regions) * (1 if many else 4)
    assert [each["colspan"] for _, each in elements if "colspan" in each] == [str(width)] * 2
    said = re.findall(r"<p>([^<]*)</p>", page)
    assert "; ".join(f"{region.name}: {region.title}" for region in regions) + "." in said
