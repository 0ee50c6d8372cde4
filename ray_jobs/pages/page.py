"""One page as one file: a heading, sections in the order given with links to them, tables, key figures, pictures.

What is given as `str` is text from anywhere and is escaped; `Html` is markup that was made here.
"""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

STYLE = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
_QUALITY = 82  # of WebP: about a fifth of the PNG's bytes


class Html(str):
    """Markup. Joined, formatted or cut it is a plain str again, and would be escaped."""

    __slots__ = ()


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading. `name` is its place in the page's address, and plain."""

    name: str
    heading: str
    content: Sequence[str]


def build_page(title: str, sections: Iterable[Section], *, lead: str = "") -> bytes:
    """Return the page; a section without content is left out."""
    there = [section for section in sections if any(section.content)]
    links = "".join(f'<li><a href="#{each.name}">{text(each.heading)}</a></li>' for each in there)
    parts = "\n".join(
        f'<section id="{each.name}" aria-labelledby="{each.name}-heading">'
        f'<h2 id="{each.name}-heading">{text(each.heading)}</h2>\n{"".join(map(text, each.content))}</section>'
        for each in there
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>
{STYLE}</style>
</head>
<body>
<header><h1>{text(title)}</h1>{text(lead)}</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{parts}
</main>
</body>
</html>
""".encode()


def text(content: str) -> Html:
    """Return `content` as markup."""
    return content if isinstance(content, Html) else Html(html.escape(content))


def with_code(content: str) -> Html:
    """Return text as markup in which what stands between ` can be typed."""
    return Html(re.sub("`([^`]+)`", r"<code>\1</code>", text(content)))


def paragraph(content: str, *, kind: str = "prose") -> Html:
    """Return a paragraph; `kind` is a class of the style."""
    return Html(f'<p class="{kind}">{text(content)}</p>')


def link(address: str, content: str) -> Html:
    """Return a link to what lies beside the page."""
    return Html(f'<a href="{html.escape(address)}">{text(content)}</a>')


def bullets(lines: Iterable[str]) -> Html:
    """Return a list of lines, nothing of none."""
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return Html(f'<ul class="prose">{items}</ul>') if items else Html("")


def key_figures(figures: Mapping[str, str]) -> Html:
    """Return figures that are seen first, each under its name."""
    each = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in figures.items())
    return Html(f'<dl class="key">{each}</dl>')


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, words: bool = False) -> Html:
    """Return a table whose rows begin with their name; `words` are set to the left, figures to the right."""
    return table_of_bodies(caption, head, [f"<tbody>{''.join(map(row, rows))}</tbody>"], words=words)


def row(cells: Sequence[str]) -> str:
    """Return a row of a table, its name first."""
    name, *others = map(text, cells)
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'


def table_of_bodies(caption: str, head: Sequence[str], bodies: Iterable[str], *, words: bool = False) -> Html:
    """Return a table of these <tbody>; where it is wider than the page it is scrolled, with the keyboard too."""
    names = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    kind = ' class="words"' if words else ""
    return Html(
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(caption)}"><table{kind}>'
        f"<caption>{text(caption)}</caption><thead><tr>{names}</tr></thead>{''.join(bodies)}</table></div>"
    )


def folded(summary: str, content: Iterable[str], *, opened: bool = False) -> Html:
    """Return content that is shown when its summary is asked; printed it always is."""
    return Html(
        f"<details{' open' if opened else ''}><summary>{text(summary)}</summary>{''.join(map(text, content))}</details>"
    )


def show_picture(png: bytes, name: str) -> Html:
    """Return a picture that lies in the page; `name` says what is seen."""
    with Image.open(io.BytesIO(png)) as image:
        width, height = image.size
        small = io.BytesIO()
        image.convert("RGB").save(small, format="WEBP", quality=_QUALITY)
    source = f"data:image/webp;base64,{base64.b64encode(small.getvalue()).decode()}"
    return Html(f'<img loading="lazy" width="{width}" height="{height}" alt="{html.escape(name)}" src="{source}">')
