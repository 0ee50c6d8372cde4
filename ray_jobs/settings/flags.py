"""A command line read by tyro, whose boxes of what is wrong with it become one line, as every other error is."""

import contextlib
import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from ray_jobs.settings.help_screen import of_width
from storage import InputError

HELP = {"-h", "--help", "-H", "--help-verbose"}
WIDTH = 10_000  # so that a box breaks no line
RULE = "─"


def read_flags(kind: Any, arguments: Sequence[str], *, read: Callable[..., Any] | None = None, **told: Any) -> Any:
    """Return what `read`, tyro.cli unless given, makes of the arguments; raises InputError for what it refuses."""
    read = read or tyro.cli
    if HELP.intersection(arguments):
        return read(kind, args=list(arguments), **told)
    for before, value in itertools.pairwise(["the command's name", *arguments]):
        if re.fullmatch(r"(--[^=]+=)?", value):
            where = f"as {value}" if value else f"after {before}"
            raise InputError(
                f"wanted a value, got an empty text {where}: perhaps of a shell's variable that is not set"
            )
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # where tyro sees no UTF-8, it draws no boxes
    refused = io.StringIO()
    try:
        with of_width(WIDTH), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(refused):
            return read(kind, args=list(arguments), **told)
    except SystemExit as ended:
        if not refused.getvalue():  # it was asked for something else, such as a shell's completions
            printed.seek(0)
            print(printed.read(), end="")
            raise
        raise InputError(describe_box(refused.getvalue())) from ended


def describe_box(box: str) -> str:
    """Return in one line what a box of tyro's says: what was wanted, what came, and what may have been meant."""
    lines = [line[2:-1].rstrip() for line in box.splitlines()[1:-1]]
    first, *rest = (
        list(part) for is_rule, part in itertools.groupby(lines, lambda line: line[:1] == RULE) if not is_rule
    )
    said = " ".join(line.strip() for line in first)
    if said.startswith("Missing from"):
        others = "".join(f", and not {' '.join(_flags(part))}" for part in rest if part[0].startswith("Unrecognized"))
        return f"wanted {', '.join(_flags(first))}, got none{others}; --help says more"
    if said.startswith("Error parsing"):
        name, _, came = said.removeprefix("Error parsing ").partition(": ")
        return f"{' '.join(['wanted', *_flags(rest[0])[:1]]) if _flags(rest[0]) else name}: {came}; --help says more"
    alike = [flag for part in rest if part[0].startswith(("Perhaps", "Arguments similar")) for flag in _flags(part)]
    meant = [*{flag.split()[0]: flag for flag in alike if flag.startswith("--")}.values()]  # each of several kinds once
    listed = [part[0] for part in rest if part[0].startswith("Available")]
    remedy = f"perhaps {' or '.join(meant)}" if meant else "".join(listed).lower() or "--help lists the flags"
    return f"{said[0].lower()}{said[1:].rstrip('.').replace('. Expected', ': wanted')}; {remedy}"


def _flags(part: Sequence[str]) -> list[str]:
    """What stands four places in: below it, eight places in, stand the texts."""
    return [line.strip() for line in part if line.startswith(" " * 4) and not line.startswith(" " * 5)]
