"""Every command in the documents is one that the real parsers take; every link leads somewhere."""

import argparse
import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import tyro

from storage import TASKS
from storage.scans.task_refusals import describe_values

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "cluster").glob("*.md")])

# What is not ours to parse, and why it is right to type it.
OUTSIDE = {
    "aws": "Amazon's command line: needs an account",
    "docker": "needs a registry; the Dockerfile is tested in tests/cluster",
    "kubectl": "needs a cluster; the YAML is validated in tests/cluster",
    "~/kaggle/bin/kaggle": "needs a Kaggle account",
    "~/kaggle/bin/pip": "an environment for Kaggle's tool",
    **dict.fromkeys(["export", ".", "cd", "rm", "chmod"], "the shell's own"),
}
# One command a line: these begin one; other lines in code blocks are output, layouts or figures.
BEGINS = re.compile(r"\s*(python|make|ray|pytest|aws|docker|kubectl|export|pip|tensorboard|cd|rm|~/|\. )")


class ParsedError(Exception):
    """The command line was taken."""


def find_commands() -> Iterator[tuple[str, str]]:
    """Yield document and command, of code blocks and of inline code."""
    for document in DOCUMENTS:
        text = document.read_text()
        name = str(document.relative_to(ROOT))
        for block in re.findall(r"^```.*?\n(.*?)^```", text, flags=re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                if BEGINS.match(line):
                    yield from ((name, part) for part in split_shell(line))
        prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
        for inline in re.findall(r"`((?:python|make|ray|pytest) [^`]+)`", prose):
            yield from ((name, part) for part in split_shell(" ".join(inline.split())))


def split_shell(line: str) -> list[str]:
    """Return the commands of a line, without comments and without what puts one in the background."""
    words = shlex.split(line, comments=True, posix=False)
    return [part.strip() for part in " ".join(words).removesuffix(" < /dev/null &").split(" && ")]


COMMANDS = sorted(set(find_commands()))


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_a_command_can_be_typed(document: str, command: str) -> None:
    check(shlex.split(command))


def check(words: list[str]) -> None:
    first, *rest = words
    if first == "python":
        check_python(rest)
    elif first == "make":
        makefile = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
        targets = re.findall(r"^([a-z.][\w./-]*):", makefile, flags=re.M)
        assert rest[0] in targets
    elif first == "ray":
        check_ray(rest)
    elif first == "pytest":
        assert all((ROOT / path.split("::")[0]).exists() for path in rest if not path.startswith("-"))
    elif first == "pip":
        check_pip(rest)
    elif first == "tensorboard":
        assert rest[0] == "--logdir"
    else:
        assert first in OUTSIDE, f"{first}: who tests it?"


def check_python(words: list[str]) -> None:
    if words[:2] == ["-m", "benchmarks"]:
        check_benchmark(words[2:])
        return
    if words[0] == "-m":
        name, arguments = words[1], words[2:]
        assert importlib.util.find_spec(name) is not None
        if arguments and (ROOT / name.split(".")[0]).is_dir():  # not Python's own
            check_main(importlib.import_module(name), arguments)
        return
    script = Path(words[0])
    assert (ROOT / script).is_file()
    with patch("sys.path", [str(ROOT / script.parent), *sys.path]):  # as Python does for a script
        module = importlib.import_module(".".join(script.with_suffix("").parts))
    if f"`python {' '.join(words)}`" not in (module.__doc__ or ""):  # an example without a parser says how it is typed
        check_main(module, words[1:])


def check_main(module: Any, arguments: list[str]) -> None:
    """Run the command up to where its command line is parsed."""

    def stop_after(real: Callable[..., Any]) -> Callable[..., None]:
        def parse(*positional: Any, **named: Any) -> None:
            real(*positional, **named)
            raise ParsedError

        return parse

    with (
        patch("tyro.cli", stop_after(tyro.cli)),
        patch("argparse.ArgumentParser.parse_args", stop_after(argparse.ArgumentParser.parse_args)),
        pytest.raises((ParsedError, SystemExit)) as ended,
    ):
        module.main(arguments)
    assert ended.type is ParsedError or ended.value.code == 0  # --help ends there


def check_benchmark(arguments: list[str]) -> None:
    from benchmarks.__main__ import parse

    if arguments not in ([], ["--help"]):
        parse(arguments)


def check_ray(words: list[str]) -> None:
    """Ray's own parsers know the options; what follows `--` is a command again."""
    import click
    from ray.scripts.scripts import cli

    own, job = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    command: Any = cli
    while isinstance(command, click.Group):
        name, *own = own
        assert name in command.commands, f"ray has no command {name}"
        command = command.commands[name]
    context = click.Context(command)
    command.make_parser(context).parse_args(own)
    if job:
        check(job)


def check_pip(words: list[str]) -> None:
    """What is installed is the project in its folder, with extras that it has, held to the lock."""
    install, constraint, lock, *project = words
    assert (install, constraint) == ("install", "--constraint") and (ROOT / lock).is_file()
    extras = re.fullmatch(r"\.(?:\[(.*)\])?", " ".join(project).removeprefix("--editable "))
    assert extras is not None
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set((extras[1] or "train").split(",")) <= known.keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]*)(?:#[^)]*)?\)", document.read_text()):
        assert not target or (document.parent / target).exists(), f"{document.name} links to {target}"


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 50


def test_the_table_of_tasks_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "store-format.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")
    ]
    shown = {row[0].strip("`"): (row[1], row[3], row[4]) for row in rows if len(row) == 5}
    for task in TASKS.values():
        assert shown.pop(task.name) == (task.title, describe_values(task.convention), ", ".join(task.region_names))
    assert not shown


def test_help_names_every_task() -> None:
    source = (ROOT / "ray_jobs" / "settings" / "convert_config.py").read_text(encoding="utf-8")
    text = source.partition("    task: str | None = None")[2].partition("label_map:")[0]
    listed = {name for name in re.split(r"[\s,:.]+", text) if name in TASKS}
    assert listed == set(TASKS)
