"""What a run would be is said without doing anything, and what nobody has measured is not guessed."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.on_ray import planned_machines
from ray_jobs.on_ray.address import cluster_file
from ray_jobs.on_ray.planned_machines import OTHER_ADDRESS, check_limit, read_worker_machines
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.presets import preset
from ray_jobs.settings.prices import KINDS, Machine
from ray_jobs.training.dry_run import describe_run
from storage import CohortStore, InputError
from storage.store.objects import Objects

ROOT = Path(__file__).parents[3]
SPOT = Machine(kind="g4dn.xlarge", spot=True)


def lines_of(config: TrainConfig) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in describe_run(config))


def write_cluster_file(folder: Path) -> None:
    """With the types of cluster/aws.yaml that it allows, spot in two zones and on demand."""
    spot = {"InstanceType": "g4dn.xlarge", "InstanceMarketOptions": {"MarketType": "spot"}}
    kinds: dict[str, Any] = {"head": {"node_config": {"InstanceType": "m5.xlarge"}}}
    for name, most, node in (("a", 4, spot), ("b", 4, spot), ("off", 0, {"InstanceType": "g4dn.12xlarge"})):
        kinds[name] = {"max_workers": most, "node_config": node}
    kinds["demand"] = {"max_workers": 4, "node_config": {"InstanceType": "g4dn.2xlarge"}}
    (folder / cluster_file().name).write_text(json.dumps({"head_node_type": "head", "available_node_types": kinds}))


@pytest.fixture
def dry(phantom_store: CohortStore, small_config: TrainConfig, tmp_path: Path) -> TrainConfig:
    runs = str(tmp_path / "runs")
    return dataclasses.replace(small_config, store=phantom_store.uri, runs=runs, workers=2, precision="float32")


def test_without_records_hours_are_not_known_and_nothing_is_written(dry: TrainConfig, tmp_path: Path) -> None:
    assert dry.store is not None
    before = sorted(Objects(dry.store).files())
    said = lines_of(dry)
    assert said["split"] == "4 training, 1 validation, 1 test cases"
    assert said["plan"].startswith("no GPU, so memory settles nothing: patches of 16 x 16 x 16, 2 at once")
    assert said["steps"] == "6 of 4 patches"
    assert said["hours"].startswith("not known; no finished run in ")
    assert sorted(Objects(dry.store).files()) == before
    assert list(tmp_path.iterdir()) == []


def test_a_recorded_run_gives_hours_to_those_alone_that_do_the_same(dry: TrainConfig, tmp_path: Path) -> None:
    record: dict[str, Any] = {
        "run": "before",
        "config": json.loads(json.dumps(dataclasses.asdict(dry))),
        "throughput": {"patches_per_second": 0.01, "world_size": 2, "device": "cpu", "precision": "float32"},
        "time": {"seconds": dict.fromkeys(("wait", "forward", "backward", "communication", "optimiser", "other"), 5.0)},
    }
    (tmp_path / "runs" / "before").mkdir(parents=True)
    (tmp_path / "runs" / "before" / "summary.json").write_text(json.dumps(record))
    # 24 patches at 0.01 a second, and a sixth of all time beside the steps.
    hours = f"{2400 / 3600:.2f} for the steps, {2400 * 6 / 5 / 3600:.2f} with"
    assert lines_of(dry)["hours"].startswith(hours)
    wider = dataclasses.replace(dry, model=dataclasses.replace(dry.model, widths=(8, 16)))
    for other in (wider, dataclasses.replace(dry, workers=1), dataclasses.replace(dry, precision="bfloat16")):
        assert lines_of(other)["hours"].startswith("not known")


def test_for_a_cluster_the_plan_is_that_of_its_file_and_price(
    dry: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    write_cluster_file(tmp_path)
    given = {"store": dry.store, "runs": dry.runs, "splits": dry.splits, "epochs": 1}
    said = lines_of(dataclasses.replace(preset("g4dn"), workers=4, **given))
    assert said["place"] == "4 workers on g4dn.xlarge as spot, T4 each, float16"
    assert "of the 14.6 GiB of the smallest GPU (T4)" in said["plan"]
    assert said["hours"].startswith("not known")
    assert said["dollars"].startswith("1.09 an hour for the workers")
    assert said["or on g4dn.2xlarge on demand"] == "3.09 dollars an hour"
    assert len(said) == 7
    plan = lines_of(dataclasses.replace(preset("resenc_l"), workers=1, **given))["plan"]
    assert plan.startswith(
        "settled by memory: patches of 160 x 192 x 160, 1 at once, activations recomputed; predicted"
    )


@pytest.mark.processes
def test_the_command_needs_no_ray(dry: TrainConfig, small_arguments: Any) -> None:
    command = ["--store", dry.store, "--dry-run", "--workers", "2", *small_arguments]
    script = "import sys; sys.modules['ray'] = None; from ray_jobs.train import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", script, *map(str, command)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("split: 4 training")


def test_the_cluster_s_file_names_the_machines_that_it_allows() -> None:
    assert read_worker_machines(ROOT / "cluster" / "aws.yaml")[0] == SPOT
    assert read_worker_machines(ROOT / "cluster" / "local.yaml") == []


def test_a_limit_that_cannot_be_counted_is_refused(
    dry: TrainConfig, tmp_path: Path, fake_metadata: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = dataclasses.replace(dry, max_cost=5.0, max_cost_an_hour=1.0, workers=4)
    monkeypatch.setattr(planned_machines, "VENDOR", tmp_path / "none")
    monkeypatch.setenv("HOME", str(tmp_path))
    check_limit(dry)
    with pytest.raises(InputError, match="cannot be counted: the prices of the machines here are not known"):
        check_limit(limited)
    monkeypatch.setenv(OTHER_ADDRESS, fake_metadata.url)
    fake_metadata.answers["latest/meta-data/instance-type"] = (200, "x9.large")
    with pytest.raises(InputError, match=r"the price of x9\.large is not known"):
        check_limit(limited)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")  # a head: its own type says nothing of its workers'
    with pytest.raises(InputError, match="the prices of the machines here are not known"):
        check_limit(limited)
    write_cluster_file(tmp_path)
    with pytest.raises(InputError, match=r"--max-cost-an-hour 1 is below .* \$1\.09 an hour \(g4dn\.xlarge as spot\)"):
        check_limit(limited)
    check_limit(dataclasses.replace(limited, max_cost_an_hour=1.1))


def test_prices_are_those_of_the_document() -> None:
    table = (ROOT / "docs" / "clusters.md").read_text()
    for name, kind in KINDS.items():
        assert re.search(
            rf"\| {name} \| {kind.dollars:.3f} \| [\d.]+–{kind.spot:.3f} \| {kind.gpus} {kind.card} \|", table
        )
