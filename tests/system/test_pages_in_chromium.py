"""Every kind of page in a real headless Chromium: by axe-core, in both schemes, on a phone, by keyboard and printed."""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import show
from ray_jobs.predicting.report_page import build_report
from storage.labels.tasks import GLIOMA_REGIONS
from tests.chromium import Page, opened, running_chromium
from tests.ray_jobs.recorded import ODD, picture, write_folds, write_run, write_search, write_thresholds

pytestmark = pytest.mark.system

AXE = Path(__file__).with_name("axe")
WIDTHS = (390, 820, 1280)
UNFOLD = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
KINDS = ("run", "unfinished", "folds", "some folds", "search", "thresholds", "predictions")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chromium(tmp_path_factory.mktemp("browser")) as address:
        yield address


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, as show.py makes it; that of predictions as predict.py does."""
    runs = tmp_path_factory.mktemp("runs")
    folders = {
        "run": write_run(runs),
        "unfinished": write_run(runs, "half", finished=False),
        "folds": write_folds(runs),
        "some folds": write_folds(runs, "half-cv", finished=1),
        "search": write_search(runs),
        "thresholds": write_thresholds(runs),
    }
    made = {}
    for kind, folder in folders.items():
        found = show.find_folder(str(folder))
        made[kind] = show.keep(show.maker_of(found)(), found)
    scores = {"dice": 0.5, "hd95": 9.0, "lesion_dice": 0.5, "predicted_mm3": 1e3}
    records = [
        {
            "case_id": f"case {number} <&>",
            "labelled": True,
            "regions": {region.name: scores for region in GLIOMA_REGIONS},
            "mean_of": [region.name for region in GLIOMA_REGIONS],
            "files": ["one.png"],
        }
        for number in range(5)
    ]
    said = {"done": "segmented", "rules": "2023", "regions": GLIOMA_REGIONS, "notices": [ODD]}
    made["predictions"] = runs / "predictions.html"
    report = build_report("new <scans>", records, {"x": ODD}, {"input": "here"}, read=lambda name: picture(), **said)
    made["predictions"].write_bytes(report)
    return made


def use(chromium: str, page: Path, work: Callable[[Page], Coroutine[Any, Any, None]]) -> None:
    """Do the work in a page that is opened as on a screen with a light scheme, and listen to what goes wrong."""

    async def do() -> None:
        async with opened(chromium, page) as shown:
            await look(shown, width=1280, scheme="light")
            await work(shown)
            assert shown.complaints == []
            assert [url for url in shown.requests if not url.startswith(("data:", page.as_uri()))] == []

    asyncio.run(do())


async def look(page: Page, *, width: int, scheme: str, media: str = "") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    await page.ask("Emulation.setDeviceMetricsOverride", **metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    await page.ask("Emulation.setEmulatedMedia", media=media, features=features)


async def violations(page: Page) -> list[str]:
    """What axe-core finds, by all of its rules, those of WCAG 2.2 AA and of good practice among them."""
    await page.run((AXE / "axe.min.js").read_text())
    rules = json.dumps({"rules": {"color-contrast": {"enabled": True}}})
    found = await page.run(f"axe.run(document, {rules}).then((found) => JSON.stringify(found.violations))")
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
        for each in json.loads(found)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_on_a_screen_in_the_dark_on_a_phone_or_printed(
    chromium: str, pages: dict[str, Path], kind: str
) -> None:
    async def work(page: Page) -> None:
        await page.run(UNFOLD)
        for width, scheme, media in ((1280, "light", ""), (390, "dark", ""), (820, "dark", "print")):
            await look(page, width=width, scheme=scheme, media=media)
            assert await violations(page) == [], (kind, width, scheme, media)

    use(chromium, pages[kind], work)


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_is_wider_than_its_screen(chromium: str, pages: dict[str, Path], kind: str) -> None:
    async def work(page: Page) -> None:
        for width in WIDTHS:
            await look(page, width=width, scheme="light")
            await page.open(pages[kind].as_uri())
            await page.run(UNFOLD)
            assert await page.run("document.documentElement.scrollWidth") <= width, (kind, width)

    use(chromium, pages[kind], work)


async def press(page: Page, key: str, code: int) -> None:
    for kind in ("keyDown", "keyUp"):
        text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
        await page.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_can_be_used_is_reached_by_the_keyboard_and_seen_there(
    chromium: str, pages: dict[str, Path], kind: str
) -> None:
    async def work(page: Page) -> None:
        usable = "[...document.querySelectorAll('a, button, select, summary, [tabindex]')]"
        wanted = await page.run(f"{usable}.filter((each) => each.checkVisibility()).length")
        assert wanted > 0
        await page.run(f"{usable}.forEach((each, place) => {{ each.dataset.place = place; }})")
        reached, outline = set(), "getComputedStyle(document.activeElement).outlineStyle"
        for _ in range(wanted):
            await press(page, "Tab", 9)
            reached.add(await page.run("document.activeElement.dataset.place"))
            assert await page.run(outline) != "none"
        assert len(reached) == wanted and None not in reached

    use(chromium, pages[kind], work)


def test_what_is_folded_opens_by_enter_and_a_wide_table_scrolls(chromium: str, pages: dict[str, Path]) -> None:
    async def work(page: Page) -> None:
        await look(page, width=390, scheme="light")
        await page.run("document.querySelector('summary').focus()")
        await press(page, "Enter", 13)
        assert await page.run("document.querySelector('details').open")
        wide = "[...document.querySelectorAll('.wide')].find((each) => each.scrollWidth > each.clientWidth)"
        await page.run(f"{wide}.focus()")
        await press(page, "ArrowRight", 39)
        look_again = f"const look = () => {wide}.scrollLeft ? resolve(true) : setTimeout(look, 20);"
        moved = f"new Promise((resolve) => {{ {look_again} look(); }})"
        assert await page.run(moved)

    use(chromium, pages["run"], work)


@pytest.mark.parametrize("kind", KINDS)
def test_printed_it_has_all_pictures_and_no_controls(chromium: str, pages: dict[str, Path], kind: str) -> None:
    async def work(page: Page) -> None:
        await look(page, width=820, scheme="dark", media="print")
        seen = "[...document.images].every((each) => each.checkVisibility({ contentVisibilityAuto: true }))"
        assert await page.run(seen)
        assert await page.run("[...document.querySelectorAll('nav, .actions')].every((each) => !each.offsetHeight)")
        assert await page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert await page.run("document.images.length") == pages[kind].read_text().count("<img ")

    use(chromium, pages[kind], work)


def test_what_axe_would_find_is_found(chromium: str, tmp_path: Path) -> None:
    """What the tests above trust; the file is the one that its README names."""
    said = (AXE / "README.md").read_text()
    assert hashlib.sha256((AXE / "axe.min.js").read_bytes()).hexdigest() in said
    broken = tmp_path / "broken.html"
    broken.write_text("<title>x</title><img src='data:,'><p style='color: #999; background: #fff'>pale</p>")

    async def work(page: Page) -> None:
        found = {re.split(":", each)[0] for each in await violations(page)}
        assert {"color-contrast", "image-alt", "html-has-lang"} <= found

    use(chromium, broken, work)
