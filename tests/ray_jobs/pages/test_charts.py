"""Curves as SVG: what is drawn, what is said of it to those who do not see it, and that nothing odd breaks it."""

import math
import re

import pytest

from ray_jobs.pages.charts import HEIGHT, WIDTH, Axis, Curve, bars, chart, number, thinned

LINE = Curve(name="loss & <b>", points=[(1.0, 2.0), (2.0, math.inf), (3.0, 1.0), (4.0, math.nan), (5.0, 1.5)])


def places(drawn: str) -> list[tuple[float, float]]:
    found = re.search(r'<polyline class="curve line1" points="([^"]*)"', drawn)
    assert found is not None
    return [(float(x), float(y)) for x, y in (each.split(",") for each in found[1].split())]


def test_a_curve_lies_within_and_leaves_out_what_is_no_number() -> None:
    drawn = chart("One", [LINE], Axis(name="epoch"), Axis(name="loss"))
    found = places(drawn)
    assert len(found) == 3 and all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in found)
    (first, highest), (_, lowest), (last, _) = found
    assert first < last and highest < lowest  # y grows downwards on a page
    assert "<b>" not in drawn and "nan" not in drawn and "inf" not in drawn


def test_a_curve_is_said_in_words_and_in_a_table() -> None:
    drawn = chart("One", [LINE], Axis(name="epoch"), Axis(name="loss"))
    said = "One. loss over epoch: loss &amp; &lt;b&gt; from 2 at 1 to 1.5 at 5, highest 2 at 1, lowest 1 at 3."
    assert f'role="img" aria-label="{said}"' in drawn
    assert re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', drawn) == [
        ("1", "2"),
        ("3", "1"),
        ("5", "1.5"),
    ]
    many = Curve(name="many", points=[(float(step), 0.5) for step in range(1000)])
    assert chart("Two", [many], Axis(name="step"), Axis(name="loss")).count('<th scope="row">') == 24


def test_several_curves_have_a_legend_and_several_dots_a_shape_each() -> None:
    curves = [Curve(name=str(style), points=[(1, 1), (2, style)], style=style, dots=True) for style in range(3)]
    drawn = chart("Three", curves, Axis(name="x"), Axis(name="y"))
    assert [drawn.count(kind) for kind in ("<circle", "<rect", "rotate(45")] == [3, 6, 3]
    assert re.findall(r"</svg>(\d)</li>", drawn) == ["0", "1", "2"]
    assert "legend" not in chart("One", [LINE], Axis(name="epoch"), Axis(name="loss"))


@pytest.mark.parametrize("points", [[], [(1.0, math.nan)]])
def test_nothing_is_drawn_of_nothing(points: list[tuple[float, float]]) -> None:
    assert chart("None", [Curve(name="none", points=points)], Axis(name="x"), Axis(name="y")) == ""


@pytest.mark.parametrize(
    ("axis", "points"),
    [
        (Axis(name="x"), [(2.0, 3.0)]),
        (Axis(name="x"), [(2.0, 3.0), (2.0, 3.0)]),
        (Axis(name="x", log=True), [(1e-4, 3.0), (1e-1, 3.0)]),
        (Axis(name="x", log=True), [(1e-3, 3.0), (1e-3, 3.0)]),
        (Axis(name="x", log=True), [(0.0, 1.0), (1e39, 3.0)]),
        (Axis(name="x", low=0.0, high=1.0), [(0.0, 0.0), (1.0, 1.0)]),
    ],
)
def test_axes_of_one_value_many_powers_and_given_ends(axis: Axis, points: list[tuple[float, float]]) -> None:
    drawn = chart("Axes", [Curve(name="one", points=points, dots=True)], axis, Axis(name="y"))
    places = re.findall(r'<circle class="dot" cx="(.*?)" cy="(.*?)"', drawn)
    assert len(places) == len(points)
    assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in places)
    assert 'class="grid"' in drawn


def test_epochs_have_whole_numbers() -> None:
    curve = Curve(name="one", points=[(1.0, 1.0), (2.0, 2.0)])
    drawn = chart("Epochs", [curve], Axis(name="epoch", whole=True), Axis(name="y"))
    assert re.findall(r'text-anchor="middle">([\d.]+)<', drawn) == ["1", "2"]


def test_many_points_become_means_of_neighbours() -> None:
    points = [(float(step), float(step % 2)) for step in range(1000)] + [(1000.0, math.nan)]
    few = thinned(points, most=100)
    assert len(few) == 100 and few[0] == (4.5, 0.5)
    assert thinned([]) == [] and thinned(points[:3]) == points[:3]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (3e-4, "0.0003"), (0.12345, "0.1235"), (12.0, "12"), (4321.5, "4322"), (1e39, "1e+39")],
)
def test_numbers_are_short(value: float, said: str) -> None:
    assert number(value) == said


def test_bars_are_as_wide_as_their_share() -> None:
    drawn = bars("Time", ["part", "seconds", "share"], {"wait": ("1.0", 0.25), "rest": ("3.0", 1.5)})
    assert re.findall(r"width: ([\d.]+)%", drawn) == ["25.0", "100.0"] and "25.0%" in drawn
