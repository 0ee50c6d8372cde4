"""The report of a prediction in a real headless Chromium: opened, sorted, unfolded, and nothing on its console."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs.pictures.renders import draw_render
from ray_jobs.pictures.sections import draw_sections
from ray_jobs.predicting.finishing import RENDER, SECTIONS, score_labels
from ray_jobs.predicting.report_page import build_report
from storage import find_cases, region_masks
from storage.labels.conventions import BRATS_124, MODALITIES
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS, POST_TREATMENT_REGIONS
from storage.store.held_case import hold_source
from tests.chromium import opened, running_chromium

pytestmark = pytest.mark.system


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[str]:
    with running_chromium(tmp_path) as address:
        yield address


@pytest.fixture
def report(phantom_source: Path, tmp_path: Path) -> Path:
    """A report of five cases: four more or less well predicted, one without a label; one more was refused."""
    records, files = [], {}
    for number, case in enumerate(find_cases(phantom_source).cases[:5]):
        held = hold_source(case, MODALITIES, BRATS_124, GLI_2021_TASK)
        label_DHW = held.arrays.label_DHW
        assert label_DHW is not None
        truth_RDHW = region_masks(label_DHW, GLIOMA_REGIONS).astype(bool)
        predicted_DHW = np.roll(label_DHW, [8, 1, 14, 4, 2][number], axis=1)  # the farther, the worse
        predicted_RDHW = region_masks(predicted_DHW, GLIOMA_REGIONS).astype(bool)
        label_RDHW = None if number == 4 else truth_RDHW
        named = [name.format(case_id=case.case_id) for name in (SECTIONS, RENDER)]
        shown = (held.case, GLIOMA_REGIONS, held.arrays.image_MDHW, label_RDHW, predicted_RDHW)
        files |= dict(zip(named, (draw_sections(*shown), draw_render(*shown)), strict=True))
        record = score_labels(predicted_DHW, None if number == 4 else label_DHW, held.case, GLI_2021_TASK, "2023")
        records.append({**record, "files": named})
    page = build_report(
        "five <cases>",
        records,
        {"case & six": "case & six: <truncated>"},
        {"input": "here"},
        done="segmented",
        rules="2023",
        regions=GLIOMA_REGIONS,
        read=files.__getitem__,
    )
    path = tmp_path / "report.html"
    path.write_bytes(page)
    return path


NAMES = "[...document.querySelectorAll('#cases tbody')].map((each) => each.id.slice(-3))"


def test_the_report_opens_sorts_and_complains_of_nothing(report: Path, chromium: str, tmp_path: Path) -> None:
    async def use() -> None:
        async with opened(chromium, report) as page:
            worst_first = ["003", "001", "004", "002", "005"]
            assert await page.run(NAMES) == worst_first
            head = "document.querySelectorAll('#cases th')[1]"
            assert await page.run(f"[{head}.textContent, {head}.ariaSort]") == ["mean Dice", "ascending"]
            sort = "#cases th:nth-child({}) button"
            await page.click(sort.format(1))
            assert await page.run(NAMES) == ["001", "002", "003", "004", "005"]
            await page.click(sort.format(1))
            assert await page.run(NAMES) == ["005", "004", "003", "002", "001"]
            await page.click(sort.format(2))  # mean Dice, the worst first; what has none stays last
            assert await page.run(NAMES) == worst_first
            await page.click(sort.format(2))
            assert await page.run(NAMES) == ["002", "004", "001", "003", "005"]
            assert await page.run(f"[{head}.textContent, {head}.ariaSort]") == ["mean Dice", "descending"]
            volumes = "[...document.querySelectorAll('tr.scores td:last-child')].map((e) => Number(e.dataset.value))"
            last = await page.run("document.querySelectorAll('#cases th').length")
            await page.click(sort.format(last))
            found = await page.run(volumes)
            assert found == sorted(found) and len(set(found)) == 5

            shown = "[...document.querySelectorAll('tr.figures')].filter((each) => each.offsetHeight > 0).length"
            assert await page.run(shown) == 3  # the worst three
            await page.click("#open-all")
            assert await page.run(shown) == 5
            decoded = (
                "Promise.all([...document.images].map((each) => { each.loading = 'eager'; return each.decode(); }))"
                ".then(() => [...document.images].every((each) => each.naturalWidth > 300) && document.images.length)"
            )
            assert await page.run(decoded) == 10
            await page.click("#cases tbody .unfold")
            assert await page.run(shown) == 4
            assert await page.run("document.getElementById('refused').textContent") == "Refusedcase & six: <truncated>"
            assert await page.run("document.title") == "Segmentations: five <cases>"
            picture = await page.ask("Page.captureScreenshot", format="png")
            (tmp_path / "screenshot.png").write_bytes(base64.b64decode(picture["data"]))
            assert page.complaints == []
            assert [url for url in page.requests if not url.startswith(("data:", report.as_uri()))] == []

    asyncio.run(use())


def test_six_regions_show_a_score_at_a_time_and_fit_a_phone(chromium: str, tmp_path: Path) -> None:
    def record(number: int) -> dict[str, Any]:
        values = {"dice": number / 10, "hd95": 9.0 - number, "lesion_dice": 0.5, "predicted_mm3": 1e3 * number}
        regions = {region.name: values for region in POST_TREATMENT_REGIONS}
        about = {"case_id": f"BraTS-GLI-0000{number}-101", "labelled": True, "files": []}
        return {**about, "regions": regions, "mean_of": list(regions)}

    path = tmp_path / "six.html"
    records = [record(number) for number in (1, 2, 3)]
    path.write_bytes(
        build_report(
            "six", records, {}, {}, done="scored", rules="2024", regions=POST_TREATMENT_REGIONS, read=lambda name: b""
        )
    )
    heads = "[...document.querySelectorAll('#cases th')].filter((e) => e.offsetWidth).map((e) => e.textContent)"
    shown = "[...document.querySelectorAll('tr.scores')].map((e) => [...e.cells].filter((c) => c.offsetWidth).length)"

    async def use() -> None:
        async with opened(chromium, path) as page:
            names = [region.name for region in POST_TREATMENT_REGIONS]
            assert await page.run(heads) == ["case", "mean Dice", *(f"{name} Dice" for name in names)]
            choose = "choice.value = '{}'; choice.dispatchEvent(new Event('change'))"
            await page.run(choose.format("hd95"))
            assert await page.run(heads) == ["case", "mean Dice", *(f"{name} HD95, mm" for name in names)]
            assert await page.run(shown) == [8, 8, 8]
            await page.click("#cases th[data-score=hd95] button")
            worst = "[...document.querySelectorAll('#cases tbody')].map((each) => each.id.at(-5))"
            assert await page.run(worst) == ["3", "2", "1"]
            await page.run(choose.format("all"))
            assert await page.run(shown) == [2 + 4 * 6] * 3
            await page.ask(
                "Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True
            )
            await page.open(path.as_uri())
            assert await page.run(shown) == [8, 8, 8]
            assert await page.run("document.documentElement.scrollWidth") <= 390
            assert page.complaints == []

    asyncio.run(use())


def test_an_error_on_the_page_is_heard(chromium: str, tmp_path: Path) -> None:
    """What the test above trusts."""
    broken = tmp_path / "broken.html"
    broken.write_text("<script>console.error('one'); nothing.here();</script><img src='missing.png'>")

    async def use() -> None:
        async with opened(chromium, broken) as page:
            await page.run("1")
            assert len(page.complaints) == 3
            assert any(url.endswith("missing.png") for url in page.requests)

    asyncio.run(use())
