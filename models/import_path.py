"""What a user names as module:name, and the arguments it is called with, as text. Imports what is named, no more."""

import ast
import difflib
import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

WORDS = {"true": True, "false": False}


def find_named(path: str) -> Any:
    """Return what `path`, module:name, names. Raises ValueError where nothing can be called by it."""
    module, colon, name = path.partition(":")
    if not (colon and name and module):
        raise ValueError(f"wanted module:name, such as monai.networks.nets:SegResNet, got {path!r}")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # whatever it does while it is imported
        raise ValueError(
            f"{module} cannot be imported ({in_a_line(error)}): install it, or put its "
            "folder on PYTHONPATH, on every machine that trains or predicts"
        ) from error
    named = found
    for part in name.split("."):
        named = getattr(named, part, None)
    if not callable(named):
        near = difflib.get_close_matches(name, [each for each in dir(found) if callable(getattr(found, each, None))], 1)
        raise ValueError(f"{module} has no {name} that can be called" + (f"; did you mean {near[0]}?" if near else ""))
    return named


def arguments_for(
    called: Any, path: str, texts: Sequence[str], *, known: Mapping[str, Any], automatic: Mapping[str, Any], free: int
) -> dict[str, Any]:
    """Return the keyword arguments that `texts`, each NAME=VALUE, give to what `path` names.

    known: values of {placeholders}. automatic: arguments that it gets where it has them and no text gives them.
    free: parameters without a default that are not asked for: a function is called with those first.
    Raises ValueError, naming its own arguments, for what it does not take, and for what it takes and is not given.
    """
    parameters: Mapping[str, inspect.Parameter]
    try:
        parameters = inspect.signature(called).parameters
    except ValueError:  # of some that are written in C
        parameters = {}
    named = {
        name: each for name, each in parameters.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }
    takes_any = not parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    given = dict(parse_argument(text, known) for text in texts)
    for name, value in automatic.items():
        if name in named:
            given.setdefault(name, value)
    takes = f"it takes {', '.join([*named][free:]) or 'none'}"
    for name in given:
        if name not in named and not takes_any:
            near = difflib.get_close_matches(name, named, 1)
            raise ValueError(f"{path} has no argument {name}{f', did you mean {near[0]}?' if near else ''}; {takes}")
    wanted = [name for name, each in named.items() if each.default is each.empty][free:]
    if missing := [name for name in wanted if name not in given]:
        raise ValueError(f"{path} wants {', '.join(missing)}: give {missing[0]}=VALUE; {takes}")
    return given


def parse_argument(text: str, known: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the name and the value of NAME=VALUE. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"wanted NAME=VALUE, such as init_filters=16, got {text!r}")
    for placeholder, replacement in known.items():
        value = value.replace(f"{{{placeholder}}}", str(replacement))
    return name, parse_value(value)


def parse_value(text: str) -> Any:
    """Return what Python reads in `text`; of what it cannot read the words between commas, or the text itself."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError):
        if "," in text and not set("()[]{}") & set(text):
            return tuple(parse_value(part) for part in text.split(",") if part.strip())
    return WORDS.get(text.strip().lower(), text)


def find_distribution(path: str) -> str | None:
    """Return what is installed under `path`, such as "monai 1.6.1"; None where that is a module of one's own."""
    return _distribution_of(path.partition(":")[0].partition(".")[0])


@functools.cache  # it reads the records of all that is installed
def _distribution_of(package: str) -> str | None:
    names = sorted(set(metadata.packages_distributions().get(package, ())))
    return ", ".join(f"{name} {metadata.version(name)}" for name in names) or None


def in_a_line(error: BaseException) -> str:
    """Return what an error of other people's code says, as far as its first line goes."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
