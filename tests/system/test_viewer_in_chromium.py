"""A report's viewer in a real headless Chromium: slices, overlays against the segmentation, windows, its closing."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ray_jobs.predicting import viewer
from ray_jobs.predicting.finishing import SEGMENTATION, CaseFinisher, Predicted
from ray_jobs.predicting.report_page import build_report
from ray_jobs.predicting.viewer import COPY, LIBRARY, NIIVUE
from storage.labels.tasks import GLIOMA_REGIONS
from tests.chromium import SOFTWARE, Page, opened, running_chromium
from tests.small_case import AFFINE, CASE_ID, HIGH, LOW, hold_small_case

pytestmark = pytest.mark.system

READY = "!document.getElementById('viewer-controls').disabled"
SAID = "document.getElementById('viewer-said').textContent"
HERE = "document.getElementById('viewer-here').value"
KEYS = {"ArrowRight": 39, "Home": 36, "Escape": 27}
GREY = 12  # of 255: what differs less between red, green and blue is a scan's


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chromium(tmp_path_factory.mktemp("browser"), *SOFTWARE) as address:
        yield address


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as predict.py writes it, but for its records: a case whose prediction lies two voxels from its label."""
    folder = tmp_path_factory.mktemp("made")
    held = hold_small_case(folder / "source")
    label_DHW = held.arrays.label_DHW
    assert label_DHW is not None
    whole = [(low, side - high) for (low, high), side in zip(held.case.bbox, held.case.original_shape, strict=True)]
    predicted = Predicted(held=held, predicted_DHW=np.roll(np.pad(label_DHW, whole), (1, 2, 2), axis=(0, 1, 2)))
    result = CaseFinisher(scored_by="plain", written=None, figures=False, viewer=True)(predicted)
    (folder / "viewer").mkdir()
    for name, content in {**result.files, LIBRARY: NIIVUE.read_bytes()}.items():
        (folder / name).write_bytes(content)
    records = [{**result.record, "files": sorted(result.files)}]
    for name, most in (("within.html", viewer.MOST_WITHIN), ("report.html", 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(viewer, "MOST_WITHIN", most)
            page = build_report(
                "<small>",
                records,
                {},
                {},
                done="segmented",
                rules="plain",
                regions=GLIOMA_REGIONS,
                read=lambda name: result.files[name],
            )
        (folder / name).write_bytes(page)
    return folder


def read_masks(file: Path) -> np.ndarray:
    """A NIfTI segmentation's colours in RAS, of the box that a copy holds: the place of each region, 0 for none."""
    image = nib.as_closest_canonical(nib.load(file))
    assert np.allclose(image.affine, AFFINE)
    values = np.asarray(image.dataobj).astype(int)
    box = tuple(slice(low, high) for low, high in zip(LOW, HIGH, strict=True))
    painted: np.ndarray = np.array([0, 2, 1, 0, 3])[values][box]
    return painted


async def until(page: Page, script: str) -> None:
    """Wait for a fact; the page's own promise of a frame, so that none is missed."""
    wait = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    while not await page.run(script):
        await page.run(wait)


async def set_to(page: Page, name: str, value: object) -> None:
    """What a hand does to one of the viewer's controls."""
    what = "checked" if isinstance(value, bool) else "value"
    find = f"const e = document.querySelector({json.dumps(name)}); e.{what} = {json.dumps(value)};"
    await page.run(
        f"{{ {find} for (const k of ['input', 'change']) e.dispatchEvent(new Event(k, {{bubbles: true}})); }}"
    )


@asynccontextmanager
async def viewing(chromium: str, report: Path) -> AsyncIterator[Page]:
    async with opened(chromium, report) as page:
        await page.click(".scroll")
        await until(page, READY)
        yield page


async def close(page: Page) -> None:
    await page.click("#viewer-close")
    await until(page, "!document.getElementById('viewer').open && !openView()")


async def picture_of(page: Page) -> np.ndarray:
    """The colours of the one plane that is shown, at the middle of each voxel, as rows from above of columns."""
    canvas = "(() => { const r = document.querySelector('#viewer canvas').getBoundingClientRect();"
    x, y, width, height = await page.run(f"{canvas} return [r.x, r.y, r.width, r.height]; }})()")
    plane = int(await page.run("document.getElementById('viewer-view').value"))
    axes = [(0, 1), (0, 2), (1, 2)][plane]
    columns, rows = (HIGH[axis] - LOW[axis] for axis in axes)
    wide, tall = (AFFINE[axis, axis] for axis in axes)
    scale = min(width / (columns * wide), height / (rows * tall))  # as large as it fits, in the middle
    down = y + height / 2 + (np.arange(rows) + 0.5 - rows / 2) * tall * scale
    across = x + width / 2 + (np.arange(columns) + 0.5 - columns / 2) * wide * scale
    shot = await page.ask("Page.captureScreenshot", format="png")
    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")).astype(int)
    return whole[down.astype(int)][:, across.astype(int)]


def seen(picture: np.ndarray) -> np.ndarray:
    """Where a picture has colours."""
    coloured: np.ndarray = np.ptp(picture, axis=-1) > GREY
    return coloured


def colours_of(plane: np.ndarray) -> np.ndarray:
    """What a plane of colours looks like, painted opaque; unlike anything where nothing is."""
    table = np.array([[-99.0] * 3, *([255 * part for part in region.colour] for region in GLIOMA_REGIONS)])
    return table[plane]


def test_it_shows_what_the_segmentation_says(chromium: str, made: Path, tmp_path: Path) -> None:
    predicted = read_masks(made / SEGMENTATION.format(case_id=CASE_ID))
    label = read_masks(made / "source" / CASE_ID / f"{CASE_ID}_seg.nii.gz")
    report = made / "within.html"
    x, y, z = 9, 24, 7  # in the tumour, at the patient's left; the copy's own voxels

    # Radiological: the patient's right, where x grows, is on the left of the picture, the front or the crown above; the
    # nose is on the left of a sagittal one.
    def axial(masks: np.ndarray) -> np.ndarray:
        return masks[::-1, ::-1, z].T

    def coronal(masks: np.ndarray) -> np.ndarray:
        return masks[::-1, y, ::-1].T

    def sagittal(masks: np.ndarray) -> np.ndarray:
        return masks[x, ::-1, ::-1].T

    async def use() -> None:
        async with viewing(chromium, report) as page:
            await set_to(page, "#viewer-crosshair", value=False)
            await set_to(page, "#viewer-opacity", value=1)
            for number, at in enumerate((x, y, z), start=1):
                await set_to(page, f"#viewer-slices label:nth-child({number}) input", value=at + 1)
            for number, (masks_of, name) in enumerate(((axial, "axial"), (coronal, "coronal"), (sagittal, "sagittal"))):
                await set_to(page, "#viewer-view", value=str(number))
                picture = await picture_of(page)
                expected = masks_of(predicted)
                assert expected.any() and (seen(picture) == (expected > 0)).all(), name
                if name == "axial":
                    left_half = expected[:, : expected.shape[1] // 2]
                    assert not left_half.any()  # a tumour in the patient's left is on the right
                alike = np.abs(picture - colours_of(expected)).max(axis=-1) <= 2  # NiiVue softens a mask's rim
                assert alike.sum() > 0.3 * (expected > 0).sum(), name
            await set_to(page, "#viewer-view", value="0")
            await set_to(page, "#viewer-prediction", value=False)
            assert not seen(await picture_of(page)).any()
            await set_to(page, "#viewer-label", value=True)
            picture = await picture_of(page)
            assert (seen(picture) == (axial(label) > 0)).all() and (axial(label) != axial(predicted)).any()
            await set_to(page, "#viewer-prediction", value=True)
            assert (seen(await picture_of(page)) == ((axial(label) + axial(predicted)) > 0)).all()
            await set_to(page, "#viewer-opacity", value=0)
            assert not seen(await picture_of(page)).any()
            shot = await page.ask("Page.captureScreenshot", format="png")
            (tmp_path / "viewer.png").write_bytes(base64.b64decode(shot["data"]))
            assert page.complaints == []
            assert [url for url in page.requests if not url.startswith(("data:", report.as_uri()))] == []

    asyncio.run(use())


def test_one_moves_by_keyboard_chooses_scans_and_windows_and_closes(chromium: str, made: Path) -> None:
    report = made / "within.html"
    size = [high - low for low, high in zip(LOW, HIGH, strict=True)]
    outputs = "[...document.querySelectorAll('#viewer-slices output')].map((e) => e.value)"

    async def press(page: Page, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await page.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    async def use() -> None:
        async with viewing(chromium, report) as page:
            assert await page.run(
                "document.getElementById('viewer').ariaModal !== 'false' && "
                "[...document.querySelectorAll('#viewer input, #viewer select')].every("
                "(e) => e.labels.length && e.labels[0].textContent.trim())"
            )
            assert await page.run("document.getElementById('viewer-view').value") == "3"
            tiles = "openView().niivue.screenSlices.map((each) => each.axCorSag)"
            assert sorted(await page.run(tiles)) == [0, 1, 2, 4]  # three planes and 3-D
            await set_to(page, "#viewer-view", value="0")
            first = await page.run(outputs)
            at = int(first[2].split()[0])
            await press(page, "ArrowRight")  # the axial slider has the focus
            assert await page.run(outputs) == [*first[:2], f"{at + 1} of {size[2]}"]
            await press(page, "Home")
            assert (await page.run(outputs))[2] == f"1 of {size[2]}"

            for number, name in enumerate(("flair", "t1", "t1ce")):
                await set_to(page, "#viewer-scan", value=str(number))
                for at in (3, 15):
                    await set_to(page, f"#viewer-slices label:nth-child({number + 1}) input", value=at + 1)
                    said = await page.run(HERE)
                    assert said.startswith(f"{name} about ") and "label: " in said and "prediction: " in said
                    intensity = float(said.split()[2].rstrip(";"))
                    assert abs(intensity - (100 + 10 * (LOW[number] + at))) < 12, said
            middle = "#viewer-slices label:nth-child(1) input"
            await set_to(page, middle, value=9)
            x = AFFINE[0, 3] + AFFINE[0, 0] * (LOW[0] + 8)
            assert f"x {x:.1f}, " in await page.run(HERE)

            await set_to(page, "#viewer-prediction", value=False)
            bright = (await picture_of(page)).mean()
            await set_to(page, "#viewer-black", value=200)
            assert (await picture_of(page)).mean() < bright - 20
            assert await page.run("Number(document.querySelector('#viewer-black + output').value)") > 150

            await page.run("globalThis.drawn = document.querySelector('#viewer canvas').getContext('webgl2'); 0")
            await press(page, "Escape")
            await until(page, "!document.getElementById('viewer').open")
            assert await page.run("drawn.isContextLost() && !openView() && !document.querySelector('#viewer canvas')")
            assert await page.run("document.activeElement.className") == "scroll"
            await page.click(".scroll")  # once more
            await until(page, READY)
            assert (await page.run(outputs)) == first
            await close(page)
            assert await page.run("!document.querySelector('canvas')")
            assert page.complaints == []

    asyncio.run(use())


def test_without_webgl_it_says_so_and_the_page_stays(chromium: str, made: Path) -> None:
    async def use() -> None:
        async with opened(chromium, made / "within.html") as page:
            await page.run("HTMLCanvasElement.prototype.getContext = () => null; 0")
            await page.click(".scroll")
            await until(page, f"{SAID}.includes('WebGL')")
            assert await page.run("document.getElementById('viewer-controls').disabled && !openView()")
            await close(page)
            await page.click("#cases thead button")
            assert await page.run("document.querySelector('#cases thead th').ariaSort") == "ascending"
            assert page.complaints == []

    asyncio.run(use())


# The last: a browser tells every later page of the file that it missed.
def test_beside_the_page_it_is_read_when_a_case_is_opened_and_missed_by_name(chromium: str, made: Path) -> None:
    async def use() -> None:
        report = made / "report.html"
        async with opened(chromium, report) as page:
            await page.run("1")

            def fetched() -> list[str]:
                return [url.rsplit("/", 1)[-1] for url in page.requests if not url.startswith("data:")]

            assert fetched() == ["report.html"]
            await page.click(".scroll")
            await until(page, READY)
            assert fetched() == ["report.html", "niivue.js", f"{CASE_ID}.js"]
            await close(page)
            assert page.complaints == []

            lost = made / COPY.format(case_id=CASE_ID)
            content = lost.read_bytes()
            lost.unlink()
            try:
                await page.click(".scroll")
                await until(page, f"{SAID}.includes('not there')")
            finally:
                lost.write_bytes(content)
            assert await page.run(SAID) == f"viewer/{CASE_ID}.js is not there: it belongs beside this page"

    asyncio.run(use())
