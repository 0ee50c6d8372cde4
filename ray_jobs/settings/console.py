"""Where the commands print, and how they show that long work goes on."""

import datetime
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

WIDTH_OF_A_LOG = 160
SECONDS_BETWEEN_LINES = 30.0  # of a log; training adds one at an epoch's end

Item = TypeVar("Item")


def open_console(*, stderr: bool = False) -> Console:
    """Return a console as wide as the terminal; in a log, such as a submitted job's, wide enough to break no line.

    What is printed is text: names and paths of users have brackets and colons in them.
    """
    is_log = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=WIDTH_OF_A_LOG if is_log else None, stderr=stderr, markup=False, emoji=False)


def text_column(text: str) -> TextColumn:
    """Return a column of a bar, which takes its texts for markup unless it is told otherwise."""
    return TextColumn(text, markup=False)


def figures_table(title: str, first: str, *figures: str) -> Table:
    """Return a table without rows: words in its first column, figures in the others."""
    table = Table(title=title)
    table.add_column(first)
    for name in figures:
        table.add_column(name, justify="right")
    return table


def tracked(items: Iterable[Item], console: Console, title: str, *, total: int | None, done: int = 0) -> Iterator[Item]:
    """Yield the items, showing how many of `total` are done and how long the rest takes, where that is known.

    A bar on a terminal; in a log, where a bar shows nothing until its end, a line now and then.
    """
    if console.is_terminal:
        columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total, completed=done)
            for item in items:
                yield item
                bar.advance(task)
        return
    started = said = time.monotonic()
    for index, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        rest = None if total is None else total - done - index
        if now - said >= SECONDS_BETWEEN_LINES or rest == 0:
            left = "" if rest is None else f"  {datetime.timedelta(seconds=round(rest * (now - started) / index))} left"
            of = "" if total is None else f"/{total}"
            console.print(f"{title}  {done + index}{of}{left}", highlight=False)
            said = now
