"""When more epochs no longer help."""

from collections.abc import Mapping


class EarlyStopping:
    """Ends a run after `patience` validations in a row without a better score; None: never."""

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._best = -1.0
        self._without_gain = 0

    @property
    def is_over(self) -> bool:
        """Whether the run has done its last epoch."""
        return self._patience is not None and self._without_gain >= self._patience

    def after_validation(self, score: float) -> None:
        """Take note of what the run maximises."""
        if score > self._best:
            self._best, self._without_gain = score, 0
        else:
            self._without_gain += 1

    def state_dict(self) -> dict[str, float]:
        """Plain values for an exact resume."""
        return {"best": self._best, "without_gain": self._without_gain}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """The inverse of `state_dict`."""
        self._best, self._without_gain = state["best"], int(state["without_gain"])
