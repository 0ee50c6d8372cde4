"""A model card: what a network is for, was trained on and scored, in Markdown beside the file that has the network."""

from collections.abc import Mapping, Sequence
from typing import Any

_SCORES = (("iou", "IoU"), ("dice", "Dice"))


def write_card(description: Mapping[str, Any], training: Mapping[str, Any], *, file: str, runs: Sequence[str]) -> str:
    """Return the card of the network in `file`, which programs of others run as the lines of `runs` say."""
    task, made = description["task"], description["made_with"]
    regions = ", ".join(f"{region['title']} ({region['name']})" for region in description["regions"])
    spacing = description["spacing_mm"]
    voxels = "an unknown size" if spacing is None else f"{' x '.join(f'{side:g}' for side in spacing)} mm (z y x)"
    lines = [
        f"# {task['title'] or 'Brain tumour'}: segmentation network",
        "",
        f"`{file}` gives probabilities of {regions} from {', '.join(description['scans'])}, in that order.",
        "It is for research. It is no medical device, and nobody has tested it as one.",
        "",
        "## How it runs",
        "",
        *runs,
        "",
        "## Trained on",
        "",
        *_describe_training(description, training, f"voxels of {voxels}"),
        "",
        "## Scores",
        "",
        *_describe_scores(training, [region["name"] for region in description["regions"]]),
        "",
        "## From scans to labels",
        "",
        *_describe_steps(description),
        "",
        "## Made with",
        "",
        f"brats-stream {made['brats-stream']}, commit {made['commit'] or 'unknown'}.",
    ]
    return "\n".join(lines) + "\n"


def _describe_training(description: Mapping[str, Any], training: Mapping[str, Any], voxels: str) -> list[str]:
    head = "skull-stripped" if description["task"]["skull_stripped"] else "not skull-stripped"
    if description["brought_from"]:
        return [f"Brought from {description['brought_from']}, which knows what it was trained on; {voxels}, {head}."]
    lines = [
        f"Scans of the store with digest `{training['store_digest']}`: {voxels}, {head}.",
        f"Checkpoint `{training['checkpoint'].rpartition('/')[2]}` after {training['epoch']} epochs"
        + (f", preset {training['preset']}." if training["preset"] else "."),
    ]
    if summary := training["summary"]:
        held = [f"{summary[part]['cases']} {part}" for part in ("validation", "test") if summary.get(part)]
        lines.append(f"Held out: {' and '.join(held) or 'no'} cases (run {summary['run']}).")
    return lines


def _describe_scores(training: Mapping[str, Any], regions: Sequence[str]) -> list[str]:
    """A table of what is known; what is not is said."""
    parts: dict[str, Mapping[str, Any]] = {}
    if summary := training["summary"]:
        parts = {part: summary[part] for part in ("validation", "test") if summary.get(part)}
    elif training["validation"]:
        flat = training["validation"]
        kinds = [kind for kind, _ in _SCORES if f"{kind}_mean" in flat]
        parts["validation"] = {
            kind: {name: flat.get(f"{kind}_{name}") for name in [*regions, "mean"]} for kind in kinds
        }
    columns = [(part, kind, title) for part in parts for kind, title in _SCORES if kind in parts[part]]
    if not columns:
        return ["None are known: it was validated on no case."]
    rows = [
        [name, *("" if (score := parts[part][kind].get(name)) is None else f"{score:.3f}" for part, kind, _ in columns)]
        for name in [*regions, "mean"]
    ]
    table = [["region", *(f"{part} {title}" for part, _, title in columns)], ["---"] * (len(columns) + 1), *rows]
    return [
        *(f"| {' | '.join(row)} |" for row in table),
        "",
        f"By {training['rules']} rules: means over cases. Validation cases chose the epoch and the decision.",
    ]


def _describe_steps(description: Mapping[str, Any]) -> list[str]:
    normalisation, window, decision = description["normalisation"], description["window"], description["decision"]
    sides = window["sides"]
    if sides is None:
        windows = f"the image at once, padded to multiples of {window['multiple']}"
    else:
        windows = f"windows of {' x '.join(map(str, sides))} ({window['sides_mean']}), overlap {window['overlap']:g}"
    thresholds = ", ".join(f"{name} {value:g}" for name, value in decision["thresholds"].items())
    smallest = [f"{name} {size:g} mm³" for name, size in decision["smallest_mm3"].items() if size]
    empty = [f"{name} {size:g} mm³" for name, size in decision["empty_below_mm3"].items() if size]
    left_out = [f"components below {', '.join(smallest)}"] if smallest else []
    left_out += ["all but the largest component of the whole tumour"] if decision["largest_tumour_only"] else []
    left_out += [f"regions of less in all than {', '.join(empty)}"] if empty else []
    return [
        f"1. Scans turned to {description['orientation']}; {description['frame']['grid']}.",
        f"2. Normalised: {normalisation['formula']}, over {normalisation['statistics_over']}; elsewhere "
        f"{normalisation['elsewhere']}.",
        f"3. Predicted in {windows}, mirrored along {window['mirrored_axes'] or 'no axis'}.",
        f"4. A voxel is in a region from these probabilities on: {thresholds}; left out: "
        f"{'; '.join(left_out) or 'nothing'}. The innermost region decides.",
        f"5. Values: {', '.join(f'{value} {name}' for value, name in description['values'].items())}.",
    ]
