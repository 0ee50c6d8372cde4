"""A micro-batch that does not fit is halved once, by all ranks, and the run is that of the half from its start."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import safetensors.torch
import torch

from models import OptimiserStep, UNet
from models.memory_table import StepPeak
from ray_jobs.on_ray.session import LocalSession, Progress
from ray_jobs.settings.config import BY_MEMORY, TrainConfig
from ray_jobs.training import memory_plan, train_loop
from ray_jobs.training.memory_plan import BATCHES_UNDER_WAY, DALI_COPIES, GIB, MEMORY, Card
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.rehearsal import fits_here, hold_what_comes_later, rehearse
from ray_jobs.training.run import prepare
from ray_jobs.training.train_loop import train, train_step

pytestmark = pytest.mark.usefixtures("bare_pictures")

MakePlan = Callable[[TrainConfig], TrainPlan]
CPU = torch.device("cpu")


@contextmanager
def memory_for(patches: int) -> Iterator[list[int]]:
    """A device that computes no more patches than these at once; yields how many it was asked for, in order."""
    asked: list[int] = []
    forward = UNet.forward

    def limited(network: UNet, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        asked.append(len(image))
        if network.training and len(image) > patches:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(network, image)

    with patch.object(UNet, "forward", limited):
        yield asked


class TellingSession(LocalSession):
    """Keeps what it tells."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, CPU)
        self.told: list[str] = []

    def tell(self, progress: Progress) -> None:
        self.told += [progress.message] if progress.message else []


@pytest.fixture
def config(small_config: TrainConfig) -> TrainConfig:
    """One epoch of three steps of four patches."""
    return dataclasses.replace(small_config, epochs=1, precision="float32")


@pytest.mark.slow
def test_memory_that_runs_out_halves_the_micro_batch_and_nothing_else(
    config: TrainConfig, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session = TellingSession(tmp_path / "halved")
    memory = dataclasses.replace(config, by_memory=BY_MEMORY)
    monkeypatch.setattr(memory_plan, "find_card", lambda _: Card(name="a card", memory=16 * GIB))
    monkeypatch.setattr(memory_plan, "find_peak", lambda *_, **__: StepPeak(weights=0, fixed=0, per_voxel=0))
    monkeypatch.setattr(memory_plan, "list_patches", lambda *_: [(16, 16, 32)])
    with memory_for(2) as asked:
        result = train(make_plan(memory), session)
    assert asked[:4] == [4, 2, 2, 2]
    assert "out of memory with 4 patches at once: going on with 2, and the same global batch" in session.told
    # What was settled is what the run is, by its checkpoint; later starts on such a device begin with the half.
    said = json.loads((Path(result["checkpoint"]) / "config.json").read_text())
    assert said["sampling"]["patch_shape"] == [16, 16, 32] and "micro_batch_size" not in said
    assert said["made_with"]["micro_batch_size"] == result["config"]["micro_batch_size"] == 2
    assert json.loads((tmp_path / "halved" / MEMORY).read_text())["micro_batch_size"] == 2

    sampling = dataclasses.replace(config.sampling, patch_shape=(16, 16, 32))
    small = dataclasses.replace(config, sampling=sampling, micro_batch_size=2)
    run = prepare(make_plan(small), LocalSession(tmp_path / "small", CPU))
    run.model.train()
    with run.loader as loader:
        for batch in loader:
            train_step(run, batch)
    halved = safetensors.torch.load_file(Path(result["checkpoint"]) / "model.safetensors")
    assert all(torch.equal(halved[name], weight) for name, weight in run.model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("micro_batch", "says"), [(None, "with 4 patches at once, and with 2: "), (1, "with a single patch in a step: ")]
)
def test_it_is_halved_once_and_then_said_what_to_do(
    micro_batch: int | None, says: str, config: TrainConfig, make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan(dataclasses.replace(config, micro_batch_size=micro_batch))
    with memory_for(0):
        failed = train(plan, LocalSession(tmp_path / "run", CPU))["failed"]
    assert says in failed and "--execution.activation-checkpointing" in failed and "--sampling.patch-shape" in failed


def test_a_rehearsal_leaves_no_trace(config: TrainConfig, make_plan: MakePlan, tmp_path: Path) -> None:
    """It holds what a later step will: gradients, what AdamW keeps, the batches under way, what DALI works in."""
    run = prepare(make_plan(config), session := LocalSession(tmp_path / "run", CPU))
    with run.loader as loader:
        weights = sum(weight.nbytes for weight in run.model.parameters())
        batches = (config.ready_batches + BATCHES_UNDER_WAY - 1) * 4 * 16**3 * (4 * 4 + 3)
        batches += DALI_COPIES * 4 * 16**3 * 4 * 4
        state, before = torch.get_rng_state(), [weight.clone() for weight in run.model.parameters()]
        assert sum(each.nbytes for each in hold_what_comes_later(run, CPU)) == 3 * weights + batches
        assert rehearse(run, session) is run
        assert all(weight.grad is None for weight in run.model.parameters()) and not run.optimiser.state
        assert all(map(torch.equal, run.model.parameters(), before)) and torch.equal(state, torch.get_rng_state())
        train_step(run, next(iter(loader)))
        assert sum(each.nbytes for each in hold_what_comes_later(run, CPU)) == weights + batches
        failing = patch.object(UNet, "forward", side_effect=RuntimeError("another error"))
        with failing, pytest.raises(RuntimeError, match="another error"):
            fits_here(run, CPU, 1)


@pytest.mark.slow
def test_a_step_without_memory_has_the_next_start_begin_with_half(
    config: TrainConfig, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that fails in a step cannot tell the others, who wait for it: all start again."""
    plan = make_plan(dataclasses.replace(config, by_memory=BY_MEMORY))
    monkeypatch.setattr(memory_plan, "find_card", lambda _: Card(name="a card", memory=16 * GIB))
    monkeypatch.setattr(memory_plan, "find_peak", lambda *_, **__: StepPeak(weights=0, fixed=0, per_voxel=0))
    session = TellingSession(tmp_path / "run")
    with memory_for(4) as asked, monkeypatch.context() as change:
        change.setattr(train_loop, "rehearse", lambda run, _: run)  # it fitted there
        change.setattr(OptimiserStep, "backward", fail_for_want_of_memory)
        with pytest.raises(RuntimeError, match="CUDNN_STATUS_ALLOC_FAILED"):
            train(plan, session)
    assert asked == [4] and "out of memory: the next start computes 2 patches at once" in session.told
    with memory_for(2):
        result = train(plan, session)
    assert result["config"]["micro_batch_size"] == 2


def fail_for_want_of_memory(*_: object) -> None:
    raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
