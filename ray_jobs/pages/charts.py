"""Curves and bars as SVG in the page: its colours, words that a screen reader reads, and the values as a table."""

import html
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ray_jobs.pages.page import Html, folded, table, text

Point = tuple[float, float]

STYLES = 6  # that the stylesheet has for curves: line1 … line6
WIDTH, HEIGHT = 352, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 36
MOST_VALUES = 24  # rows of the table of values: more say nothing more


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart, or its dots. `style` is the number of its colour and dashes; of six on they come again."""

    name: str
    points: Sequence[Point]
    style: int = 0
    dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis is of and from where to where it goes, by default from the lowest to the highest value."""

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False  # numbers between whole ones would say nothing, as of epochs


def chart(
    title: str, curves: Sequence[Curve], across: Axis, up: Axis, *, marks: Mapping[float, int] | None = None
) -> Html:
    """Return a figure of the finite points of `curves`, nothing where there are none.

    `marks` are upright lines: where each stands, and its style.
    """
    known = [(curve, [point for point in curve.points if all(map(math.isfinite, point))]) for curve in curves]
    known = [(curve, points) for curve, points in known if points]
    if not known:
        return Html("")
    every = [point for _, points in known for point in points]
    to_x, x_ticks = _scale(across, [x for x, _ in every], LEFT, WIDTH - RIGHT)
    to_y, y_ticks = _scale(up, [y for _, y in every], HEIGHT - BOTTOM, TOP)
    parts = [_grid(x_ticks, y_ticks, to_x, to_y, across, up)]
    for place, style in (marks or {}).items():
        x = f"{to_x(place):.1f}"
        parts.append(f'<line class="mark {_line(style)}" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for curve, points in known:
        places = [(to_x(x), to_y(y)) for x, y in points]
        if curve.dots or len(places) == 1:
            dots = "".join(_dot(x, y, curve.style) for x, y in places)
            parts.append(f'<g class="{_line(curve.style).replace("line", "fill")}">{dots}</g>')
        else:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline class="curve {_line(curve.style)}" points="{line}"/>')
    said = "; ".join(_in_words(curve.name, points, across.name) for curve, points in known)
    label = html.escape(f"{title}. {up.name} over {across.name}: {said}.")
    drawn = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    legend = _legend([curve for curve, _ in known]) if len(known) > 1 else ""
    values = folded(f"Values of: {title}", [_values(f"{title}: {up.name}", known, across.name)])
    values = Html(values.replace("<details", '<details class="values"', 1))
    return Html(f'<figure class="chart"><figcaption>{text(title)}</figcaption>{drawn}{legend}{values}</figure>')


def charts(drawn: Sequence[str]) -> Html:
    """Return charts side by side, as many as there is room for."""
    return Html(f'<div class="charts">{"".join(drawn)}</div>') if any(drawn) else Html("")


def bars(caption: str, head: Sequence[str], shares: Mapping[str, tuple[str, float]]) -> Html:
    """Return a table of parts of a whole, each with its value in words and its share as a number and a bar."""
    rows = []
    for name, (value, share) in shares.items():
        width = 100 * min(1.0, max(0.0, share))
        bar = f'<span class="track"><span class="bar" style="width: {width:.1f}%"></span></span>'
        rows.append([name, value, Html(f'<span class="share">{share:.1%}</span>{bar}')])
    return table(caption, head, rows)


def thinned(points: Sequence[Point], most: int = 240) -> list[Point]:
    """Return at most so many points, each the mean of neighbours; what is not finite is left out."""
    finite = [point for point in points if all(map(math.isfinite, point))]
    size = math.ceil(len(finite) / most) or 1
    groups = (finite[start : start + size] for start in range(0, len(finite), size))
    return [(sum(x for x, _ in each) / len(each), sum(y for _, y in each) / len(each)) for each in groups]


def number(value: float) -> str:
    """Return a value as axes and tables print it."""
    size = abs(value)
    if value and not 1e-3 <= size < 1e6:
        return f"{value:.3g}"
    return f"{value:.0f}" if size >= 1000 or value == int(value) else f"{value:.4g}"


def _dot(x: float, y: float, style: int) -> str:
    """A circle, a square or a diamond: colours alone do not tell them apart to everybody."""
    if style % 3 == 0:
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    turned = f' transform="rotate(45 {x:.1f} {y:.1f})"' if style % 3 == 2 else ""
    return f'<rect class="dot" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"{turned}/>'


def _line(style: int) -> str:
    return f"line{style % STYLES + 1}"


def _scale(
    axis: Axis, values: Sequence[float], start: float, end: float
) -> tuple[Callable[[float], float], list[float]]:
    """Return what places a value between `start` and `end` on the page, and where the axis has numbers."""
    kept = [value for value in values if value > 0] if axis.log else values
    low = min(kept, default=1.0) if axis.low is None else axis.low
    high = max(kept, default=1.0) if axis.high is None else axis.high
    if low == high:
        low, high = (low / 2, high * 2) if axis.log else (low - 0.5, high + 0.5)
    if axis.log:
        low_log, high_log = math.log10(low), math.log10(high)
        powers = range(math.floor(low_log), math.ceil(high_log) + 1)
        ticks = [base * 10.0**power for power in powers for base in (1, 2, 5)]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        return (
            lambda value: start + (end - start) * (math.log10(max(value, low)) - low_log) / (high_log - low_log),
            _at_most(ticks, 6),
        )
    step = max(_nice_step((high - low) / 5), 1.0 if axis.whole else 0.0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [tick * step for tick in range(first, last + 1)]
    return lambda value: start + (end - start) * (value - low) / (high - low), ticks


def _nice_step(least: float) -> float:
    """Return 1, 2 or 5 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(base * power for base in (1, 2, 5, 10) if base * power >= least * 0.999)


def _at_most(ticks: list[float], most: int) -> list[float]:
    return ticks[:: math.ceil(len(ticks) / most)] if ticks else ticks


def _grid(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
    across: Axis,
    up: Axis,
) -> str:
    bottom = HEIGHT - BOTTOM
    parts = []
    for tick in y_ticks:
        y = to_y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in x_ticks:
        x = to_x(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{number(tick)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{html.escape(across.name)}</text>')
    return "".join(parts)


def _legend(curves: Sequence[Curve]) -> str:
    items = []
    for curve in curves:
        line = _line(curve.style)
        sample = f'<line class="curve {line}" x1="0" x2="26" y1="4" y2="4"/>'
        if curve.dots:
            sample = f'<g class="{line.replace("line", "fill")}">{_dot(13, 4, curve.style)}</g>'
        items.append(f'<li><svg viewBox="0 0 26 8" aria-hidden="true">{sample}</svg>{text(curve.name)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _in_words(name: str, points: Sequence[Point], across: str) -> str:
    (first, start), (last, end) = points[0], points[-1]
    if len(points) == 1:
        return f"{name} {number(start)} at {across} {number(first)}"
    highest, lowest = (choose(points, key=lambda point: point[1]) for choose in (max, min))
    return (
        f"{name} from {number(start)} at {number(first)} to {number(end)} at {number(last)}, "
        f"highest {number(highest[1])} at {number(highest[0])}, lowest {number(lowest[1])} at {number(lowest[0])}"
    )


def _values(caption: str, known: Sequence[tuple[Curve, Sequence[Point]]], across: str) -> Html:
    places = sorted({x for _, points in known for x, _ in points})
    shown = {places[round(at * (len(places) - 1) / (MOST_VALUES - 1))] for at in range(MOST_VALUES)}
    columns = [dict(points) for _, points in known]
    rows = [
        [number(x), *(number(column[x]) if x in column else "" for column in columns)]
        for x in (places if len(places) <= MOST_VALUES else sorted(shown))
    ]
    heads = itertools.chain([across], (curve.name for curve, _ in known))
    return table(caption, list(heads), rows)
