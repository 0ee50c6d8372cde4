"""A run that has cost what it may cost saves and stops, and says how it goes on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.on_ray.metadata_service import INSTANCE_TYPE, LIFE_CYCLE, ZONE
from ray_jobs.on_ray.planned_machines import OTHER_ADDRESS
from ray_jobs.searching.search_config import SearchConfig
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.prices import Machine
from ray_jobs.watching.ledger import Ledger, Limit
from storage import CohortStore, InputError

SPOT = Machine(kind="g4dn.xlarge", spot=True)


def spend(folder: RunFolder, machines: list[Machine | None], seconds: float) -> Ledger:
    ledger = Ledger(folder)
    ledger.take([], machines, 0.0)
    ledger.take([], machines, seconds)
    return ledger


def test_a_limit_is_of_all_runs_of_a_command_together(tmp_path: Path) -> None:
    one, two = (spend(RunFolder(str(tmp_path), name), [SPOT], 3600.0) for name in ("one", "two"))
    both = one.dollars + two.dollars  # type: ignore[operator]
    assert Limit(dollars=both + 0.01, dollars_an_hour=both + 0.01).reached([one, two]) is None
    assert Limit(dollars=None, dollars_an_hour=None).reached([one, two]) is None
    assert Limit(dollars=both, dollars_an_hour=None).reached([one]) is None
    told = Limit(dollars=0.5, dollars_an_hour=None).reached([one, two])
    assert told == "$0.55 of --max-cost 0.5 are spent"
    told = Limit(dollars=None, dollars_an_hour=0.5).reached([one, two])
    assert told == "the workers cost $0.55 an hour, --max-cost-an-hour is 0.5"
    two.end(3600.0)  # its machines are no longer paid for, what they cost stays
    assert Limit(dollars=None, dollars_an_hour=0.5).reached([one, two]) is None
    assert two.dollars == one.dollars


@pytest.mark.processes
@pytest.mark.slow
def test_at_the_limit_it_saves_and_stops(
    command: Any, phantom_store: CohortStore, small_arguments: Any, fake_metadata: Any, tmp_path: Path
) -> None:
    fake_metadata.answers |= {ZONE: (200, "us-west-2a"), INSTANCE_TYPE: (200, "g4dn.xlarge"), LIFE_CYCLE: (200, "spot")}
    flags = [*small_arguments, "--sampling.patches-per-epoch", "400000", "--store", phantom_store.uri, "--name", "dear"]
    done = command(
        *("train.py", "--workers", "1", "--max-cost", "0.0000001", *flags),
        environment={OTHER_ADDRESS: fake_metadata.url},
    )
    assert done.returncode == 143, done.stderr
    assert "of --max-cost 1e-07 are spent: saving, then stopping" in done.stdout
    assert "--max-cost 1e-07 are spent; give more; the same command goes on from there" in done.stdout
    spent = json.loads((tmp_path / "runs" / "dear" / "spent.json").read_text())
    assert spent["dollars"] > 0 and spent["restarts"] == []
    (checkpoint,) = (tmp_path / "runs" / "dear").glob("checkpoint_epoch_0000_step_*")
    assert (checkpoint / "record.json").exists()


@pytest.mark.parametrize("wrong", [{"max_cost": 0.0}, {"max_cost_an_hour": -1.0}])
def test_a_limit_is_above_nothing(wrong: dict[str, float], small_config: TrainConfig) -> None:
    with pytest.raises(InputError, match=r"--max-cost(-an-hour)? must be more than 0"):
        dataclasses.replace(small_config, **wrong)
    with pytest.raises(InputError, match=r"--dry-run and --max-cost are train\.py's"):
        SearchConfig(training=dataclasses.replace(small_config, max_cost=1.0))
