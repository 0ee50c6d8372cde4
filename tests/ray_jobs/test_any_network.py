"""Networks and losses of other people's: trained, resumed and predicted with, and refused before anything starts."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from models import ImportedNetwork, LossConfig, UNetConfig
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.on_ray.session import LocalSession, Progress
from ray_jobs.settings.config import TrainConfig
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.run import prepare
from ray_jobs.training.train_loop import train
from storage import CohortStore, InputError

CPU = torch.device("cpu")
OWN = "tests.own_networks"
SEGRESNET = ("init_filters=8", "blocks_down=1,1", "blocks_up=1,")
SHALLOW = ("kernel_size=3,3,3", "strides=1,2,2", "upsample_kernel_size=2,2", "filters=4,8,8")
MONAI = {  # beside SegResNet, which the commands train
    "DynUNet": (*SHALLOW, "norm_name=instance", "deep_supervision=True"),
    "MedNeXt": (
        *("init_filters=4", "kernel_size=3", "blocks_down=1,1", "blocks_bottleneck=1", "blocks_up=1,1"),
        "deep_supervision=True",
    ),
}
# As flags: three steps an epoch of 16³ patches.
SMALL = (
    *("--epochs", "2", "--sampling.patch-shape", "16", "16", "16", "--sampling.patches-per-epoch", "12"),
    *("--optimiser.warmup-steps", "1", "--validation.overlap", "0", "--validation.window-batch", "16"),
)


def with_network(config: TrainConfig, network: str, *arguments: str, **changes: Any) -> TrainConfig:
    model = dataclasses.replace(config.model, network=network, arguments=arguments)
    return dataclasses.replace(config, model=model, **changes)


class StoppedSession(LocalSession):
    """A session that is asked to stop after `after` of its steps, and keeps what it tells."""

    def __init__(self, folder: Path, *, after: int = 99) -> None:
        super().__init__(folder, CPU)
        self._left = after
        self.told: list[str] = []

    def tell(self, progress: Progress) -> None:
        self.told += [progress.message] if progress.message else []

    def stop_asked(self) -> bool:
        self._left -= 1
        return self._left <= 0


@pytest.mark.slow
@pytest.mark.processes  # MONAI asks for the machine's name when it is imported
@pytest.mark.parametrize("name", MONAI)
def test_monais_networks_train_two_epochs(
    name: str, train_bare: Callable[[TrainConfig, Path], Any], small_config: TrainConfig, tmp_path: Path
) -> None:
    """And their checkpoints are those of MONAI's own classes."""
    optimiser = dataclasses.replace(small_config.optimiser, ema_decay=0.9)
    config = with_network(small_config, f"monai.networks.nets:{name}", *MONAI[name], optimiser=optimiser)
    run = train_bare(config, tmp_path)
    assert len(run.history) == 2 and 0 < run.result["validation"]["iou"]["mean"] < 1
    network = open_trained(str(run.folder), CPU)
    assert isinstance(network.model, ImportedNetwork)
    assert type(network.model.network) is getattr(import_module("monai.networks.nets"), name)
    folder = Path(run.result["checkpoint"])
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    assert weights.keys() == network.model.network.state_dict().keys()
    said = json.loads((folder / "config.json").read_text())
    assert said["model"]["network"] == f"monai.networks.nets:{name}" and "widths" not in said["model"]
    assert said["made_with"]["network"] == f"monai {version('monai')}"
    # What it was validated with is what the file holds.
    assert all(torch.equal(weights[key], value) for key, value in network.model.state_dict().items())


@pytest.mark.slow
@pytest.mark.usefixtures("bare_pictures")
def test_a_stopped_run_equals_one_left_alone_with_dropout_and_batch_normalisation(
    small_config: TrainConfig, make_plan: Callable[[TrainConfig], TrainPlan], tmp_path: Path
) -> None:
    """Bit for bit: neither what is drawn nor the running means hang on how often it started."""
    loss = LossConfig(function=f"{OWN}:Squares", arguments=("weight=3",))
    plan = make_plan(with_network(small_config, f"{OWN}:Plain", "dropout=0.3", loss=loss))
    train(plan, LocalSession(tmp_path / "alone", CPU))
    assert train(plan, StoppedSession(tmp_path / "stopped", after=2)) == {"stopped": "after step 2 of epoch 1"}
    (config,) = (tmp_path / "stopped").glob("*step_000002/config.json")
    values = json.loads(config.read_text())
    values["made_with"]["network"] = "nets 1.0"
    config.write_text(json.dumps(values))
    train(plan, session := StoppedSession(tmp_path / "stopped"))
    assert any(f"{OWN}:Plain was trained with nets 1.0, and here it is a module that" in line for line in session.told)
    first, second = (tmp_path / name / "checkpoint_epoch_0002" / "model.safetensors" for name in ("alone", "stopped"))
    assert first.read_bytes() == second.read_bytes()
    assert "norm.running_mean" in safetensors.torch.load_file(first)


@pytest.mark.processes
@pytest.mark.usefixtures("on_shared_head")
def test_the_commands_train_and_predict(
    phantom_store: CohortStore, phantom_source: Path, tmp_path: Path, run_here: Callable[..., Any]
) -> None:
    flags = ["--store", phantom_store.uri, "--name", "other", "--workers", "1", *SMALL]
    flags += ["--model.network", "monai.networks.nets:SegResNet", "--model.arguments", *SEGRESNET]
    flags += ["--loss.function", "monai.losses:DiceFocalLoss", "--loss.arguments", "sigmoid=True"]
    trained = run_here("train.py", *flags)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    run = tmp_path / "runs" / "other"
    checkpoint = Path(json.loads((run / "summary.json").read_text())["checkpoint"])
    other = run_here("train.py", *flags[:-1], "sigmoid=False")
    assert other.returncode == 2 and "loss.arguments" in other.stderr

    config = json.loads((checkpoint / "config.json").read_text())
    config["made_with"]["network"] = "monai 0.1"
    (checkpoint / "config.json").write_text(json.dumps(config))
    case = phantom_source / "BraTS20_Training_001"
    predicted = run_here(
        "predict.py", "--checkpoint", str(run), "--input", str(case), "--output", "out", "--no-figures"
    )
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    said = f"monai.networks.nets:SegResNet was trained with monai 0.1, and here it is monai {version('monai')}"
    assert said in " ".join(predicted.stdout.split())
    assert list((tmp_path / "out").rglob("BraTS20_Training_001_seg.nii.gz"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model.network", f"{OWN}:Nothing"], f"--model.network: {OWN} has no Nothing that can be called"),
        (["--model.network", "nobodys.networks:Net"], "--model.network: nobodys.networks cannot be imported"),
        (["--model.network", f"{OWN}:Plain", "--model.arguments", "depth=3"], "Plain has no argument depth"),
        (["--model.network", f"{OWN}:Otherwise"], "Otherwise wants channels, classes: give channels=VALUE"),
        (
            ["--model.network", f"{OWN}:Halving"],
            "with logits (2, 3, 20, 20, 20) in training, wanted (2, 3, 40, 40, 40)",
        ),
        (["--model.network", f"{OWN}:Even"], "wanted multiples of 16; it takes 32 x 32 x 32"),
        (
            ["--model.network", f"{OWN}:Fixed", "--validation.whole"],
            f"whole cases at once: --model.network: {OWN}:Fixed does not take patches (2, 4, 96, 96, 96)",
        ),
        (["--loss.function", f"{OWN}:each"], "--loss.function: tests.own_networks:each gives (2, 3, 16, 16, 16)"),
        (["--loss.function", f"{OWN}:squares", "--loss.arguments", "size=3"], "squares has no argument size"),
        (["--model.arguments", "width=3"], "UNetConfig.arguments: got ('width=3',), and no network that takes them"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(
    arguments: Sequence[str], says: str, tmp_path: Path, run_here: Callable[..., Any]
) -> None:
    done = run_here("train.py", *arguments)
    assert done.returncode == 2 and says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_checkpoint_whose_network_is_not_here_says_so(
    make_checkpoint: Callable[..., str], small_config: TrainConfig
) -> None:
    for network, says in {
        "nobodys.networks:Net": "nobodys.networks cannot be imported",
        "os:system": "os:system is no class of torch.nn.Module",
        f"{OWN}:Idle": "Missing key",
    }.items():
        checkpoint = make_checkpoint("a run", seed=0, config=with_network(small_config, network))
        with pytest.raises(InputError, match="its weights have no network to go into: ") as caught:
            open_trained(checkpoint, CPU)
        assert says in str(caught.value)


@pytest.mark.slow
def test_whole_cases_are_padded_to_what_it_takes(
    small_config: TrainConfig, make_plan: Callable[[TrainConfig], TrainPlan], tmp_path: Path
) -> None:
    validation = dataclasses.replace(small_config.validation, whole=True)
    config = with_network(small_config, f"{OWN}:Even", validation=validation)
    run = prepare(make_plan(config), LocalSession(tmp_path / "run", CPU))
    with run.loader:
        run.model.eval()
        assert run.evaluator.probabilities(torch.randn(4, 20, 40, 33)).shape == (3, 20, 40, 33)
    assert UNetConfig(network=f"{OWN}:Even").round_up_sides((20, 40, 33)) == (32, 64, 64)
