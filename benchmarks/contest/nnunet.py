"""nnU-Net v2 (2.8) through its own planner, preprocessing, trainer and predictor; run as a program by the contests.

Different from `nnUNetv2_train`, each to its advantage where CPU time is short:
- bfloat16, where this CPU multiplies it fast, by autocast around its own training step and prediction; its trainer
  would use float32 on any CPU.
- The learning rate falls to zero by its own poly schedule over the budget, set anew at each step, not each epoch.
- No validation while training, and no curves drawn: they would cost a fifth of the steps and choose nothing.
- Augmentation in this process: what its workers hold ready at the end would be paid for and not used.
Source: Isensee et al. 2021, "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation".
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest.job import Job, run_program
from benchmarks.contest.learning import (
    CPU,
    arithmetic,
    describe_sizes,
    learn,
    rehearse_layout,
    seed_all,
    set_up,
    weights_file,
)
from benchmarks.contest.segmentations import (
    DATASET,
    DATASET_NAME,
    cases_left,
    scan_files,
    write_in_source_values,
)

PROCESSES = 2  # of fingerprint and preprocessing, which are counted but not part of the budget
PLANS, OWN_PLANS = "nnUNetPlans", "contestPlans"
FULL, SLICES = "3d_fullres", "2d"


def set_folders(job: Job) -> None:
    """nnU-Net's environment; its results go into this run's folder."""
    shared = Path(job.shared)
    os.environ |= {
        "nnUNet_raw": str(shared / "raw"),
        "nnUNet_preprocessed": str(shared / "preprocessed"),
        "nnUNet_results": str(job.path("results")),
        "nnUNet_n_proc_DA": "0",  # in this process
    }


def plans_folder(job: Job) -> Path:
    """Where plans, dataset.json and preprocessed cases lie."""
    return Path(job.shared) / "preprocessed" / DATASET_NAME


def prepare(job: Job) -> Mapping[str, Any]:
    """Fingerprint, plan and preprocess the exported cases, all of them: a fold takes its own."""
    set_folders(job)
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    os.environ |= {"nnUNet_n_proc_DA": "1"}  # which its planner takes for torch's threads
    extract_fingerprint_dataset(DATASET, num_processes=PROCESSES)
    plan_experiment_dataset(DATASET)
    preprocess_dataset(DATASET, configurations=[SLICES, FULL], num_processes=[PROCESSES], show_progress_bar=False)
    return {}


def write_plans(job: Job) -> dict[str, Any]:
    """nnU-Net's plans with one more configuration: of its own, with what the contest sets; its own planner's rules give
    the network for the patch."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    plans: dict[str, Any] = json.loads((plans_folder(job) / f"{PLANS}.json").read_text())
    base = job.settings["configuration"]
    planned = plans["configurations"][base]
    changed: dict[str, Any] = {"inherits_from": base, "batch_size": job.settings.get("batch", planned["batch_size"])}
    if "patch" in job.settings:
        patch = list(job.settings["patch"])
        _, strides, kernels, patch_that_fits, _ = get_pool_and_conv_props(planned["spacing"], patch, 4, 999999)
        assert list(patch_that_fits) == patch  # else it would be another patch than ours
        strides, kernels = strides[: job.settings.get("levels")], kernels[: job.settings.get("levels")]
        architecture = planned["architecture"]["arch_kwargs"]
        most, levels = architecture["features_per_stage"], len(strides)
        widths = job.settings.get("widths") or [min(32 * 2**level, max(most)) for level in range(levels)]
        kwargs = {
            **architecture,
            "n_stages": levels,
            "features_per_stage": list(widths),
            "kernel_sizes": [list(kernel) for kernel in kernels],
            "strides": [list(stride) for stride in strides],
            "n_conv_per_stage": [2] * levels,
            "n_conv_per_stage_decoder": [2] * (levels - 1),
        }
        changed |= {"patch_size": patch, "architecture": {**planned["architecture"], "arch_kwargs": kwargs}}
    if "batch_dice" in job.settings:
        changed["batch_dice"] = job.settings["batch_dice"]
    plans["configurations"]["contest"] = changed
    plans["plans_name"] = OWN_PLANS
    return plans


def make_trainer(job: Job) -> Any:
    """Its trainer on a CPU, told as little else as can be."""
    set_folders(job)
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class ContestTrainer(nnUNetTrainer):
        def do_split(self) -> tuple[list[str], list[str]]:
            return sorted(job.train), sorted(job.train)  # nothing is validated

        def plot_network_architecture(self) -> None:
            """Draw nothing."""

        def configure_optimizers(self) -> Any:
            self.num_epochs = 1  # its schedule then goes by shares of the budget
            return super().configure_optimizers()

    plans = write_plans(job) | {"continue_training": False}
    dataset = json.loads((plans_folder(job) / "dataset.json").read_text())
    trainer = ContestTrainer(plans, "contest", 0, dataset, CPU)
    trainer.initialize()
    set_up(job, trainer.network)
    return trainer


class TrainerSteps:
    """A Learner of its trainer."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        trainer.on_train_start()
        trainer.network.train()

    def step(self, share: float) -> None:
        trainer = self._trainer
        trainer.lr_scheduler.step(share)
        with arithmetic().autocast(CPU):
            trainer.train_step(next(trainer.dataloader_train))

    def state(self) -> dict[str, Any]:
        trainer = self._trainer
        return {"weights": trainer.network.state_dict(), "optimiser": trainer.optimizer.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        self._trainer.network.load_state_dict(state["weights"])
        self._trainer.optimizer.load_state_dict(state["optimiser"])


def rehearse(job: Job) -> Mapping[str, Any]:
    """Its network's cheaper layout."""
    trainer = make_trainer(job)
    return rehearse_layout(trainer.network, trainer.num_input_channels, len(trainer.configuration_manager.patch_size))


def train(job: Job) -> Mapping[str, Any]:
    """Its trainer's steps for the budget."""
    seed_all(job.seed)
    trainer = make_trainer(job)
    chosen = trainer.configuration_manager
    sizes = describe_sizes(chosen.patch_size, chosen.batch_size)
    return {**learn(job, TrainerSteps(trainer)), "sizes": sizes}


def predict(job: Job) -> Mapping[str, Any]:
    """Its predictor over the test cases: windows that overlap by half, Gaussian weights, mirrored where wanted."""
    trainer = make_trainer(job)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    share, mirror = job.settings["share"], job.settings["mirror"]
    mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3]
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(use_mirroring=mirror, device=CPU, allow_tqdm=False)
    weights = torch.load(weights_file(job, share), weights_only=False)
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, [weights],
        trainer.dataset_json, type(trainer).__name__, mirror_axes,
    )  # fmt: skip
    written = job.path("written")
    written.mkdir(exist_ok=True)
    for case_id, file in cases_left(job, job.predictions(share)).items():
        scans = scan_files(job, case_id, len(trainer.dataset_json["channel_names"]))
        with arithmetic().autocast(CPU):
            predictor.predict_from_files_sequential([scans], [str(written / case_id)])
        write_in_source_values(job, case_id, written / f"{case_id}.nii.gz", file)
    return {}


if __name__ == "__main__":
    run_program({"prepare": prepare, "rehearse": rehearse, "train": train, "predict": predict})
