"""What every command does alike: parse a typed configuration, end user errors in one line, leave quietly on Ctrl-C."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from ray_jobs.config import TrainConfig, apply_environment, environment_default
from ray_jobs.presets import preset
from storage import InputError

USER_ERROR = 2
INTERRUPTED = 130


Config = TypeVar("Config")


def parse_training(arguments: Sequence[str]) -> TrainConfig:
    """Return the training configuration of `arguments`."""
    return parse_over_preset(arguments, lambda base: base, TrainConfig)


def parse_over_preset(arguments: Sequence[str], around: Callable[[TrainConfig], Config], kind: type[Config]) -> Config:
    """Return the `kind` of configuration that `arguments` describe.

    Defaults come from the preset that they name, then from the environment; `around` puts them into a `kind`.
    """
    chosen = _value_of("--preset", arguments) or environment_default("PRESET") or "demo"
    base = apply_environment(preset(chosen), ignore_store=_value_of("--source", arguments) is not None)
    return tyro.cli(kind, default=around(base), args=list(arguments))


def run_command(main: Callable[[Sequence[str]], int]) -> int:
    """Return the exit status of `main`: 2 after an InputError, which is printed as one line, 130 after Ctrl-C."""
    try:
        return main(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """Return what follows `option`: the preset must be known before the command line over it can be parsed."""
    for position, argument in enumerate(arguments):
        if argument == option and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
    return None
