"""One training run as a Ray Train job: workers, where checkpoints go, what is retried."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from ray_jobs.run_folder import RunFolder
from ray_jobs.train_loop import TrainPlan, train_loop_per_worker
from storage import InputError


def fit(
    plan: TrainPlan,
    folder: RunFolder,
    *,
    workers: int,
    use_gpu: bool,
    board: Any,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> ray.train.Result:
    """Run the training loop on `workers` processes, resuming what the run folder holds."""
    trainer = TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"plan": plan, "board": board},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=ray.train.RunConfig(
            name=folder.name,
            storage_path=folder.runs,
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="iou_mean", checkpoint_score_order="max"
            ),
            callbacks=list(callbacks),
            failure_config=ray.train.FailureConfig(max_failures=plan.config.max_failures),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        return trainer.fit()
    except ray.train.WorkerGroupError as error:
        for failure in error.worker_failures.values():
            cause = getattr(failure, "_base_exc", failure)  # Ray wraps it to keep the worker's traceback
            if isinstance(cause, InputError):
                raise cause from error
        raise


def best_checkpoint_name(result: ray.train.Result) -> str:
    """Return the folder, below the run's, of the checkpoint with the best validation IoU."""
    checkpoint, _ = max(result.best_checkpoints, key=lambda each: each[1]["iou_mean"])
    return Path(checkpoint.path).name
