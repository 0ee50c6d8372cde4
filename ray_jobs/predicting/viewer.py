"""The part of a report in which one scrolls through a case: NiiVue and the cases' copies, within the page or beside it.

A browser fetches nothing for a page that it opened from disk, but runs scripts: so NiiVue and copies are scripts, which
the page runs when a case is opened.
"""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

PART = Path(__file__).with_name("viewer.html")
NIIVUE = Path(__file__).with_name("niivue") / "niivue.umd.js"
COPY, LIBRARY = "viewer/{case_id}.js", "viewer/niivue.js"
MOST_WITHIN = 20_000_000
"""Bytes of a page that still goes about as one file: by mail, or into a browser at once."""


def copies_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the cases' copies, of those that have one."""
    named = [COPY.format(case_id=record["case_id"]) for record in records]
    return [name for name, record in zip(named, records, strict=True) if name in record["files"]]


def open_button(record: Mapping[str, Any]) -> str:
    """What opens a case's copy, nothing where it has none."""
    return "".join(
        f' <button type="button" class="scroll" data-copy="{html.escape(quote(name))}" '
        f'aria-label="scroll through {html.escape(record["case_id"])}">scroll</button>'
        for name in copies_of([record])
    )


def viewer_part(records: Sequence[Mapping[str, Any]], read: Callable[[str], bytes], page_bytes: int) -> str:
    """Return the viewer's part of a page that takes `page_bytes` without it; nothing where no case has a copy.

    With all that it runs where the page stays below MOST_WITHIN; else that lies beside the page.
    """
    names = copies_of(records)
    if not names:
        return ""
    within = _scripts(names, read, MOST_WITHIN - page_bytes - PART.stat().st_size)
    beside = (
        ""
        if within
        else f"They lie beside this page in {COPY.split('/')[0]}/, without which it shows everything but these."
    )
    return Template(PART.read_text(encoding="utf-8")).substitute(
        scripts=within, beside=beside, library=json.dumps(LIBRARY)
    )


def _scripts(names: Sequence[str], read: Callable[[str], bytes], room: int) -> str:
    """NiiVue and all copies as scripts that wait until they are wanted; nothing where that is more than `room`."""
    scripts: list[str] = []
    for name in (LIBRARY, *names):
        content = (NIIVUE.read_bytes() if name == LIBRARY else read(name)).decode()
        scripts.append(f'<script type="text/plain" data-script="{html.escape(quote(name))}">{content}</script>')
        room -= len(scripts[-1])
        if room < 0:
            return ""
    return "\n".join(scripts)
