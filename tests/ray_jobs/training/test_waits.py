"""The training loop makes the host wait for a GPU once a step, for its gradients; a case of a validation never does.

The loop, the clock, the monitor and the saver are the product's own; batches are there already.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import ray.train
import torch

from dali_pipelines import Batch, Volume
from models import ThresholdCounts
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.checkpoints.saver import Saver
from ray_jobs.evaluation.baseline import SingleModalityBaseline
from ray_jobs.on_ray.process_group import ProcessGroup
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.groups import CheckpointConfig
from ray_jobs.training import fit, optimiser
from ray_jobs.training.parallel import RankWatch
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.run import Run, prepare
from ray_jobs.training.train_loop import train_epoch
from ray_jobs.watching import monitoring
from ray_jobs.watching.monitoring import Monitor
from tests.device_waits import DeviceWaits, on_host

CPU = torch.device("cpu")
STEPS = 2


class ReadyBatches:
    """As much of a loader as the loop sees; its batches lie on the device."""

    def __init__(self, run: Run) -> None:
        self.sampling, self.bad_cases = run.loader.sampling, dict[str, int]()
        self.epoch, self.step, self.steps_per_epoch = 0, 0, STEPS
        image = torch.randn(2, 4, *self.sampling.patch_shape, dtype=torch.float16 if run.precision.use_scaler else None)
        self._batch = Batch(image=image, regions=(torch.rand_like(image[:, :3]) < 0.1).to(torch.uint8), plans=())

    def __iter__(self) -> Iterator[Batch]:
        for self.step in range(1, STEPS + 1):
            yield self._batch


def train_one_epoch(run: Run, folder: Path, *, world_size: int = 1) -> DeviceWaits:
    session, loader = LocalSession(folder, CPU, world_size=world_size), ReadyBatches(run)
    run = dataclasses.replace(run, loader=loader)  # type: ignore[arg-type]
    watch = RankWatch(run.plan.config.parallel, rank=0, world_size=1, tell=lambda _: None)
    with (
        Monitor(session, run.loader, run.clock, epochs=1) as monitor,
        Saver(session, CheckpointConfig(every_minutes=None), monitor.tell) as saver,
    ):
        with DeviceWaits() as waits:
            assert train_epoch(run, session, monitor, saver, watch) is None
        return waits


@pytest.fixture
def prepared(
    small_config: TrainConfig, make_plan: Callable[[TrainConfig], TrainPlan], tmp_path: Path
) -> Iterator[Callable[..., Run]]:
    """A run of `small_config` with changes, whose loader is not asked for anything."""
    threads = torch.get_num_threads()

    def make(**changes: Any) -> Run:
        changes["model"] = dataclasses.replace(small_config.model, widths=(4, 8, 8), deep_supervision=1)
        return prepare(make_plan(dataclasses.replace(small_config, **changes)), LocalSession(tmp_path / "run", CPU))

    yield make
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("precision", "name"), [("float32", "sgd"), ("float16", "adamw")])
def test_a_step_waits_once(
    precision: Literal["float32", "float16"],
    name: Literal["sgd", "adamw"],
    small_config: TrainConfig,
    prepared: Callable[..., Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever belongs to one: parts of a batch, clipping, the loss scale, the weights' average, the news."""
    monkeypatch.setattr(monitoring, "SECONDS_BETWEEN_NEWS", 0.0)
    monkeypatch.setattr(optimiser, "fuses_optimiser", lambda _: True)  # as on a GPU
    chosen = dataclasses.replace(small_config.optimiser, name=name, ema_decay=0.9)
    run = prepared(precision=precision, micro_batch_size=1, optimiser=chosen)
    waits = train_one_epoch(run, tmp_path / "run")
    assert run.take_step.steps_taken + run.take_step.steps_skipped == STEPS
    assert len(waits.found) == STEPS, waits.found
    assert {wait.split(":")[0] for wait in waits.found} == {"tolist at models/precision.py"}


def test_ranks_agree_past_the_device(
    prepared: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agreement is nothing that a GPU is asked for, or waited for; and the loss's sums are not waited for either."""
    agreed: list[bool] = []
    summed: list[bool] = []

    class Done:
        def wait(self) -> None:
            pass

    def all_reduce(values: torch.Tensor, *_: object, async_op: bool = False) -> Done:
        (agreed if async_op else summed).append(on_host(values))
        return Done()

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    waits = train_one_epoch(prepared(), tmp_path / "run", world_size=2)
    assert agreed == [True] * STEPS
    assert summed == [False] * STEPS
    assert len(waits.found) == STEPS, waits.found


@pytest.mark.parametrize(("use_gpu", "backends"), [(True, "cpu:gloo,cuda:nccl"), (False, "gloo")])
def test_what_hosts_tell_each_other_goes_past_the_gpus(
    use_gpu: bool,  # noqa: FBT001
    backends: str,
    small_config: TrainConfig,
    make_plan: Callable[[TrainConfig], TrainPlan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With NCCL alone plain objects and flags would be copied to a GPU and read back from it."""
    asked: list[ProcessGroup] = []

    class Trainer:
        def __init__(self, *, backend_config: ProcessGroup, **__: object) -> None:
            asked.append(backend_config)

        def fit(self) -> ray.train.Result:
            return ray.train.Result(metrics=None, checkpoint=None, error=None, path="", return_value={})

    monkeypatch.setattr(fit, "Trainer", Trainer)
    folder = RunFolder(str(tmp_path), "run")
    fit.fit(make_plan(small_config), folder, workers=1, use_gpu=use_gpu, board=None)
    assert [config.backend for config in asked] == [backends]


def test_a_case_of_a_validation_waits_for_nothing(prepared: Callable[..., Run]) -> None:
    run, image_MDHW = prepared(), torch.randn(4, 16, 24, 16)
    regions_RDHW = (torch.rand(3, 16, 24, 16) < 0.1).to(torch.uint8)
    volume = Volume(case_id="one", image_MDHW=image_MDHW, regions_RDHW=regions_RDHW)
    run.model.eval()
    with torch.inference_mode(), DeviceWaits() as waits:
        counts, baseline = ThresholdCounts(3, device=CPU), SingleModalityBaseline(CPU, modalities=4, regions=3)
        counts.update(volume.case_id, run.evaluator.probabilities(image_MDHW), regions_RDHW)
        baseline.update(volume)
    assert waits.found == []
