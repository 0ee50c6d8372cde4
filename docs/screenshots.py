"""Pictures of what a user sees of a run, into docs/pictures: `make screenshots`. Trains for minutes; wants Chromium.

The run is of the synthetic cohort, on this machine; nothing is asked of the network. What the pictures show lies in a
folder that goes again, or in the one that is named (`python -m docs.screenshots FOLDER`), where a second go goes on.
"""

import asyncio
import base64
import io
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from tests.chromium import SOFTWARE, Page, attached, running_chromium

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
WIDTH, HEIGHT = 1280, 800
SECONDS = 120  # that a page may take to show what it is opened for
TRAIN = ["--name", "demo", "--dashboard"]  # as `make train`
BOARD = ["-m", "tensorboard.main", "--logdir", "runs", "--host", "127.0.0.1", "--port", "0", "--load_fast=false"]
READ = "fetch('data/plugins_listing').then(answer => answer.json()).then(plugins => plugins.timeseries.enabled)"
DRAWN = "document.querySelectorAll('card-view canvas, card-view svg').length"  # TensorBoard has a curve
# The page is there, and the pictures that lie in sight; folded ones have no place.
IN_SIGHT = "[...document.images].filter(image => image.offsetParent && image.getBoundingClientRect().top < innerHeight)"
LOADED = f"document.readyState === 'complete' && {IN_SIGHT}.every(image => image.complete)"
PREDICT = ["--checkpoint", "runs/demo", "--input", "data/phantom-16-0", "--output", "predictions"]
OPEN = "!document.getElementById('viewer-controls').disabled"  # a case is drawn
COOKIE = "ray-authentication-token"


async def show(page: Page, url: str, *, until: str) -> None:
    """Open a page and wait until an expression of JavaScript is true in it."""
    await page.open(url)
    await wait_for(page, until)


async def wait_for(page: Page, until: str) -> None:
    """Wait until an expression of JavaScript, or what it promises, is true."""
    deadline = time.monotonic() + SECONDS
    while not await page.run(f"Promise.resolve().then(() => {until}).then(Boolean, () => false)"):
        if time.monotonic() > deadline:
            raise SystemExit(f"no {until} within {SECONDS} s: {await page.run('document.body.innerText')}")
        await asyncio.sleep(0.5)


async def see(page: Page, *, width: int = WIDTH) -> None:
    """Take a window of this width for what comes next; its picture is as wide as any."""
    sides = {"width": width, "height": HEIGHT * width // WIDTH, "deviceScaleFactor": WIDTH / width}
    await page.ask("Emulation.setDeviceMetricsOverride", **sides, mobile=False)


async def keep(page: Page, name: str) -> None:
    """Write what is to be seen as docs/pictures/NAME.png, in 256 colours, which take a third of the bytes."""
    await asyncio.sleep(2)  # what moves in comes to rest
    taken = base64.b64decode((await page.ask("Page.captureScreenshot", format="png"))["data"])
    picture = PICTURES / f"{name}.png"
    Image.open(io.BytesIO(taken)).convert("RGB").quantize(256).save(picture, optimize=True)
    print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1000:.0f} kB")


@contextmanager
def started(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command of ours while it runs, its lines to be read; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read a command's lines up to the first that has the pattern."""
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if found := re.search(pattern, line):
            return found
    raise SystemExit(f"no line with {pattern} came:\n{''.join(said)}")


def has(text: str) -> str:
    """That a page shows a text, in JavaScript."""
    return f"document.body && document.body.innerText.includes({text!r})"


async def take_training(page: Page, folder: Path, environment: dict[str, str]) -> None:
    """Train, and look at it meanwhile."""
    with started([str(ROOT / "ray_jobs" / "train.py"), *TRAIN], folder, environment) as training:
        dashboard = read_until(training, r"Ray's dashboard: (http\S+)")[1]
        read_until(training, "training, epoch 1")
        await see(page, width=1760)
        await page.ask("Network.setCookie", name=COOKIE, value=environment["RAY_AUTH_TOKEN"], url=dashboard)
        await show(page, f"{dashboard}/#/actors", until=has("RayTrainWorker"))
        await keep(page, "ray-dashboard")
        read_until(training, "^checkpoint ")
        training.wait()


async def take_run(page: Page, folder: Path, environment: dict[str, str]) -> None:
    """Look at what it left: TensorBoard, its page, and predictions with a case that is scrolled through."""
    with started(BOARD, folder, environment) as served:
        url = read_until(served, r"at (http://\S+?)/? ")[1]
        await see(page, width=1760)
        await show(page, url, until=READ)
        await show(page, f"{url}/?tagFilter=threshold_curves|^loss|validation#timeseries", until=DRAWN)
        await page.run("document.querySelector('.settings-button').click()")  # the pane of settings goes
        await keep(page, "tensorboard")
    with started([str(ROOT / "ray_jobs" / "predict.py"), *PREDICT], folder, environment) as predicting:
        read_until(predicting, "report")
        predicting.wait()
    await see(page)
    await show(page, (folder / "runs" / "demo" / "report.html").as_uri(), until=LOADED)
    await keep(page, "run-report")
    await show(page, (folder / "predictions" / "report.html").as_uri(), until=LOADED)
    await keep(page, "report")
    await page.click(".scroll")
    await wait_for(page, OPEN)
    await keep(page, "viewer")


async def take_all(folder: Path, home: Path) -> None:
    """With a browser that lives in `home`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BRATS_", "RAY_", "SSH_"))}
    environment |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with running_chromium(home, *SOFTWARE) as browser:
        async with attached(browser) as page:
            if not (folder / "runs" / "demo" / "summary.json").exists():
                await take_training(page, folder, environment)
            await take_run(page, folder, environment)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends too
    with tempfile.TemporaryDirectory(prefix="brats-screenshots-", ignore_cleanup_errors=True) as new:
        (Path(new) / "browser").mkdir()
        asyncio.run(take_all(Path(sys.argv[1] if sys.argv[1:] else new).resolve(), Path(new) / "browser"))
