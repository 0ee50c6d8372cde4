"""A run of predictions as one HTML file that needs nothing else: summary, cases from worst to best, figures within."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from ray_jobs.evaluation.case_scores import (
    MEAN,
    SHOWN,
    VOLUMES,
    dice_of,
    format_score,
    mean_of_records,
    region_names,
    score_names,
    score_of,
    shown_of,
)
from ray_jobs.pages.page import STYLE, show_picture
from ray_jobs.predicting.viewer import open_button, viewer_part
from scoring import RulesName, title_of
from storage import Region

PAGE = Path(__file__).with_name(
    "report.html"
)  # markup, look and behaviour, with the names that `build_report` fills in
_ASCENDING = ' aria-sort="ascending"'
_OPEN_AT_FIRST = 3  # cases whose figures are unfolded: the worst
_MOST_REGIONS_SIDE_BY_SIDE = 3  # with more, one score at a time is shown, at first the first

# What the table of cases can show of SHOWN, each once a region.
_COLUMNS = ("dice", "hd95", "hd95_voxels", "lesion_dice", "predicted_mm3")


def build_report(
    title: str,
    records: Sequence[Mapping[str, Any]],
    refused: Mapping[str, str],
    settings: Mapping[str, Any],
    *,
    done: str,
    rules: RulesName,
    notices: Sequence[str] = (),
    regions: Sequence[Region],
    read: Callable[[str], bytes],
) -> bytes:
    """Return report.html. `done` is what was done to the cases, `notices` what is odd.

    `read` gives the content of a file that a record names.
    """
    ordered = sort_worst_first(records)
    labelled = sum(record["labelled"] for record in records)
    there, names = score_names(records), region_names(records)
    scores = [name for name in _COLUMNS if name in there and (labelled or name in VOLUMES)]
    shown = scores if len(names) <= _MOST_REGIONS_SIDE_BY_SIDE else scores[:1]
    with_label = "" if labelled == len(records) else f"{labelled} of them with a label, "
    said = f"{len(records)} cases {done}, {with_label}{len(refused)} refused."
    if labelled:
        said += f" Scores are by {title_of(rules)}."
    parts = {
        "style": STYLE,
        "title": html.escape(title),
        "said": said,
        "settings": _settings(settings),
        "summary": _summary(records) if records else "",
        "regions": "; ".join(f"{html.escape(each.name)}: {html.escape(each.title)}" for each in regions),
        "refused": _list("refused", "Refused", [reason for _, reason in sorted(refused.items())])
        + _list("unscored", "Not scored", [each["label_refused"] for each in records if "label_refused" in each]),
        "notices": _list("notices", "Noticed", notices),
        "order": "from worst to best by mean Dice" if labelled else "by name",
        "choices": _choices(scores, shown),
        "head": _head(scores, shown, names, bool(labelled)),
        "cases": "\n".join(
            _case(record, scores, shown, names, bool(labelled), place, read) for place, record in enumerate(ordered)
        ),
    }
    page = PAGE.read_text(encoding="utf-8")
    bytes_so_far = len(page) + sum(map(len, parts.values()))
    return Template(page).substitute(parts, viewer=viewer_part(ordered, read, bytes_so_far)).encode()


def sort_worst_first(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the records by mean Dice, then those without a label by name."""
    with_dice = [(dice_of(record), record) for record in records]
    scored = sorted(
        ((dice, record["case_id"], record) for dice, record in with_dice if dice is not None), key=lambda each: each[:2]
    )
    rest = sorted((record for dice, record in with_dice if dice is None), key=lambda record: str(record["case_id"]))
    return [record for _, _, record in scored] + rest


def _settings(settings: Mapping[str, Any]) -> str:
    rows = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            pairs = (f"{key}: {_plain(item)}" for key, item in value.items())
            text = "; ".join(pairs)
        else:
            text = _plain(value)
        rows.append(f"<tr><th>{html.escape(name.replace('_', ' '))}</th><td>{html.escape(text)}</td></tr>")
    return "".join(rows)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "as validated"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _summary(records: Sequence[Mapping[str, Any]]) -> str:
    means = mean_of_records(records)
    names = shown_of(means)
    head = "".join(f"<th>{SHOWN[name]}</th>" for name in names)
    rows = []
    for region, values in means.items():
        label = "mean of regions" if region == MEAN else region
        rows.append(f"<tr><th>{label}</th>{''.join(_cell(name, values.get(name)) for name in names)}</tr>")
    return f"<thead><tr><th>mean over cases</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _list(name: str, heading: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<section id="{name}"><h2>{heading}</h2><ul>{items}</ul></section>'


def _choices(scores: Sequence[str], shown: Sequence[str]) -> str:
    names = {**{name: SHOWN[name] for name in scores}, "all": "all columns"}
    chosen = shown[0] if len(shown) == 1 else "all"
    return "".join(
        f'<option value="{name}"{" selected" if name == chosen else ""}>{text}</option>' for name, text in names.items()
    )


def _head(scores: Sequence[str], shown: Sequence[str], regions: Sequence[str], labelled: bool) -> str:  # noqa: FBT001
    columns = [("case", "")] + ([("mean Dice", "")] if labelled else [])
    columns += [(f"{html.escape(region)} {SHOWN[name]}", _score(name, shown)) for name in scores for region in regions]
    sorted_by = "mean Dice" if labelled else "case"
    marks = (f"{score}{_ASCENDING if column == sorted_by else ''}" for column, score in columns)
    buttons = (f'<button type="button">{column}</button>' for column, _ in columns)
    return "".join(f'<th scope="col"{mark}>{button}</th>' for mark, button in zip(marks, buttons, strict=True))


def _score(name: str, shown: Sequence[str]) -> str:
    """What tells a cell's score to the page's choice of columns."""
    return f' data-score="{name}"{"" if name in shown else " hidden"}'


def _case(
    record: Mapping[str, Any],
    scores: Sequence[str],
    shown: Sequence[str],
    regions: Sequence[str],
    labelled: bool,  # noqa: FBT001
    place: int,
    read: Callable[[str], bytes],
) -> str:
    case_id = html.escape(record["case_id"])
    cells = [_cell("dice", dice_of(record))] if labelled else []
    cells += [_cell(name, score_of(record, region, name), _score(name, shown)) for name in scores for region in regions]
    figures = [name for name in record["files"] if name.endswith(".png")]
    pictures = "".join(show_picture(read(name), f"{record['case_id']} {name}") for name in reversed(figures))
    folded = "" if place < _OPEN_AT_FIRST else " hidden"
    opened = "false" if folded else "true"
    width = 1 + sum(" hidden" not in cell for cell in cells)
    unfold = f'<button type="button" class="unfold" aria-expanded="{opened}">{case_id}</button>' if figures else case_id
    first = f'<td data-value="{case_id}">{unfold}{open_button(record)}</td>'
    row = f'<tr class="scores">{first}{"".join(cells)}</tr>'
    below = f'<tr class="figures"{folded}><td colspan="{width}">{pictures}</td></tr>' if figures else ""
    return f'<tbody class="case" id="{case_id}">{row}{below}</tbody>'


def _cell(name: str, value: float | None, said: str = "") -> str:
    text = format_score(name, value)
    return f'<td{said} data-value="{value:.6f}">{text}</td>' if text else f'<td{said} data-value="">&ndash;</td>'
