"""The end-to-end benchmark gives its figures, and the loader keeps up with a step that is slower than it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.end_to_end import make_plan, run, training_config
from benchmarks.feed import open_loader, replay, share
from benchmarks.settings import EndToEndBenchmark
from benchmarks.stores import open_cohort
from dali_pipelines import PatchLoader
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.settings.config import TrainConfig
from storage import InputError


@pytest.fixture
def threads() -> Iterator[None]:
    """Training sets torch's threads; the other tests of the process keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rows_of(tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    file = tmp_path / "figures.json"
    run(EndToEndBenchmark(patch=(16, 16, 16), device="cpu", json=file, **options))
    rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
    return rows


@pytest.mark.usefixtures("threads")
@pytest.mark.processes
def test_four_figures_from_one_run(store_uri: str, tmp_path: Path) -> None:
    step, loader, both = rows_of(tmp_path, store=store_uri, steps=4)
    assert [row["stage"] for row in (step, loader, both)] == ["step on synthetic data", "loader alone", "both together"]
    for row in (step, loader, both):
        assert row["patches/s"] == pytest.approx(4000 / row["ms a step"])
        assert row["CPU ms a step"] > 0
    assert 0 <= float(both["wait share"].removesuffix("%")) <= 100


@pytest.mark.usefixtures("threads")
@pytest.mark.processes
def test_the_feed_of_a_sleeping_step_has_a_row_for_each_case(store_uri: str, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, store=store_uri, steps=4, sleeping_step=(1.0, 1.5), ready_batches=(1, 3))
    assert [(row["ready batches"], row["step / loader"]) for row in rows] == [(1, 1.0), (1, 1.5), (3, 1.0), (3, 1.5)]
    assert all(float(row["waits, replayed"].removesuffix("%")) >= 0 for row in rows)


@pytest.mark.usefixtures("threads")
@pytest.mark.processes
def test_a_step_as_long_as_the_loader_waits_under_two_percent_of_its_time(store_uri: str, tmp_path: Path) -> None:
    """By what the real loader's batches cost the CPU, through training's queue: other work there adds nothing."""
    rows = rows_of(tmp_path, store=store_uri, steps=24, sleeping_step=(1.0, 1.5))
    assert [row["ready batches"] for row in rows] == [TrainConfig.ready_batches] * 2
    assert all(float(row["waits, replayed"].removesuffix("%")) < 2 for row in rows)


@pytest.mark.usefixtures("threads")
def test_a_step_slower_than_the_loader_never_waits(store_uri: str, tmp_path: Path) -> None:
    """By what is ready, not by the clock: while nobody asks, the real loader fills every place."""
    train = training_config(EndToEndBenchmark(patch=(16, 16, 16)))
    cache = open_cohort(store_uri, tmp_path)
    plan = make_plan(cache, cache.store.case_ids, train)
    loader: PatchLoader = open_loader(plan, LocalSession(tmp_path / "run", torch.device("cpu")), 4)
    with loader:
        batches = iter(loader)
        for _ in range(25):
            next(batches)
            assert loader._feed is not None
            until = time.monotonic() + 120
            while (ready := loader._feed._items.qsize()) < 4:  # the step
                assert time.monotonic() < until, f"{ready} batches were ready, and no more came"
                time.sleep(0.001)
            assert ready == 4


@pytest.mark.parametrize(("multiple", "waiting"), [(0.5, 0.5), (1.0, 0.0), (1.5, 0.0)])
def test_even_batches_are_waited_for_only_where_the_step_is_quicker(multiple: float, waiting: float) -> None:
    assert share(replay([1.0] * 200, multiple, 2), multiple) == pytest.approx(waiting, abs=0.01)


def test_ready_batches_cover_a_dear_one() -> None:
    """Every tenth batch costs 5.5 steps and the others half a step: the mean is one step, the queue must hold five."""
    costs = [5.5 if number % 10 == 9 else 0.5 for number in range(400)]
    late = {depth: sum(wait > 1e-9 for wait in replay(costs, 1.0, depth)) for depth in (1, 2, 6)}
    assert late == {1: 40, 2: 40, 6: 0}
    assert share(replay(costs, 1.0, 2), 1.0) > 0.2


def test_what_the_user_can_mend_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match=r"--preset must be one of demo, "):
        run(EndToEndBenchmark(preset="demos"))
    with pytest.raises(InputError, match=r"--device must be cpu or a GPU"):
        run(EndToEndBenchmark(device="cuda:99"))
    with pytest.raises(InputError, match=r"--sampling.patch-shape"):
        run(EndToEndBenchmark(device="cpu", patch=(16, 16, 17)))
