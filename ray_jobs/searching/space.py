"""What a search may vary: fields of the training configuration by their dotted names, each over a domain.

A domain is written `loguniform:LOW:HIGH`, `uniform:LOW:HIGH`, `integer:LOW:HIGH` (both ends included) or
`choice:A,B,C`; together `optimiser.weight_decay=loguniform:1e-6:1e-2`. What an imported network or loss is called with
is a field each: `model.arguments.init_filters=choice:8,16`.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ray_jobs.settings.config import TrainConfig, idle_fields
from storage import InputError

KINDS = ("loguniform", "uniform", "integer", "choice")
LEARNING_RATE = "optimiser.learning_rate"
# Where a run is kept and on what it runs is the search's to say, not a trial's.
NOT_SEARCHED = (
    *("preset", "source", "store", "runs", "name", "workers", "min_workers", "gpu", "max_failures", "splits"),
    *("by_memory", "objective"),
)

Value = str | float | int | bool | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain:
    """The values a field may take: some of them, or a range."""

    kind: Literal["loguniform", "uniform", "integer", "choice"]
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Value, ...] = ()

    @property
    def examples(self) -> tuple[Value, ...]:
        """What stands for all of it in a check: every choice, or both ends."""
        if self.kind == "choice":
            return self.choices
        return (int(self.low), int(self.high)) if self.kind == "integer" else (self.low, self.high)

    def for_tune(self, *, grid: bool) -> Any:
        """As Ray Tune wants it."""
        from ray import tune  # here: flags are parsed without it

        if self.kind == "choice":
            return tune.grid_search(list(self.choices)) if grid else tune.choice(list(self.choices))
        if self.kind == "integer":
            return tune.randint(int(self.low), int(self.high) + 1)
        return {"loguniform": tune.loguniform, "uniform": tune.uniform}[self.kind](self.low, self.high)


def parse_space(entries: tuple[str, ...], base: TrainConfig) -> dict[str, Domain]:
    """Return field to domain for entries such as `optimiser.weight_decay=loguniform:1e-6:1e-2`.

    Raises InputError for a field that is not there, naming the nearest, and for values that `base` cannot take.
    """
    space: dict[str, Domain] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not equals:
            example = "optimiser.weight_decay=loguniform:1e-6:1e-2"
            raise InputError(f"--space {entry}: wanted FIELD=KIND:VALUES, for example {example}")
        name = name.replace("-", "_")
        check_field(name, base)
        space[name] = parse_domain(name, text)
        for value in space[name].examples:
            set_fields(base, {name: value})
    return space


def parse_domain(name: str, text: str) -> Domain:
    """Return the domain that `text` describes. Raises InputError."""
    kind, _, rest = text.partition(":")
    if kind == "choice" and rest:
        return Domain(kind="choice", choices=tuple(parse_value(each) for each in rest.split(",")))
    if kind in KINDS and kind != "choice":
        try:
            low, high = (float(each) for each in rest.split(":"))
        except ValueError:
            low, high = math.nan, math.nan
        whole = kind != "integer" or (low == int(low) and high == int(high)) if low < high else False
        if whole and (kind != "loguniform" or low > 0):
            return Domain(kind=kind, low=low, high=high)  # type: ignore[arg-type]
    raise InputError(
        f"--space {name}={text}: wanted loguniform:LOW:HIGH (above 0), uniform:LOW:HIGH, integer:LOW:HIGH or choice:A,B"
    )


def parse_value(text: str) -> Value:
    """Return the number, truth value or None that `text` spells, else the text."""
    words: dict[str, Value] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def set_fields(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return `config` with the fields of these dotted names changed. Raises InputError for values it cannot take."""
    for name, value in values.items():
        try:
            config = _set(config, name.split("."), value, name)
        except ValueError as error:  # of a dataclass that knows no command line
            raise InputError(f"{name} = {value}: {error}") from error
    return config


def check_field(name: str, base: TrainConfig) -> None:
    """Raise InputError where there is no such field to search, with the nearest."""
    idle = idle_fields(base) | {"model.arguments", "loss.arguments"}
    names = [each for each in field_names(base) if each.split(".")[0] not in NOT_SEARCHED and each not in idle]
    if name in names or is_argument(name, base):
        return
    # A last part alone is what people type.
    near = [each for each in names if each.rsplit(".", 1)[-1] == name] or difflib.get_close_matches(name, names, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"--space: {name!r} is no field of a run that can be searched{meant}")


def is_argument(name: str, base: TrainConfig) -> bool:
    """Whether `name` is an argument of the network or loss that `base` imports; which it has, itself says."""
    group, _, argument = name.partition(".arguments.")
    imported = {"model": base.model.network, "loss": base.loss.function}.get(group)
    return imported is not None and argument.isidentifier()


def field_names(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all fields."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from field_names(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _set(config: Any, path: list[str], value: Any, name: str) -> Any:
    first, *rest = path
    if first == "arguments":
        others = [each for each in config.arguments if each.partition("=")[0] != rest[0]]
        return dataclasses.replace(config, arguments=(*others, f"{rest[0]}={value}"))
    if rest:
        return dataclasses.replace(config, **{first: _set(getattr(config, first), rest, value, name)})
    return dataclasses.replace(config, **{first: _fitting(value, get_type_hints(type(config))[first], name)})


def _fitting(value: Any, hint: Any, name: str) -> Any:
    """Return `value` as a field of type `hint` holds it."""
    for kind in get_args(hint) if get_origin(hint) is not Literal and get_args(hint) else (hint,):
        if get_origin(kind) is Literal:
            if value in get_args(kind):
                return value
        elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif kind is int and isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
            return int(value)
        elif kind in (bool, str, type(None)) and isinstance(value, kind):
            return value
    wanted = str(getattr(hint, "__name__", hint)).removeprefix("typing.")
    raise InputError(f"{name} = {value!r}: wanted {wanted}")
