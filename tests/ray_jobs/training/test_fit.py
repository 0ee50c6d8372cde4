"""What a run asks of Ray Train."""

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train.v2._internal.execution.scaling_policy import autoscaling_coordinator_client
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.on_ray.hidden_paths import SeenFile, look_below
from ray_jobs.on_ray.machines_asked_for import ask_for_nothing
from ray_jobs.on_ray.process_group import ProcessGroup
from ray_jobs.on_ray.ray_start import ray_running
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.groups import ParallelConfig
from ray_jobs.training import fit as fit_module
from ray_jobs.training.plan import TrainPlan

AT_THE_END = {"matplotlib", "scipy.special"}


def test_collectives_have_the_configured_timeout(
    small_config: TrainConfig,
    make_plan: Callable[[TrainConfig], TrainPlan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def trainer(*_: Any, **options: Any) -> SimpleNamespace:
        asked.update(options)
        return SimpleNamespace(fit=lambda: SimpleNamespace(return_value={}))

    monkeypatch.setattr(fit_module, "Trainer", trainer)
    plan = make_plan(replace(small_config, parallel=ParallelConfig(timeout=77)))
    fit_module.fit(plan, RunFolder(str(tmp_path), "run"), workers=2, use_gpu=False, board=None)
    assert asked["backend_config"] == ProcessGroup(backend="gloo", seconds=77)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data's own
@pytest.mark.parametrize(
    ("private", "shared", "shown"),
    [(True, False, True), (True, True, True), (True, False, False), (False, False, True), (False, False, False)],
)
def test_no_helper_is_started_that_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, *, private: bool, shared: bool, shown: bool
) -> None:
    """Who may come after the run, on a cluster, in a search or a cross-validation, is spared its placement group."""
    trainer = fit_module.Trainer(
        private=private, shared=shared, shown=shown, train_loop_per_worker=fit_module.train_worker
    )
    names = {type(each).__name__ for each in trainer._create_default_callbacks()}
    assert "DatasetsCallback" not in names
    assert ("PlacementGroupCleanerCallback" in names) == (shared or not private)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        DataParallelTrainer, "_initialize_and_run_controller", lambda _, **settings: asked.update(settings)
    )
    trainer._initialize_and_run_controller(scaling_policy="what asks for machines")
    assert (asked["scaling_policy"] == "what asks for machines") == (not private)
    # The others do what is promised: they join the workers, and show the run, on the dashboard where there is one.
    assert {"BackendSetupCallback", "WorkerMetricsCallback"} <= names
    assert ("StateManagerCallback" in names) == (shown or not private)


class Coordinator(list[str]):
    """Ray's, of which everybody asks machines; notes who withdraws."""

    def client(self, requester: str) -> Any:
        return SimpleNamespace(cancel_resource_request=lambda: self.append(requester))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_that_is_cut_off_asks_for_no_more_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its controller dies with the command, and its request would live on."""
    coordinator, waits, ends = Coordinator(), threading.Event(), threading.Event()
    monkeypatch.setattr(autoscaling_coordinator_client, "TrainAutoscalingCoordinatorClient", coordinator.client)
    monkeypatch.setattr(
        DataParallelTrainer, "_initialize_and_run_controller", lambda *_, **__: (waits.set(), ends.wait())
    )
    trainer = fit_module.Trainer(
        private=False, shared=False, shown=False, train_loop_per_worker=fit_module.train_worker
    )
    run = threading.Thread(target=trainer._initialize_and_run_controller)
    run.start()
    assert waits.wait(60)
    ask_for_nothing()
    assert coordinator == [f"train-{trainer.train_run_context.run_id}"]
    ends.set()
    run.join(60)
    ask_for_nothing()  # one that ended has withdrawn it itself
    assert len(coordinator) == 1


@pytest.mark.processes
def test_who_does_not_compute_imports_no_library_that_does() -> None:
    """The driver, and through what it hands over the run's controller; the board's actor imports still less.

    Nor does a rank import before its first step what draws and tells chance.
    """
    probe = (
        f"AT_THE_END = {AT_THE_END}"
        + """
import sys, ray_jobs.watching.board
board = {*sys.modules}
import ray_jobs.training.job
driver = {*sys.modules}
import ray_jobs.training.train_loop
print(*board & {"rich", "ray.train", "zarr"}, *driver & {"torch", "nvidia.dali"}, *sys.modules.keys() & AT_THE_END)
"""
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.system  # two runs whose workers fail
@pytest.mark.usefixtures("on_shared_head")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data's own
def test_workers_that_do_not_see_the_drivers_folders_are_not_started_again(
    small_config: TrainConfig,
    make_plan: Callable[[TrainConfig], TrainPlan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a cluster whose machines come for the run. All see the same here, so the driver saw what is gone since."""
    plan = make_plan(replace(small_config, max_failures=3))
    folder = RunFolder(str(tmp_path / "runs"), "run")
    folder.claim({"seed": 1})
    look = fit_module.look_below

    def look_and_hide(path: str, what: str, file: str, *, fixed: bool) -> list[SeenFile]:
        seen = look(path, what, file, fixed=fixed)
        if what == hidden:
            seen = [replace(each, content=b"the driver's own") for each in seen]
        return seen

    monkeypatch.setattr(fit_module, "look_below", look_and_hide)
    with ray_running():
        for hidden, path in (("run folder", folder.uri), ("store", plan.store)):
            result = fit_module.fit(plan, folder, workers=2, use_gpu=False, board=None)
            assert result == {
                "failed": f"{hidden} {path} is a local path that 2 of 2 workers cannot see; "
                "give an s3:// URL or a folder that all nodes share"
            }
    assert [file.name for file in Path(folder.uri).iterdir() if file.suffix == ".json"] == ["config.json"]
    assert not list(Path(folder.uri).glob("events*"))


def test_another_file_of_the_same_name_is_not_the_one_that_was_seen(tmp_path: Path) -> None:
    assert look_below("s3://bucket/runs/one", "run folder", "config.json", fixed=True) == []
    assert look_below(str(tmp_path), "run folder", "config.json", fixed=True) == []  # nothing to look for
    file = tmp_path / "config.json"
    file.write_text("ours")
    (fixed,) = look_below(str(tmp_path), "run folder", "config.json", fixed=True)
    (growing,) = look_below(str(tmp_path), "store", "config.json", fixed=False)
    assert not fixed.is_hidden()
    file.write_text("another machine's")
    assert fixed.is_hidden()
    assert not growing.is_hidden()
    file.unlink()
    assert growing.is_hidden()
