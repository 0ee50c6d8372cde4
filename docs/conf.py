"""How Sphinx makes the site of the documents: `make docs`, offline, a warning being an error.

The pages stay plain Markdown that is read where the code is. What only the site has is made here: the order of the
pages, the pages of sources that documents link to, and under each live command what it printed and drew (live.py).
"""

import importlib.util
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "brats-stream"
author = "the authors of brats-stream"
root_doc = "docs/index"
extensions = ["myst_parser"]
include_patterns = ["*.md", "docs/*.md", "cluster/README.md"]
exclude_patterns = [".*", "runs", "data"]
myst_heading_anchors = 4  # as GitHub has them
nitpicky = True
linkcheck_ignore = [r"[./]*code/"]  # the pages of sources, which are in the site alone
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure"]  # docs/api.md leaves long values out with "…"

html_theme = "furo"
html_title = "brats-stream"
html_copy_source = html_show_copyright = html_show_sphinx = False
html_theme_options = {"footer_icons": []}
html_static_path = html_css_files = ["site.css"]

# Every page once, by the name that it has at the side; Sphinx names one that is missing here.
PARTS = {
    "Start": {"Five minutes": "self", "Examples with their output": "examples"},
    "How to": {
        "Bring your scans": "sources",
        "Train": "training",
        "Watch a run": "watching",
        "Search": "searching",
        "Predict": "prediction",
        "Give and bring networks": "exchange",
        "Use the parts alone": "parts",
        "Check a rented GPU": "gpu",
        "AWS, step by step": "../cluster/README",
        "Clusters of all kinds": "clusters",
    },
    "Reference": {
        "Commands and their flags": "commands",
        "Public names": "api",
        "The store format": "store-format",
        "Scores": "scores",
        "Models": "models",
        "Changes": "../CHANGELOG",
    },
    "Background": {
        "Why it is built so": "background",
        "What it does, and the house": "../README",
        "Storage, measured": "storage",
        "The loader": "loader",
        "Several ranks": "scaling",
        "A result on real scans": "results",
        "Benchmarks": "../BENCHMARKS",
        "Decisions": "decisions",
        "Working on it": "../CONTRIBUTING",
    },
}

LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]+)\)")  # of those to folders only the words stay: the site has no folders
SOURCES: dict[str, str] = {}  # a file that a page links to -> the page of the site that shows it
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml", ".svg": "xml"}


def add_to_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Bring the order of the pages into the first one, and into a page with live commands what they answered."""
    if docname == root_doc:
        for part, pages in PARTS.items():
            lines = "\n".join(f"{name} <{page}>" for name, page in pages.items())
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {part}\n{lines}\n```\n"
    source[0] = live.answer(source[0], ROOT / ".site" / "live" / posixpath.basename(docname))
    folder = (ROOT / docname).parent
    source[0] = LINK.sub(lambda link: link[1] if (folder / link[2]).is_dir() else link[0], source[0])


def link_to_sources(app: Sphinx, doctree: nodes.document) -> None:
    """Show a file that is no page in the site, where Sphinx would have the reader download it."""
    here = posixpath.dirname(app.env.docname)
    for link in list(doctree.findall(addnodes.download_reference)):
        file = posixpath.normpath(posixpath.join(here, link["reftarget"]))
        if (ROOT / file).suffix in LANGUAGES or (ROOT / file).suffix in ("", ".txt"):
            SOURCES[file] = f"code/{file}"
            target = posixpath.relpath(f"code/{file}.html", here)
            link.replace_self(nodes.reference("", "", *link.children, internal=True, refuri=target))


def show_sources(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the pages of sources."""
    for file, page in sorted(SOURCES.items()):
        text = (ROOT / file).read_text(encoding="utf-8")
        language = LANGUAGES.get(Path(file).suffix, "text")
        code = app.builder.highlighter.highlight_block(text, language)  # type: ignore[attr-defined]
        yield page, {"title": file, "body": f"<h1>{file}</h1>{code}"}, "page.html"


def lead_to_first_page(app: Sphinx, error: Exception | None) -> None:
    """Whoever opens the folder comes to the first page."""
    if error is None and app.builder.format == "html":
        page = f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html"><title>{project}</title>'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_to_page)
    app.connect("doctree-read", link_to_sources, priority=400)  # before what is to be downloaded is collected
    app.connect("html-collect-pages", show_sources)
    app.connect("build-finished", lead_to_first_page)


def load(name: str) -> Any:
    """A module beside this file, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


live = load("live")
