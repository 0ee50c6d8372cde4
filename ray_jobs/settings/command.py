"""A command line over a preset over the environment's defaults."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import tyro

from ray_jobs.settings.config import TrainConfig, apply_environment, environment_default, give_by_hand, idle_fields
from ray_jobs.settings.console import open_console
from ray_jobs.settings.flags import read_flags
from ray_jobs.settings.help_screen import help_topic, show_help
from ray_jobs.settings.presets import preset
from storage import InputError

Config = TypeVar("Config")

# Fields of the training configuration that the first screen of --help shows; groups are named there.
EVERY_DAY = ("preset", "source", "store", "name", "runs", "workers", "epochs", "precision")
SELDOM = frozenset(
    f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(TrainConfig) if field.name not in EVERY_DAY
)


def parse_training(arguments: Sequence[str]) -> TrainConfig:
    """Return the training configuration of `arguments`."""
    return parse_over_preset(arguments, lambda base: base, TrainConfig)


def parse_over_preset(
    arguments: Sequence[str],
    around: Callable[[TrainConfig], Config],
    kind: type[Config],
    *,
    seldom: Collection[str] = (),
) -> Config:
    """Return the `kind` of configuration that `arguments` describe.

    Defaults come from the preset that they name, then from the environment; `around` puts them into a `kind`.
    The first screen of --help leaves out `seldom` too.
    """
    chosen = _value_of("--preset", arguments) or environment_default("PRESET") or "demo"
    base = apply_environment(preset(chosen), ignore_store=_value_of("--source", arguments) is not None)
    base = give_by_hand(base, [name for name in base.by_memory if _is_given(name, arguments)])
    parsed = parse(arguments, kind, default=around(base), seldom=SELDOM.union(seldom))
    training: Any = getattr(parsed, "training", parsed)  # of a search
    for name in sorted(idle_fields(training)):
        if _is_given(name, arguments):
            group = name.split(".")[0]
            other = training.model.network if group == "model" else training.loss.function
            raise InputError(
                f"--{name.replace('_', '-')} says nothing of {other}, which has --{group}.arguments: leave it out"
            )
    return parsed


def parse(
    arguments: Sequence[str], kind: type[Config], *, default: Any = tyro.MISSING_NONPROP, seldom: Collection[str]
) -> Config:
    """Return the `kind` of configuration that `arguments` over `default` describe.

    --help leaves out `seldom` on its first screen.
    """
    topic = help_topic(arguments)
    if topic is not None:
        show = functools.partial(tyro.cli, kind, default=default, args=["--help"])
        show_help(show, topic, seldom=seldom, console=open_console())
        sys.exit(0)
    parsed: Config = read_flags(kind, arguments, default=default)
    return parsed


def _is_given(name: str, arguments: Sequence[str]) -> bool:
    """Whether a field, by its dotted name, has a flag among `arguments`; its value would not tell who gave it."""
    flag = f"--{name.replace('_', '-')}"
    flags = flag, flag.replace(".", ".no-")
    return any(argument.partition("=")[0].replace("_", "-") in flags for argument in arguments)


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """Return what follows `option`: the preset must be known before the command line over it can be parsed."""
    for position, argument in enumerate(arguments):
        if argument == option and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
    return None
