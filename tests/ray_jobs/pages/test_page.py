"""What all pages share: a style whose colours can be read, and markup that nothing from outside becomes."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from ray_jobs.pages.page import STYLE, Section, build_page, bullets, folded, paragraph, show_picture, table

ODD = "a <b>&\"'"
SCHEMES = dict(zip(("light", "dark", "print"), re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL), strict=True))


def luminance(colour: str) -> float:
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_words_have_a_contrast_of_4_5_and_curves_of_3(scheme: str) -> None:
    """By WCAG 2.2, which a browser's axe-core cannot say of lines."""
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", SCHEMES[scheme]))
    assert len(colours) == 13
    for name, colour in colours.items():
        for ground in ("paper", "soft"):
            light, dark = sorted((luminance(colour), luminance(colours[ground])), reverse=True)
            if name not in ("paper", "soft", "line"):
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, name, ground)


def test_what_comes_from_outside_is_text() -> None:
    content = [paragraph(ODD), bullets([ODD]), table(ODD, [ODD], [[ODD, ODD]]), folded(ODD, [ODD]), ODD]
    page = build_page(ODD, [Section("one", ODD, content)], lead=ODD).decode()
    assert "<b>" not in page
    assert page.count("a &lt;b&gt;&amp;&quot;&#x27;") == 15


def test_sections_are_linked_and_empty_ones_left_out() -> None:
    made = [Section(name, name, [content]) for name, content in (("a", "x"), ("b", ""))]
    page = build_page("page", made).decode()
    assert re.findall(r'href="#(\w+)"', page) == re.findall(r'<section id="(\w+)"', page) == ["a"]


def test_a_picture_lies_in_the_page() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(file, "PNG")
    shown = show_picture(file.getvalue(), ODD)
    assert 'width="8" height="6" alt="a &lt;b&gt;' in shown and 'src="data:image/webp;base64,' in shown
