"""`--help` on one screen: what is set every day, and which groups hold the rest; `--help GROUP` and `--help all`."""

import contextlib
import io
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence

from rich.console import Console
from rich.table import Table

from storage import InputError

WIDTH = 100  # tyro's help has one column up to here
EVERYTHING = "all"
TOP = "run"  # what belongs to no group


def help_topic(arguments: Sequence[str]) -> str | None:
    """Return what help is asked for: a group, "all", "" for the first screen; None where none is."""
    for flag in ("--help", "-h"):
        if flag in arguments:
            after = arguments[arguments.index(flag) + 1 :]
            return after[0] if after and not after[0].startswith("-") else ""
    return None


def show_help(print_whole: Callable[[], object], topic: str, *, seldom: Collection[str], console: Console) -> None:
    """Print the help on `topic`, out of the whole that `print_whole` prints before it exits.

    The first screen leaves out the options `seldom` (as "--runs"). Raises InputError for a group that is not there.
    """
    whole = _capture(print_whole)
    groups = read_groups(whole)
    if topic == EVERYTHING:
        console.print(whole, highlight=False, end="")
    elif topic in groups:
        console.print("\n".join(groups[topic]), highlight=False)
    elif topic:
        raise InputError(f"--help {topic}: wanted {', '.join(groups)} or {EVERYTHING}")
    else:
        console.print(whole[: whole.index("╭")].rstrip() + "\n", highlight=False)
        everyday = {k: v for k, v in read_options(groups[TOP]).items() if k.split(",")[0].split()[0] not in seldom}
        _print_options(everyday, console)
        console.print(f"\nMore flags by group: --help {' | '.join(groups)}", highlight=False)
        console.print(f"All of them: --help {EVERYTHING}", highlight=False)


def read_groups(whole: str) -> dict[str, list[str]]:
    """Take tyro's help apart into its boxes: the lines of each as they are, by its title."""
    groups: dict[str, list[str]] = {}
    title = ""
    for line in whole[whole.index("╭") :].splitlines():
        if line.startswith("╭"):
            title = line.strip("╭─╮ ").removesuffix("options").strip() or TOP
        groups.setdefault(title, []).append(line)
    return groups


def read_options(box: Sequence[str]) -> dict[str, str]:
    """Return the options in the lines of a box, as they are written, with their texts."""
    options: dict[str, str] = {}
    name = ""
    for line in box[1:-1]:
        text = line.strip("│").strip()
        # Not a default that goes on below a flag, such as -30.0, nor a flag that a text names where its line begins.
        if re.match(r" --?[A-Za-z]", line.strip("│")):
            name, *first = re.split(r"\s{2,}", text, maxsplit=1)  # a short name has its text on its own line
            options[name] = " ".join(first)
        elif name:
            options[name] = f"{options[name]} {text}".strip()
    return options


def _print_options(options: dict[str, str], console: Console) -> None:
    table = Table.grid(padding=(0, 2), expand=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in options.items():
        table.add_row(name.replace("{None}|", ""), re.sub(r"\(default: (None)?\)", "", text).strip())
    console.print(table, highlight=False)


def _capture(print_whole: Callable[[], object]) -> str:
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # where it sees no UTF-8, tyro draws no boxes
    with of_width(WIDTH), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        print_whole()
    printed.seek(0)
    return printed.read()


@contextlib.contextmanager
def of_width(columns: int) -> Iterator[None]:
    """Have tyro print for a terminal of so many columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
