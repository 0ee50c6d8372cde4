"""What a run says of a cache that has not decoded its cases yet, and with what it decodes them."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dali_pipelines.decode_ahead import ColdCache
from ray_jobs.settings.config import TrainConfig
from ray_jobs.training.run import idle_threads
from ray_jobs.training.train_loop import tell_of_cold_cache

COLD = ColdCache(cases=1000, missing=400, seconds_a_case=0.15, fit=True)


def told(cold: ColdCache | None, *, rank: int = 0, epoch: int = 0, threads: int = 6) -> list[str]:
    """What is told of this cache at the start of a run of 10 epochs, on a node with two ranks."""
    lines: list[str] = []
    loader = SimpleNamespace(epoch=epoch, decode_threads=threads, cold_cache=lambda: cold)
    run: Any = SimpleNamespace(loader=loader, plan=SimpleNamespace(config=SimpleNamespace(epochs=10)))
    session: Any = SimpleNamespace(rank=rank, ranks_here=2)
    monitor: Any = SimpleNamespace(tell=lines.append)
    tell_of_cold_cache(run, session, monitor)
    return lines


def test_a_cold_cache_is_told_with_the_seconds_it_will_take() -> None:
    (line,) = told(COLD)
    assert line == (
        "400 of 1000 training cases are not decoded on this node yet; 12 threads will do it beside the training in "
        "about 5 s, until when a step may wait for its batch"
    )


def test_a_cache_that_is_too_small_is_said_to_decode_in_every_pass() -> None:
    (line,) = told(dataclasses.replace(COLD, fit=False))
    assert line.endswith("; --cache-gb does not hold all of them, and what it does not hold is decoded in every pass")


def test_nothing_is_told_of_a_warm_cache_by_other_ranks_or_when_all_is_trained() -> None:
    assert told(None) == told(COLD, rank=1) == told(COLD, epoch=10) == []


@pytest.mark.parametrize(
    ("device", "cores", "reading", "idle"), [("cuda", 16, 2, 12), ("cuda", 3, 2, 1), ("cpu", 16, 2, 1)]
)
def test_cases_are_decoded_by_threads_that_have_nothing_else_to_do(
    small_config: TrainConfig, device: str, cores: int, reading: int, idle: int
) -> None:
    session: Any = SimpleNamespace(device=torch.device(device), cpu_threads=cores)
    assert idle_threads(dataclasses.replace(small_config, read_threads=reading), session) == idle
