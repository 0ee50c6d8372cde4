"""One training run as a Ray Train job: workers, where checkpoints go, what is retried."""

from collections.abc import Sequence
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from ray_jobs.checkpoints.run_folder import CONFIG, RunFolder
from ray_jobs.on_ray.hidden_paths import look_below
from ray_jobs.training.run import TrainPlan
from ray_jobs.training.train_loop import train_loop_per_worker
from storage import InputError
from storage.store.index import ROOT_KEY

# Gradients meet on the GPUs; what the hosts tell each other does not pass through them, where it would be waited for.
BACKENDS = "cpu:gloo,cuda:nccl"
SECONDS_BETWEEN_RESIZES = 60.0  # growing costs a restart of all workers, about ten seconds


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
    trainer = TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"plan": plan, "folder": folder.uri, "board": board, "seen": seen},
        torch_config=TorchConfig(backend=BACKENDS if use_gpu else "gloo", timeout_s=plan.config.parallel.timeout),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, elastic_resize_monitor_interval_s=SECONDS_BETWEEN_RESIZES
        ),
        run_config=ray.train.RunConfig(
            name=folder.name,
            storage_path=folder.runs,
            callbacks=list(callbacks),
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
