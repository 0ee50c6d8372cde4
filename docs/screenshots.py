"""Pictures of what a user sees of a run, into docs/pictures: `make screenshots`. Trains for minutes; wants Chromium.

The run is of the synthetic cohort, on this machine; nothing is asked of the network. What the pictures show lies in a
folder that goes again, or in the one that is named (`python docs/screenshots.py FOLDER`), where a second go goes on.
"""

import asyncio
import base64
import io
import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

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
COOKIE = "ray-authentication-token"


class Page:
    """A page of a browser, spoken to by the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask, and wait for the answer; what the browser tells meanwhile is nobody's."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while (message := await self._socket.receive_json(timeout=SECONDS)).get("id") != number:
            pass
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]  # type: ignore[no-any-return]

    async def show(self, url: str, *, until: str) -> None:
        """Open a page and wait until an expression of JavaScript is true in it."""
        await self.ask("Page.navigate", url=url)
        deadline = time.monotonic() + SECONDS
        while not await self.run(f"Promise.resolve({until}).then(Boolean)"):
            if time.monotonic() > deadline:
                raise SystemExit(f"{url} did not come to {until}: {await self.run('document.body.innerText')}")
            await asyncio.sleep(0.5)

    async def run(self, script: str) -> Any:
        """What a script answers, or nothing where the page is not there yet."""
        answer = await self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    async def see(self, *, width: int = WIDTH) -> None:
        """Take a window of this width for what comes next; its picture is as wide as any."""
        sides = {"width": width, "height": HEIGHT * width // WIDTH, "deviceScaleFactor": WIDTH / width}
        await self.ask("Emulation.setDeviceMetricsOverride", **sides, mobile=False)

    async def keep(self, name: str) -> None:
        """Write what is to be seen as docs/pictures/NAME.png, in 256 colours, which take a third of the bytes."""
        await asyncio.sleep(2)  # what moves in comes to rest
        taken = base64.b64decode((await self.ask("Page.captureScreenshot", format="png"))["data"])
        picture = PICTURES / f"{name}.png"
        Image.open(io.BytesIO(taken)).convert("RGB").quantize(256).save(picture, optimize=True)
        print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1000:.0f} kB")


@asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """A page of a headless Chromium that asks nobody for anything by itself."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("wanted Chromium, found none: apt-get install chromium")
    profile = tempfile.TemporaryDirectory(prefix="brats-browser-", ignore_cleanup_errors=True)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    options += ["--hide-scrollbars", "--remote-debugging-port=0", f"--user-data-dir={profile.name}"]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    told = Path(profile.name) / "DevToolsActivePort"
    try:
        while not (told.exists() and "\n" in told.read_text()):
            if process.poll() is not None:
                raise SystemExit(f"Chromium ended with {process.returncode}")
            await asyncio.sleep(0.1)
        address = f"http://127.0.0.1:{told.read_text().splitlines()[0]}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{address}/json") as response:
                target = next(each for each in await response.json() if each["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        process.wait()
        profile.cleanup()


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


async def take_all(folder: Path) -> None:
    """Train, and look at it from everywhere."""
    token = secrets.token_hex(32)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BRATS_", "RAY_", "SSH_"))}
    environment |= {"RAY_AUTH_TOKEN": token, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    async with browsing() as page:
        if not (folder / "runs" / "demo" / "summary.json").exists():
            with started([str(ROOT / "ray_jobs" / "train.py"), *TRAIN], folder, environment) as training:
                dashboard = read_until(training, r"Ray's dashboard: (http\S+)")[1]
                read_until(training, "training, epoch 1")
                await page.see(width=1760)
                await page.ask("Network.setCookie", name=COOKIE, value=token, url=dashboard)
                await page.show(f"{dashboard}/#/actors", until=has("RayTrainWorker"))
                await page.keep("ray-dashboard")
                read_until(training, "^checkpoint ")
        await page.see(width=1760)
        with started(BOARD, folder, environment) as served:
            url = read_until(served, r"at (http://\S+?)/? ")[1]
            await page.show(url, until=READ)
            await page.show(f"{url}/?tagFilter=threshold_curves|^loss|validation#timeseries", until=DRAWN)
            await page.run("document.querySelector('.settings-button').click()")  # the pane of settings goes
            await page.keep("tensorboard")
        with started([str(ROOT / "ray_jobs" / "predict.py"), *PREDICT], folder, environment) as predicting:
            read_until(predicting, "report")
            predicting.wait()
        for report, name in (("predictions/report.html", "report"), ("runs/demo/report.html", "run-report")):
            if (folder / report).exists():
                await page.show((folder / report).as_uri(), until=LOADED)
                await page.keep(name)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends too
    with tempfile.TemporaryDirectory(prefix="brats-screenshots-", ignore_cleanup_errors=True) as new:
        asyncio.run(take_all(Path(sys.argv[1] if sys.argv[1:] else new).resolve()))
