"""A headless Chromium for tests, spoken to by the DevTools protocol."""

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

SOFTWARE = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")  # WebGL on a CPU


class Page:
    """A page of a browser, spoken to by the DevTools protocol; keeps what went wrong in it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.loaded = False

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=60)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._hear(message)

    async def run(self, script: str) -> Any:
        answer = await self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.ask(f"{domain}.enable")
        self.loaded = False  # about:blank may have been heard of
        await self.ask("Page.navigate", url=url)
        while not self.loaded:
            self._hear(await self._socket.receive_json(timeout=60))

    async def click(self, selector: str) -> None:
        """A real click of the mouse in the middle of an element."""
        find = f"const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
        middle = "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2];"
        place = await self.run(f"(() => {{ {find} {middle} }})()")
        for kind in ("mousePressed", "mouseReleased"):
            x, y = place
            await self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _hear(self, message: dict[str, Any]) -> None:
        method, said = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(said["entry"]))


@contextmanager
def running_chromium(folder: Path, *drawing: str) -> Iterator[str]:
    """The DevTools address of a headless Chromium, on loopback; it has WebGL where `drawing`, its flags, say so."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: make test-system installs it")
    profile = folder / "chromium"
    options = ["--headless", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    options += ["--remote-debugging-address=127.0.0.1", "--no-first-run", "--window-size=1400,1000"]
    options += drawing or ["--disable-gpu"]
    process = subprocess.Popen(
        [program, *options, "about:blank"],
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    port_file = profile / "DevToolsActivePort"
    try:
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < deadline, "chromium did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"
    finally:
        process.terminate()
        process.wait(30)


@asynccontextmanager
async def attached(address: str) -> AsyncIterator[Page]:
    """The browser's one page, whatever it shows."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{address}/json") as response:
            (target,) = [each for each in await response.json() if each["type"] == "page"]
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            yield Page(socket)


@asynccontextmanager
async def opened(address: str, report: Path) -> AsyncIterator[Page]:
    async with attached(address) as page:
        await page.open(report.as_uri())
        yield page
