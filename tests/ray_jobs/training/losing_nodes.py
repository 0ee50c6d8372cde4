"""A training on two nodes of a cluster, one of which goes; `test_lost_node.py` runs this as a process of its own.

`losing_nodes.py replaced STORE FOLDER METADATA_URL`: the watcher finds a notice there, the node goes, another comes.
`losing_nodes.py elastic STORE FOLDER METADATA_URL`: it goes without notice; the run goes on alone, and with two when
another comes.
What the run told and its result are left in FOLDER/outcome.json.
"""

import dataclasses
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

import ray_jobs.training.fit
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.groups import CheckpointConfig
from ray_jobs.settings.presets import preset
from ray_jobs.training.fit import fit
from ray_jobs.training.plan import TrainPlan
from ray_jobs.watching.board import start_board
from ray_jobs.watching.ledger import Ledger
from storage import assign_splits, open_store

WATCHER = Path(__file__).parents[3] / "ray_jobs" / "spot_watcher.py"
PATIENCE_SECONDS = 240


def configuration() -> TrainConfig:
    """An epoch that outlasts any scenario on any machine, a checkpoint every five steps."""
    demo = preset("demo")
    return dataclasses.replace(
        demo,
        epochs=1,
        max_failures=3,
        sampling=dataclasses.replace(demo.sampling, patch_shape=(16, 16, 16), patches_per_epoch=4 * 100_000),
        model=dataclasses.replace(demo.model, widths=(4, 8), deep_supervision=0),
        validation=dataclasses.replace(demo.validation, overlap=0.0, window_batch=16),
        checkpoints=CheckpointConfig(every_steps=5, every_minutes=None),
    )


class Training:
    """`fit` in a thread: nodes can only be added from the main one."""

    def __init__(self, store: str, folder: Path, workers: int | tuple[int, int]) -> None:
        opened = open_store(store)
        plan = TrainPlan(
            config=configuration(), store=store, splits=assign_splits(opened.infos()), cache=folder / "cache"
        )
        self.run = RunFolder(str(folder), "run")
        self.store = CheckpointStore(self.run.uri)
        self.board = start_board()
        self.told: list[str] = []
        self.ledger = Ledger(self.run)
        self.result: dict[str, Any] | None = None

        def train() -> None:
            self.result = fit(plan, self.run, workers=workers, use_gpu=False, board=self.board)

        self._thread = threading.Thread(target=train, daemon=True)
        self._thread.start()

    def wait_for_steps(self, steps: int) -> None:
        """Return when that many more steps have been saved."""
        newest = self.store.newest()
        epoch, step = newest.position if newest else (0, 0)
        self._wait(lambda: (now := self.store.newest()) is not None and now.position >= (epoch, step + steps))

    def wait_for_word(self, word: str) -> None:
        """Return when the run has told a line with `word` in it."""
        self._wait(lambda: any(word in line for line in self.told))

    def look(self) -> None:
        """Take what is new, as the driver does."""
        _, notes, marks, machines = ray.get(self.board.look.remote())
        self.told += notes
        self.ledger.take(marks, machines, time.time())

    def finish(self) -> dict[str, Any]:
        """Let the run do some more steps, save and end; return its result."""
        self.wait_for_steps(10)
        self.board.stop.remote()
        self._wait(lambda: not self._thread.is_alive())
        self.look()
        assert self.result is not None, "the run failed"
        return self.result

    def _wait(self, reached: Any) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.look()
            if reached():
                return
            assert time.monotonic() < until, f"waited {PATIENCE_SECONDS} s; told so far: {self.told}"
            time.sleep(0.2)


def replace_an_announced_node(cluster: Cluster, training: Training, leaving: Any, metadata_url: str) -> None:
    """What a spot instance goes through: a notice, the end when it is due, and a new instance."""
    training.wait_for_steps(10)
    node = ["--address", cluster.address, "--node-id", leaving.node_id]
    subprocess.run([sys.executable, str(WATCHER), *node, "--metadata-url", metadata_url], check=True)
    training.wait_for_word("no further step before the node is gone")
    cluster.remove_node(leaving, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    training.wait_for_word("world size 2")


def shrink_and_grow(cluster: Cluster, training: Training, leaving: Any) -> None:
    """The run does not wait for the new node."""
    training.wait_for_steps(10)
    cluster.remove_node(leaving, allow_graceful=False)
    training.wait_for_word("world size 1")
    training.wait_for_steps(10)
    cluster.add_node(num_cpus=1)
    training.wait_for_word("world size 2")


def main(scenario: str, store: str, folder: Path, metadata_url: str) -> None:
    """Run one scenario to its end."""
    ray_jobs.training.fit.SECONDS_BETWEEN_RESIZES = 5.0
    # Without a dashboard: another cluster on this machine may hold its port.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    leaving = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        elastic = scenario == "elastic"
        training = Training(store, folder, (1, 2) if elastic else 2)
        if elastic:
            shrink_and_grow(cluster, training, leaving)
        else:
            replace_an_announced_node(cluster, training, leaving, metadata_url)
        result = training.finish()
        summary = training.ledger.summary()
        (folder / "outcome.json").write_text(json.dumps({"told": training.told, "result": {**result, **summary}}))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
