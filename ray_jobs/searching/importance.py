"""How much of what a search's score varied each field accounts for."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from models import Objective

LEAST_TRIALS = 8  # below that it is chance


def importance_of(scored: Sequence[Mapping[str, Any]], objective: Objective) -> dict[str, float] | None:
    """Return each searched field's share, the greatest first; None of too few trials, or where nothing varied."""
    fields = list(dict.fromkeys(field for row in scored for field in row["values"]))
    varied = [field for field in fields if len({str(row["values"].get(field)) for row in scored}) > 1]
    if len(scored) < LEAST_TRIALS or not varied or len({row[objective]["mean"] for row in scored}) < 2:
        return None
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {field: _space_of([row["values"][field] for row in scored]) for field in varied}
    study = optuna.create_study(direction="maximize")
    for row in scored:
        values = {field: _plain(row["values"][field], spaces[field]) for field in varied}
        study.add_trial(optuna.create_trial(params=values, distributions=spaces, value=row[objective]["mean"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the evaluator is an experiment of Optuna's
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {field: float(share) for field, share in found.items()}


def _space_of(values: Sequence[Any]) -> Any:
    """The space that values lie in; what is no number is one of several words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kinds = {type(value) for value in values}
    if kinds == {int}:
        return IntDistribution(min(values), max(values))
    if kinds <= {int, float}:
        low, high = float(min(values)), float(max(values))
        return FloatDistribution(low, high, log=low > 0 and high > 5 * low)
    return CategoricalDistribution(sorted({str(value) for value in values}))


def _plain(value: Any, space: Any) -> Any:
    return str(value) if hasattr(space, "choices") else value
