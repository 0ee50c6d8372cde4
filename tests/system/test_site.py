"""The documents as a site: made without a network, its live commands run, every link followed."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
# A network of its own, in which nothing is reached but this machine.
OFFLINE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


class Page(HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.loaded += [given[name] for name in ("src", "srcset", "data") if name in given]
        if tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon", "preconnect"):
            self.loaded.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("sphinx", reason="Sphinx isn't installed (make .venv/.installed-docs)")
    if shutil.which("ip") is None or subprocess.run([*OFFLINE, "true"], capture_output=True).returncode != 0:
        pytest.skip("a network namespace needs root, and ip: make test-system installs it")
    shutil.rmtree(ROOT / ".site" / "live", ignore_errors=True)  # no answer of before
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", "docs"]
    done = subprocess.run(
        [*OFFLINE, *command, "--builder", "html", ".", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}


def test_every_document_is_a_page(site: Path, pages: dict[Path, Page]) -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "cluster" / "README.md"]
    made = {str(file.relative_to(site).with_suffix("")) for file in pages}
    assert {str(document.relative_to(ROOT).with_suffix("")) for document in documents} <= made
    start = {str((site / "docs" / link).resolve()) for link in pages[site / "docs" / "index.html"].links}
    assert {str(site / document.relative_to(ROOT).with_suffix(".html")) for document in documents} <= start | {
        str(site / "docs" / "index.html")
    }


def test_every_link_leads_to_a_place(site: Path, pages: dict[Path, Page]) -> None:
    wrong = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            there = pages.get(target)
            if not target.is_file() or (parts.fragment and there and unquote(parts.fragment) not in there.places):
                wrong.append(f"{file.relative_to(site)}: {link}")
    assert not wrong
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for file, page in pages.items():
        for loaded in page.loaded:
            assert not urlsplit(loaded).netloc, f"{file.name} loads {loaded}"
            assert loaded.startswith("data:") or (file.parent / urlsplit(loaded).path).is_file(), loaded
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_live_commands_are_followed_by_what_they_answered(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "docs" / "examples.html").read_text(encoding="utf-8"))
    for said in (
        "BraTS20_Training_004: (31, 40, 36) voxels z y x",
        "ET: 0.0276 l",
        "epoch 2: validation IoU",
        "where the time went",
        "wanted a store at nowhere.zarr, found nothing",
    ):
        assert said in text.replace("&#39;", "'"), said
    assert str(ROOT) not in text and "brats-live-" not in text
    for picture in ("sheet", "cross_section_BraTS20_Training_00", "thresholds"):
        assert list((site / "_images").glob(f"{picture}*.png")), picture
    flags = (site / "docs" / "commands.html").read_text(encoding="utf-8")
    assert "--max-failures" in flags and "--smallest-mm3" in flags


def test_an_answer_stays_until_its_command_changes_and_one_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = load_live()
    kept = tmp_path / "kept"
    asked: list[str] = []
    monkeypatch.setattr(live, "run", lambda line, folder, status: asked.append(line) or f"answer {len(asked)}\n")
    page = "Before.\n\n```sh live\npython a.py\npython b.py\n```\n\nAfter.\n"
    shown = live.answer(page, kept)
    assert shown == page.replace("\nAfter", "\n```text\nanswer 1\nanswer 2\n```\n\n\nAfter")
    assert live.answer(page, kept) == shown and asked == ["python a.py", "python b.py"]
    assert "answer 3" in live.answer(page.replace("a.py", "c.py"), kept)
    assert live.answer("```\npython a.py\n```\n", kept) == "```\npython a.py\n```\n"
    with pytest.raises(SystemExit, match=r"no picture x\*\.png"):
        live.answer("```sh live x*.png\npython d.py\n```\n", kept)


def test_a_live_command_ends_as_it_should(tmp_path: Path) -> None:
    live = load_live()
    assert live.run("python -c 'import os; print(os.getcwd() + \"/x\")'", tmp_path, 0) == "x\n"
    with pytest.raises(SystemExit, match="ended with 3, not 0"):
        live.run("python -c 'raise SystemExit(3)'", tmp_path, 0)


def load_live() -> Any:
    spec = importlib.util.spec_from_file_location("live", ROOT / "docs" / "live.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
