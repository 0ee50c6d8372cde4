"""A checkpoint folder: weights anyone can load, and all state that an exact resume needs.

model.safetensors   the weights that were scored, under plain names, without wrapper prefixes
state.pt            optimiser, schedule, scaler, loader position and all else; loads with weights_only=True
config.json         the resolved configuration, the store's digest, modalities and regions, each in the network's order
thresholds.json     the best threshold per region on the validation cases, or those that were given, or 0.5 where no
                    case validates; only where the checkpoint closes epochs that end with a validation
curves.json         IoU and Dice of each region at every threshold, on the validation cases, where there are any
record.json         epoch, step, scores, whose rules they follow and which is maximised, by thresholds and by the choice
                    of the best checkpoint; written last, so a folder with it is whole
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from ray_jobs.checkpoints.run_folder import CONFIG, encode_json
from ray_jobs.settings.objective import RULES, Objective
from scoring import RulesName
from storage import InputError
from storage.store.objects import Objects

if TYPE_CHECKING:  # PyTorch is imported where weights are touched: a checkpoint is found and read without it
    from torch import nn

MODEL, STATE, RECORD = "model.safetensors", "state.pt", "record.json"
THRESHOLDS, CURVES = "thresholds.json", "curves.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """Where a run was when the checkpoint was taken: `epoch` whole epochs and `step` steps of the next.

    `metrics` are the scores of the validation that the checkpoint closes; none for one taken in mid-epoch.
    """

    epoch: int
    step: int
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    objective: Objective = "iou"
    """Which of them the run maximises. Records of earlier versions do not say: it was IoU then, by the same rules."""
    rules: RulesName = RULES

    @property
    def name(self) -> str:
        """Of the folder."""
        return f"checkpoint_epoch_{self.epoch:04d}" + (f"_step_{self.step:06d}" if self.step else "")

    @property
    def position(self) -> tuple[int, int]:
        """Later checkpoints have larger positions."""
        return self.epoch, self.step

    @property
    def score(self) -> float | None:
        """What the run maximises: a mean over validation cases and regions. None where it was not validated."""
        return self.metrics.get(f"{self.objective}_mean")

    def encode(self) -> bytes:
        """As record.json."""
        return encode_json(dataclasses.asdict(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """The inverse of `encode`."""
        return cls(**json.loads(raw))


def encode_checkpoint(
    model: "nn.Module",
    *,
    state: Mapping[str, Any],
    config: Mapping[str, Any],
    thresholds: Mapping[str, float] | None = None,
    curves: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Return the files of a checkpoint but for its record. Nothing in them changes when training goes on."""
    import safetensors.torch
    import torch

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    state_file = io.BytesIO()
    torch.save(dict(state), state_file)
    files = {
        MODEL: safetensors.torch.save(weights),
        STATE: state_file.getvalue(),
        CONFIG: encode_json(config),
    }
    if thresholds is not None:
        files[THRESHOLDS] = encode_json(thresholds)
    if curves is not None:
        files[CURVES] = (json.dumps(dict(curves)) + "\n").encode()
    return files


class Checkpoint:
    """The checkpoint `name` in the run folder that `run` opens; without a name, the folder itself is one."""

    def __init__(self, run: Objects, name: str) -> None:
        self._run, self.name = run, name
        self._prefix = f"{name}/" if name else ""
        self.uri = f"{run.uri}/{name}" if name else run.uri

    def load_weights(self, model: "nn.Module") -> None:
        """Put the weights into `model`. Raises RuntimeError naming missing and unexpected weights."""
        import safetensors.torch

        model.load_state_dict(safetensors.torch.load(self.read(MODEL)))

    def state(self) -> dict[str, Any]:
        """The training state, on the CPU."""
        import torch

        state: dict[str, Any] = torch.load(io.BytesIO(self.read(STATE)), map_location="cpu", weights_only=True)
        return state

    def thresholds(self) -> dict[str, float]:
        """The threshold per region that was best on the validation cases."""
        thresholds: dict[str, float] = json.loads(self.read(THRESHOLDS))
        return thresholds

    def has(self, file: str) -> bool:
        """Whether the checkpoint has `file`."""
        return self._run.get(f"{self._prefix}{file}") is not None

    def read(self, file: str) -> bytes:
        """The bytes of `file`; raises InputError where it is missing."""
        content = self._run.get(f"{self._prefix}{file}")
        if content is None:
            raise InputError(f"wanted {file} in {self.uri}, found none; delete that folder to use an earlier one")
        return content
