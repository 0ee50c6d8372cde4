"""What a run asks of Ray Train."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs import fit as fit_module
from ray_jobs.config import TrainConfig
from ray_jobs.parallel import ParallelConfig
from ray_jobs.run import TrainPlan
from ray_jobs.run_folder import RunFolder


def test_collectives_have_the_configured_timeout(
    small_config: TrainConfig,
    make_plan: Callable[[TrainConfig], TrainPlan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def trainer(*_: Any, **options: Any) -> SimpleNamespace:
        asked.update(options)
        return SimpleNamespace(fit=lambda: SimpleNamespace(return_value={}))

    monkeypatch.setattr(fit_module, "TorchTrainer", trainer)
    plan = make_plan(replace(small_config, parallel=ParallelConfig(timeout=77)))
    fit_module.fit(plan, RunFolder(str(tmp_path), "run"), workers=2, use_gpu=False, board=None)
    assert (asked["torch_config"].backend, asked["torch_config"].timeout_s) == ("gloo", 77)
