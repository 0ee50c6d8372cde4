"""Two ranks over gloo, without Ray: they train as one does, and where one is lost the other says so and ends."""

import dataclasses
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from models import Execution, LossConfig, choose_precision
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.groups import ParallelConfig
from ray_jobs.training import run as run_module
from ray_jobs.training.parallel import RankWatch, distribute, is_of_a_collective
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.run import prepare, same_precision
from ray_jobs.training.train_loop import train_step
from storage import CohortStore, InputError, assign_splits

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).with_name("rank_worker.py")
TIMEOUT = 8
DAWDLE_SECONDS = 0.3  # rank_worker.py's

MakePlan = Callable[[TrainConfig], TrainPlan]
Result = dict[str, Any]


@pytest.fixture(scope="module")
def config(small_config: TrainConfig) -> TrainConfig:
    """Six steps in float32, at a learning rate that AdamW does not make noise of rounding with."""
    optimiser = dataclasses.replace(small_config.optimiser, name="sgd", learning_rate=0.05)
    return dataclasses.replace(small_config, precision="float32", optimiser=optimiser)


def with_switches(config: TrainConfig, **switches: Any) -> TrainConfig:
    return dataclasses.replace(config, parallel=ParallelConfig(**switches))


@contextmanager
def started(plans: dict[str, tuple[str, TrainPlan]], folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", ...]]:
    """The two ranks, which write to <rank>.log and end with the body."""
    (folder / "plans.pkl").write_bytes(pickle.dumps(plans))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    with ExitStack() as ends:
        ranks = []
        for rank in (0, 1):
            command = [sys.executable, str(WORKER), str(rank), str(folder)]
            log = ends.enter_context((folder / f"{rank}.log").open("w"))
            ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            ends.callback(ranks[-1].wait)
            ends.callback(ranks[-1].kill)
        yield tuple(ranks)


def switched(config: TrainConfig) -> dict[str, TrainConfig]:
    """The configuration, and others that train the same network on the same patches."""
    return {
        "plain": config,
        "small buckets": with_switches(config, bucket_mb=0.002),
        "checkpointed": dataclasses.replace(config, execution=Execution(activation_checkpointing=True)),
        "fp16": with_switches(config, gradient_compression="fp16"),
        "bf16": with_switches(config, gradient_compression="bf16"),
    }


def imported(config: TrainConfig) -> TrainConfig:
    """A network with a weight that no gradient reaches, which DDP would wait for, and a loss that adds nothing up."""
    network = dataclasses.replace(config.model, network="tests.own_networks:Idle")
    return dataclasses.replace(config, epochs=1, model=network, loss=LossConfig(function="tests.own_networks:squares"))


@pytest.fixture(scope="module")
def together(
    config: TrainConfig, phantom_store: CohortStore, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Result]]:
    """Each rank's results, by plan: all by the same two processes, which import for longer than they train."""
    folder = tmp_path_factory.mktemp("ranks")
    one_epoch = dataclasses.replace(config, epochs=1)
    jobs = {name: ("train", each) for name, each in switched(config).items()}
    jobs |= {
        "imported": ("train", imported(config)),
        "dawdling": ("dawdle", with_switches(config, timeout=60)),
        "halved": ("starve", one_epoch),
        "half": ("starve", dataclasses.replace(one_epoch, micro_batch_size=1)),
    }
    splits = assign_splits(phantom_store.infos())
    of_store = partial(TrainPlan, store=phantom_store.uri, splits=splits, cache=folder / "cache")
    plans = {name: (job, of_store(config=each)) for name, (job, each) in jobs.items()}
    with started(plans, folder) as ranks:
        assert [rank.wait(240) for rank in ranks] == [0, 0], (folder / "0.log").read_text()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def train_alone(plan: TrainPlan, folder: Path) -> Result:
    run = prepare(plan, LocalSession(folder, torch.device("cpu")))
    run.model.train()
    steps = []
    with run.loader as loader:
        for _ in range(plan.config.epochs):
            for batch in loader:
                result = train_step(run, batch)
                steps.append({"loss": result.loss, "norm": result.gradient_norm, "cases": batch.case_ids})
    return {"steps": steps, "weights": dict(run.model.named_parameters())}


@pytest.mark.processes
def test_two_ranks_train_as_one(
    together: list[dict[str, Result]], config: TrainConfig, make_plan: MakePlan, tmp_path: Path
) -> None:
    """Equal losses and weights at the same global batch, whatever the switches; compressed gradients come close."""
    alone = train_alone(make_plan(config), tmp_path / "alone")

    # Relative; float32 rounds to 6e-8, and the sums are added in another order.
    tolerances = {"plain": 1e-5, "small buckets": 1e-5, "checkpointed": 1e-5, "fp16": 1e-3, "bf16": 1e-2}
    for name, tolerance in tolerances.items():
        both = [result[name] for result in together]
        assert len(both[0]["steps"]) == 6
        for number, (one, first, second) in enumerate(
            zip(alone["steps"], *(each["steps"] for each in both), strict=True)
        ):
            assert sorted(first["cases"] + second["cases"]) == sorted(one["cases"])
            assert first["loss"] == second["loss"] == pytest.approx(one["loss"], rel=tolerance)
            # From the third step on weights differ in their last bits, and a feature that changes its sign with them
            # moves the gradient's norm: by 1.6e-4 with AVX2, whose convolutions of one and of two patches differ.
            near = 10 * tolerance if number < 2 else max(10 * tolerance, 5e-4)
            assert first["norm"] == second["norm"] == pytest.approx(one["norm"], rel=near)
        for weight, value in alone["weights"].items():
            assert torch.equal(both[0]["weights"][weight], both[1]["weights"][weight])
            assert torch.allclose(both[0]["weights"][weight], value, rtol=10 * tolerance, atol=tolerance), weight
    losses = [step["loss"] for step in alone["steps"]]
    assert abs(losses[-1] / losses[0] - 1) > 0.01  # they train: equal losses of a standstill would say nothing

    check_overlap(together[0]["small buckets"])
    sent = {name: sum(bytes_sent(together[0][name])) for name in switched(config)}
    weights = sum(4 * value.numel() for value in alone["weights"].values())
    assert sent["plain"] == sent["small buckets"] == sent["checkpointed"] == weights
    assert sent["fp16"] == sent["bf16"] == weights / 2


@pytest.mark.processes
def test_imported_networks_and_losses_train_as_one(
    together: list[dict[str, Result]], config: TrainConfig, make_plan: MakePlan, tmp_path: Path
) -> None:
    alone, both = train_alone(make_plan(imported(config)), tmp_path / "alone"), [each["imported"] for each in together]
    assert losses_of(both[0]) == losses_of(both[1]) == pytest.approx(losses_of(alone), rel=1e-5)
    for weight, value in alone["weights"].items():
        assert torch.equal(both[0]["weights"][weight], both[1]["weights"][weight])
        assert torch.allclose(both[0]["weights"][weight], value, rtol=1e-4, atol=1e-5), weight
    assert alone["weights"]["network.only.weight"].grad is not None
    assert alone["weights"]["network.idle"].grad is None


@pytest.mark.processes
def test_all_ranks_halve_the_micro_batch_where_one_runs_out_of_memory(
    together: list[dict[str, Result]], config: TrainConfig, make_plan: MakePlan, tmp_path: Path
) -> None:
    """They train as with the half from the start, bit for bit, and none waits for another."""
    for result in together:
        assert losses_of(result["halved"]) == losses_of(result["half"])
        for weight, value in result["half"]["weights"].items():
            assert torch.equal(result["halved"]["weights"][weight], value)
    # The Dice of a part is another, so this says that the whole share was not computed at once.
    config = dataclasses.replace(config, epochs=1)
    assert losses_of(train_alone(make_plan(config), tmp_path / "alone")) != losses_of(together[0]["half"])


def losses_of(result: Result) -> list[float]:
    return [step["loss"] for step in result["steps"]]


def bytes_sent(result: Result) -> list[int]:
    """Of each bucket of the last step; the first thing sent is the loss's sums."""
    return [int(event.removeprefix("sent ")) for event in result["steps"][-1]["order"] if event.startswith("sent ")][1:]


def check_overlap(result: Result) -> None:
    """Gradients are on their way while others are still to be computed."""
    order = result["steps"][-1]["order"]
    buckets = [place for place, event in enumerate(order) if event.startswith("sent ")][1:]
    gradients = [place for place, event in enumerate(order) if not event.startswith("sent ")]
    assert len(buckets) >= 3
    waiting = [sum(place > bucket for place in gradients) for bucket in buckets]
    assert waiting[0] > len(gradients) / 2
    assert order[gradients[-1]].startswith("encoder.0")


@pytest.mark.parametrize("job", ["sleep", "die"])
@pytest.mark.processes
def test_a_lost_rank_is_named_within_the_timeout(
    job: str, config: TrainConfig, make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan(with_switches(config, timeout=TIMEOUT))
    folder = tmp_path / "ranks"
    folder.mkdir()
    with started({"run": (job, plan)}, folder) as (watched, lost):
        assert watched.wait(120) == 1
        assert lost.wait(120) != 0
    output = (folder / "0.log").read_text()
    error = output.strip().splitlines()[-1]
    assert "LostRankError: rank 0, epoch 2, step 1: no answer from the other ranks after " in error, output
    assert "Last seen elsewhere: rank 1 in epoch 1, step 3." in error
    assert f"--parallel.timeout {TIMEOUT}" in error
    waited = float(error.split("ranks after ")[1].split(" s ")[0])
    # The slow rank is waited for that long and no longer; a dead one's connection breaks at once.
    assert TIMEOUT - 0.5 < waited < 3 * TIMEOUT if job == "sleep" else waited < TIMEOUT
    assert f"told: {error.split('LostRankError: ')[1]}" in output
    # Spoken before the timeout, for NCCL's sake, whose errors do not reach Python.
    assert bool(re.search(r"rank 0, epoch 2, step 1: \d s and not done", output)) == (job == "sleep")


@pytest.mark.processes
def test_a_slow_rank_slows_the_run_and_no_more(together: list[dict[str, Result]]) -> None:
    steps = [result["dawdling"]["steps"] for result in together]
    assert [step["loss"] for step in steps[0]] == [step["loss"] for step in steps[1]]
    # Both end a step together, so the quick rank's steps hold the slow one's rest.
    assert (
        median(first["seconds"] - second["seconds"] for first, second in zip(*steps, strict=True)) > DAWDLE_SECONDS / 2
    )


def test_only_errors_of_collectives_are_renamed() -> None:
    watch = RankWatch(ParallelConfig(), rank=0, world_size=1, tell=print)
    with pytest.raises(RuntimeError, match="of our own") as raised, watch:
        raise RuntimeError("of our own")
    assert not is_of_a_collective(raised.value)
    assert is_of_a_collective(torch.distributed.DistNetworkError("closed"))
    assert is_of_a_collective(RuntimeError("Application timeout caused pair closure"))  # as seen, word for word


@pytest.mark.parametrize(
    ("others", "all_of_them"),
    [("float32", "float32"), ("float16", "float16"), ("bfloat16", "float32")],
)
def test_ranks_on_other_kinds_of_gpus_compute_alike(
    others: str, all_of_them: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients that one rank scales and another does not must never be averaged."""
    session = LocalSession(tmp_path, torch.device("cpu"))
    monkeypatch.setattr(run_module, "from_every_rank", lambda own, session: [own, others])
    assert same_precision(choose_precision(session.device, "float32"), session).name == all_of_them


def test_one_rank_needs_no_wrapper() -> None:
    model = torch.nn.Linear(2, 2)
    assert distribute(model, ParallelConfig(), world_size=1) is model


def test_what_the_user_can_mend_is_said() -> None:
    with pytest.raises(InputError, match=r"--parallel.bucket-mb must be above 0"):
        ParallelConfig(bucket_mb=0)
    with pytest.raises(InputError, match=r"--parallel.timeout must be at least 1"):
        ParallelConfig(timeout=0)
