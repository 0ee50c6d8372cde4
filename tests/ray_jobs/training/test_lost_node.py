"""A node of a two-node cluster goes, with and without notice, and training goes on."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from storage import CohortStore


@pytest.fixture
def lose_a_node(tmp_path: Path, phantom_store: CohortStore, fake_metadata: Any):
    """Run a scenario of losing_nodes.py; return what the run told and its result."""

    def run(scenario: str) -> tuple[list[str], dict[str, Any]]:
        (tmp_path / "home").mkdir()
        variables = {
            **os.environ,
            "HOME": str(tmp_path / "home"),
            "OMP_NUM_THREADS": "1",
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",  # for a second node before going on without
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        }
        script = str(Path(__file__).parent / "losing_nodes.py")
        command = [sys.executable, script, scenario, phantom_store.uri, str(tmp_path), fake_metadata.url]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=560)
        assert done.returncode == 0, done.stderr[-4000:]
        outcome = json.loads((tmp_path / "outcome.json").read_text())
        return outcome["told"], outcome["result"]

    return run


def notice_in_half_a_minute() -> str:
    return json.dumps({"action": "terminate", "time": (datetime.now(UTC) + timedelta(seconds=30)).isoformat()})


def count_steps_again(run: Path) -> int:
    """How many steps some start of the run wrote that another had written before."""
    written = []
    for file in run.glob("events.*"):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        if "loss/step" in events.Tags()["scalars"]:
            written += [event.step for event in events.Scalars("loss/step")]
    return len(written) - len(set(written))


@pytest.mark.system
def test_a_node_that_announces_its_end_is_replaced(
    lose_a_node, losses_by_step, tmp_path: Path, fake_metadata: Any
) -> None:
    """As a spot instance does: the run saves at the notice, and goes on from there on the next node."""
    fake_metadata.give_notice(notice_in_half_a_minute)
    told, result = lose_a_node("replaced")
    assert len([line for line in told if "a node is about to be taken away" in line]) == 1
    assert [line.rsplit(", ", 1)[1] for line in told if line.startswith("going on")] == ["world size 2"]
    losses = losses_by_step(tmp_path / "run")
    assert result["stopped"] == f"after step {max(losses)} of epoch 1"
    assert sorted(losses) == list(range(1, max(losses) + 1))
    assert {len(values) for values in losses.values()} == {1}  # what was done twice came out the same
    (restart,) = result["restarts"]["each"]
    assert restart["notice"] and restart["steps_again"] == 0
    assert result["restarts"]["steps_again"] >= count_steps_again(tmp_path / "run")  # what was flushed before the end
    assert restart["seconds"]["noticed"] == 0 and restart["seconds"]["workers"] > 0


@pytest.mark.system
def test_a_run_goes_on_with_one_node_and_takes_a_new_one(lose_a_node, losses_by_step, tmp_path: Path) -> None:
    """With the global batch as it was, so that the steps stay the same steps."""
    told, result = lose_a_node("elastic")
    sizes = [line.rsplit(", ", 1)[1] for line in told if line.startswith("going on")]
    assert "world size 1" in sizes
    assert sizes[-1] == "world size 2"
    # An interval between checkpoints, and another where the node went while one was written.
    each = result["restarts"]["each"]
    assert len(each) >= 2 and not any(restart["notice"] for restart in each)
    assert max(restart["steps_again"] for restart in each) <= 2 * 5
    assert each[0]["seconds"]["noticed"] > 0
    assert result["restarts"]["steps_again"] >= count_steps_again(tmp_path / "run")  # what was flushed before the end
    steps = sorted(losses_by_step(tmp_path / "run"))
    assert result["stopped"] == f"after step {steps[-1]} of epoch 1"
    assert steps == list(range(1, steps[-1] + 1))
