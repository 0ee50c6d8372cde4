"""A network comes back from its checkpoint as it was saved, and what is not one is said."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ray_jobs.evaluation.trained import open_trained
from ray_jobs.settings.config import decode_config, run_identity
from ray_jobs.settings.presets import PRESETS, preset
from storage import InputError

CPU = torch.device("cpu")


def test_a_run_and_its_checkpoint_are_the_same_network(trained: Any) -> None:
    config, result = trained.plan.config, trained.result
    of_run, of_checkpoint = (open_trained(uri, CPU) for uri in (str(trained.folder), result["checkpoint"]))
    assert of_run.uri == of_checkpoint.uri == result["checkpoint"]
    assert of_run.config.model == config.model and of_run.config.sampling == config.sampling
    assert of_run.decision is not None
    assert of_run.decision.thresholds == tuple(result["validation"]["threshold"].values())
    image = torch.randn(4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not of_run.model.training
    torch.testing.assert_close(
        of_run.evaluator().probabilities(image), of_checkpoint.evaluator().probabilities(image), rtol=0, atol=0
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_presets_configuration_survives_its_json(name: str) -> None:
    config = dataclasses.replace(preset(name), by_memory=())  # settled, as in a checkpoint
    stored = json.loads(json.dumps(run_identity(config, "digest")))
    assert run_identity(decode_config(stored), "digest") == stored
    assert decode_config({**stored, "made_with": {"cache_gb": 50.0}}) == decode_config(stored)
    assert decode_config(stored).model == config.model


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted a checkpoint or a run with a validated one"):
        open_trained(str(tmp_path), CPU)
    with pytest.raises(InputError, match="nowhere, found no folder"):
        open_trained(str(tmp_path / "nowhere"), CPU)
    stored = run_identity(preset("demo"), "digest")
    stored["sampling"]["colour"] = "red"
    with pytest.raises(InputError, match=r"found sampling\.colour"):
        decode_config(stored)
