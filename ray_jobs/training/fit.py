"""One training run as a Ray Train job: workers, where checkpoints go, what is retried."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import ray.train
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.callbacks.state_manager import StateManagerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ray_jobs.checkpoints.run_folder import CONFIG, RunFolder
from ray_jobs.on_ray.address import cluster_file, on_a_cluster
from ray_jobs.on_ray.gang import gang_policy
from ray_jobs.on_ray.hidden_paths import look_below
from ray_jobs.on_ray.machines_asked_for import asking_for
from ray_jobs.on_ray.monitor_log import MONITOR_LOG, find_logs
from ray_jobs.on_ray.places import find_places
from ray_jobs.on_ray.process_group import ProcessGroup
from ray_jobs.on_ray.ray_start import has_dashboard
from ray_jobs.training.plan import TrainPlan
from storage import InputError
from storage.store.index import ROOT_KEY

# Gradients meet on the GPUs; what the hosts tell each other does not pass through them, where it would be waited for.
BACKENDS = "cpu:gloo,cuda:nccl"
SECONDS_BETWEEN_RESIZES = 60.0  # growing costs a restart of all workers, about ten seconds


class Trainer(DataParallelTrainer):
    """Ray Train's, without helpers that have nothing to do: each is a process that takes two CPU-seconds to start."""

    def __init__(self, *, private: bool, shared: bool, shown: bool, board: Any = None, **settings: Any) -> None:
        """`private`: the cluster is this command's, has one machine and ends with it; `shared`: others may follow.

        `shown`: it has a dashboard, whose list of runs somebody keeps up to date by asking it. `board`: for its notes.
        """
        self._private, self._board = private, board
        # Of a placement group that is left behind only who comes later has to be spared.
        alone = (PlacementGroupCleanerCallback,) if private and not shared else ()
        unseen = (StateManagerCallback,) if private and not shown else ()
        self._needless = (DatasetsCallback, *alone, *unseen)
        super().__init__(**settings)

    def _create_default_callbacks(self) -> list[Any]:
        return [each for each in super()._create_default_callbacks() if not isinstance(each, self._needless)]

    def _initialize_and_run_controller(self, **settings: Any) -> ray.train.Result:
        if self._private and not self.scaling_config.elasticity_enabled:
            settings["scaling_policy"] = WorkersThatAreThere(scaling_config=self.scaling_config)
        elif not self._private and (logs := find_logs()) is not None:
            scaling = self.scaling_config
            workers = scaling.min_workers
            if places := find_places(cluster_file(), workers=workers, use_gpu=scaling.use_gpu):
                settings["scaling_policy"] = gang_policy(scaling, places, logs / MONITOR_LOG, self._board)
        with nullcontext() if self._private else asking_for(self.train_run_context.run_id):
            return super()._initialize_and_run_controller(**settings)


class WorkersThatAreThere(FixedScalingPolicy):
    """As many workers as are wanted, without asking an autoscaler for machines: there is none."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ask nobody."""

    def _maybe_send_resource_request(self) -> None:
        """Ask nobody."""


class LossMark(ray.train.UserCallback):
    """Marks on the board when Ray knows that workers are lost. It lives with the run's controller."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Mark it."""
        self._board.mark.remote("lost", 0)


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Entry point of a worker, which alone imports what computes."""
    from ray_jobs.training.train_loop import train_loop_per_worker

    return train_loop_per_worker(config)


def fit(
    plan: TrainPlan,
    folder: RunFolder,
    *,
    workers: int | tuple[int, int],
    use_gpu: bool,
    board: Any,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> dict[str, Any]:
    """Run the training loop on `workers` processes, or on as many of a range as there are, and return its result.

    Lost workers are started again, and go on from the newest checkpoint in the run folder. A run that must not go on
    returns why as `failed`: to start its workers again would not help.
    """
    # Cases may be added to a store while it is trained on; what a run is never changes.
    seen = look_below(plan.store, "store", ROOT_KEY, fixed=False)
    seen += look_below(folder.uri, "run folder", CONFIG, fixed=True)
    trainer = Trainer(
        private=not on_a_cluster(),
        shared=plan.settled_in is not None,
        board=board,
        shown=has_dashboard(),
        train_loop_per_worker=train_worker,
        train_loop_config={"plan": plan, "folder": folder.uri, "board": board, "seen": seen},
        backend_config=ProcessGroup(backend=BACKENDS if use_gpu else "gloo", seconds=plan.config.parallel.timeout),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, elastic_resize_monitor_interval_s=SECONDS_BETWEEN_RESIZES
        ),
        run_config=ray.train.RunConfig(
            name=folder.name,
            storage_path=folder.runs,
            callbacks=[*callbacks, *([] if board is None else [LossMark(board)])],
            failure_config=ray.train.FailureConfig(max_failures=plan.config.max_failures),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        result: dict[str, Any] = trainer.fit().return_value
        return result
    except ray.train.WorkerGroupError as error:
        for failure in error.worker_failures.values():
            cause = getattr(failure, "_base_exc", failure)  # Ray wraps it to keep the worker's traceback
            if isinstance(cause, InputError):
                raise cause from error
        raise
