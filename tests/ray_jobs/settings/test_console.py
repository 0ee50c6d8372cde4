"""What is printed is text: in names and paths of users brackets and colons are no markup."""

import re
from pathlib import Path

import pytest
from rich.progress import Progress

from ray_jobs.settings.console import figures_table, open_console, text_column

NAME = "m[/k] [copy] :warning: [red]"


def test_a_users_text_is_printed_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    console = open_console()
    console.print(f"run {NAME}", style="yellow")
    table = figures_table(f"title {NAME}", f"first {NAME}", f"second {NAME}")
    table.add_row(f"cell {NAME}", f"right {NAME}")
    console.print(table)
    with Progress(text_column("{task.description}"), console=console) as bar:
        bar.add_task(f"bar {NAME}")
    printed = capsys.readouterr().out
    for what in ("run", "title", "first", "second", "cell", "right", "bar"):
        assert f"{what} {NAME}" in printed
    open_console(stderr=True).print(NAME)
    assert capsys.readouterr().err == f"{NAME}\n"


def test_no_other_console_is_opened_that_may_print() -> None:
    root = Path(__file__).parents[3]
    files = [file for room in ("ray_jobs", "benchmarks", "cluster") for file in (root / room).rglob("*.py")]
    makers = {str(file.relative_to(root)) for file in files if re.search(r"\bConsole\((?!quiet)", file.read_text())}
    columns = {str(file.relative_to(root)) for file in files if re.search(r"\bTextColumn\(", file.read_text())}
    assert makers | columns == {"ray_jobs/settings/console.py"}
