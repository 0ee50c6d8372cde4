"""How many trials train side by side, and from when on their scores steer the search."""

from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs.searching import search as search_module
from ray_jobs.searching.search import build_searcher, describe_search, most_at_once
from ray_jobs.searching.search_config import SearchConfig
from ray_jobs.settings.config import apply_environment
from ray_jobs.settings.presets import preset
from ray_jobs.tune import search_over


@pytest.mark.parametrize(
    ("room", "workers", "trials"),
    [(4, 1, 4), (4, 4, 1), (4, 3, 1), (2, 4, 1), (32, 1, 8), (None, 4, 8)],
)
def test_on_a_cluster_as_many_as_its_limit_and_the_heads_drivers_hold(
    monkeypatch: pytest.MonkeyPatch, room: int | None, workers: int, trials: int
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "a head")
    monkeypatch.setattr(search_module.ray, "cluster_resources", lambda: {"tune_driver": 8.0})
    monkeypatch.setattr(search_module, "most_workers_at_a_place", lambda _file, use_gpu: room)
    decided: Any = SimpleNamespace(workers=workers, use_gpu=True)
    assert most_at_once(decided) == trials


def test_a_clusters_default_is_trials_of_one_gpu_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_WORKERS", "4")
    search = search_over(apply_environment(preset("g4dn")))
    assert search.training.workers == 1
    decided: Any = SimpleNamespace(workers=1, use_gpu=True)
    assert describe_search(search, decided, 4) == "8 trials, 4 at once, of 1 worker with a GPU each"
    monkeypatch.delenv("BRATS_WORKERS")
    assert search_over(apply_environment(preset("g4dn"))).training.workers is None


@pytest.mark.parametrize(("trials", "at_once", "blind"), [(8, 4, 4), (3, 1, 4), (16, 4, 8), (40, 4, 10), (8, 8, 8)])
def test_half_of_the_trials_are_drawn_by_what_came_of_the_others(trials: int, at_once: int, blind: int) -> None:
    searcher = build_searcher(SearchConfig(trials=trials, training=preset("demo")), at_once)
    assert searcher._sampler._n_startup_trials == blind  # type: ignore[union-attr]
