"""A converted phantom cohort and a configuration small enough for tests."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ray_jobs.config import TrainConfig
from ray_jobs.presets import preset
from ray_jobs.train_loop import TrainPlan
from storage import CohortStore, assign_splits

ROOT = Path(__file__).parents[2]

Command = Callable[..., "subprocess.CompletedProcess[str]"]

# The demo, small: three steps an epoch of 16³ patches.
SMALL = (
    *("--epochs", "2", "--sampling.patch-shape", "16", "16", "16", "--sampling.patches-per-epoch", "12"),
    *("--model.widths", "4", "8", "--model.deep-supervision", "0", "--optimiser.warmup-steps", "1"),
    *("--validation.overlap", "0", "--validation.window-batch", "16"),
)


@pytest.fixture(scope="session")
def phantom_store(phantom_source: Path, tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    """The phantom cohort as a store."""
    from ray_jobs.conversion import convert_cohort
    from storage import open_store

    uri = str(tmp_path_factory.mktemp("store") / "phantom.zarr")
    convert_cohort(phantom_source, uri)
    return open_store(uri)


@pytest.fixture
def small_config() -> TrainConfig:
    """The demo preset with a network and patches that train in seconds."""
    demo = preset("demo")
    return dataclasses.replace(
        demo,
        epochs=2,
        sampling=dataclasses.replace(demo.sampling, patch_shape=(16, 16, 16), patches_per_epoch=12),
        model=dataclasses.replace(demo.model, widths=(4, 8), deep_supervision=0),
        optimiser=dataclasses.replace(demo.optimiser, warmup_steps=1),
        validation=dataclasses.replace(demo.validation, overlap=0.0, window_batch=16),
    )


@pytest.fixture
def make_plan(phantom_store: CohortStore, tmp_path: Path) -> Callable[[TrainConfig], TrainPlan]:
    """A plan over the phantom store with a cache of the test's own."""

    def make(config: TrainConfig) -> TrainPlan:
        splits = assign_splits(phantom_store.infos())
        return TrainPlan(config=config, store=phantom_store.uri, splits=splits, cache=tmp_path / "cache")

    return make


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `python ray_jobs/<script> …` as a user would, in an empty folder with a home of its own."""

    def run(script: str, *arguments: str, environment: dict[str, str] | None = None, timeout: float = 300) -> object:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        variables = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "160", **(environment or {})}
        return subprocess.run(
            [sys.executable, str(ROOT / "ray_jobs" / script), *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def small_arguments() -> Sequence[str]:
    """`small_config` as command-line arguments."""
    return SMALL
