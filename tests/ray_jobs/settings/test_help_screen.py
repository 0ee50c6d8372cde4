"""The help of commands that have every field of a run as a flag."""

import importlib
from collections.abc import Callable, Sequence

import pytest

from ray_jobs import predict
from ray_jobs.settings.command import parse_training
from ray_jobs.settings.help_screen import read_groups, read_options
from storage import InputError

LINES_OF_A_SCREEN = 48


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse_training(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


def first_screen(main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_a_flag_that_a_text_names_is_no_option() -> None:
    box = ["╭─ options ──╮", "│ --name STR  Names what --resume │", "│             --resume goes on with. │", "╰──╯"]
    assert read_options(box) == {"--name STR": "Names what --resume --resume goes on with."}


def test_first_screen_is_one_screen_and_names_the_groups(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    said = ask(capsys, "--help")
    assert len(said.splitlines()) <= LINES_OF_A_SCREEN
    words = " ".join(said.split())
    assert "--epochs INT" in words and "(default: auto)" in words
    assert "--min-workers" not in said
    assert "sampling | augmentation | model" in words


@pytest.mark.parametrize(
    "name", ["train", "tune", "threshold", "predict", "convert", "placement_groups", "spot_watcher"]
)
def test_every_commands_help_is_one_screen(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    said = first_screen(importlib.import_module(f"ray_jobs.{name}").main, capsys)
    assert len(said.splitlines()) <= LINES_OF_A_SCREEN
    assert "default" in said or name == "placement_groups"


def test_a_short_flags_text_stands_beside_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = first_screen(predict.main, capsys).splitlines()
    (line,) = [line for line in lines if line.startswith("--input STR")]
    assert "Folder, .zip or .tar with NIfTI" in line
    assert not [line for line in lines if "--label-map" in line]


def test_a_group_has_its_flags_with_the_presets_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    said = ask(capsys, "--preset", "brats3d", "--help", "sampling")
    assert "--sampling.patch-shape" in said and "128 128 128" in said
    assert "--model." not in said
    assert "--min-workers" in ask(capsys, "--help", "run")


def test_everything_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    said = ask(capsys, "--help", "all")
    assert "--min-workers" in said and "--sampling.patch-shape" in said and "--parallel.timeout" in said


def test_every_flag_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    groups = read_groups(ask(capsys, "--help", "all"))
    options = {name: text for box in groups.values() for name, text in read_options(box).items()}
    assert len(options) > 80
    assert [name for name in options if " the " in name] == []  # a text that names a flag is none
    assert [name for name, text in options.items() if not text.partition("(default:")[0].strip()] == []


def test_an_unknown_group_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"--help simpling: wanted run, frame, .*sampling.* or all"):
        parse_training(["--help", "simpling"])
