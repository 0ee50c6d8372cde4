"""A checkpoint folder: weights anyone can load, and all state that an exact resume needs.

model.safetensors   the weights that were scored, under plain names, without wrapper prefixes
state.pt            optimiser, schedule, scaler, loader position and all else; loads with weights_only=True
config.json         the resolved configuration, the store's digest, modalities and regions, each in the network's order
decision.json       what makes regions of its probabilities: 0.5 or the thresholds that were given, and in the best
                    checkpoint, from the run's end on, what was chosen; only where the checkpoint closes epochs that end
                    with a validation. Earlier versions wrote thresholds.json, without what is left out.
curves.json         IoU and Dice of each region at every threshold, on the validation cases, where there are any
cases.json          IoU and Dice of each validation case by the decision of that moment, and whose exam it is
evidence.npz        in the best checkpoint: what the decision was chosen by (models/evidence.py)
record.json         epoch, step, scores, whose rules they follow and which is maximised, by thresholds and by the choice
                    of the best checkpoint; written last, so a folder with it is whole
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from ray_jobs.checkpoints.run_folder import CONFIG, decode_json, encode_json
from ray_jobs.settings.objective import RULES, Objective
from scoring import RulesName
from storage import InputError
from storage.store.objects import Objects

if TYPE_CHECKING:  # PyTorch is imported where weights are touched: a checkpoint is found and read without it
    from torch import nn

MODEL, STATE, RECORD = "model.safetensors", "state.pt", "record.json"
DECISION, CURVES, CASES, EVIDENCE = "decision.json", "curves.json", "cases.json", "evidence.npz"
FORMER_DECISION = "thresholds.json"


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
        """The inverse of `encode`; raises InputError where it is none."""
        try:
            return cls(**json.loads(raw))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"wanted a {RECORD} that says epoch and step of its checkpoint, found another ({error}): delete the "
                "folder that it lies in to use an earlier checkpoint"
            ) from error


def encode_checkpoint(
    model: "nn.Module",
    *,
    state: Mapping[str, Any],
    config: Mapping[str, Any],
    decision: Mapping[str, Any] | None = None,
    curves: Mapping[str, Any] | None = None,
    cases: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Return the files of a checkpoint but for its record. Nothing in them changes when training goes on."""
    import safetensors.torch
    import torch

    weights: dict[str, torch.Tensor] = {}
    lying = set[int]()
    for name, tensor in model.state_dict().items():
        weight = tensor.detach().cpu().contiguous()
        # A layer that a network has under two names, as MONAI's DynUNet, is written twice: its library asks for both.
        weights[name] = weight.clone() if weight.data_ptr() in lying else weight
        lying.add(weight.data_ptr())
    state_file = io.BytesIO()
    torch.save(dict(state), state_file)
    files = {
        MODEL: safetensors.torch.save(weights),
        STATE: state_file.getvalue(),
        CONFIG: encode_json(config),
    }
    if decision is not None:
        files[DECISION] = encode_json(decision)
    if curves is not None:
        files[CURVES] = (json.dumps(dict(curves)) + "\n").encode()
    if cases is not None:
        files[CASES] = encode_json(cases)
    return files


class Checkpoint:
    """The checkpoint `name` in the run folder that `run` opens; without a name, the folder itself is one."""

    def __init__(self, run: Objects, name: str) -> None:
        self._run, self.name = run, name
        self._prefix = f"{name}/" if name else ""
        self.uri = f"{run.uri}/{name}" if name else run.uri

    def load_weights(self, model: "nn.Module") -> None:
        """Put the weights into `model`.

        Raises RuntimeError naming missing and unexpected weights, InputError where the file is cut off.
        """
        import safetensors.torch

        try:
            weights = safetensors.torch.load(self.read(MODEL))
        except safetensors.SafetensorError as error:
            raise InputError(f"{self.uri}/{MODEL} is damaged ({error}): give another checkpoint") from error
        model.load_state_dict(weights)

    def state(self) -> dict[str, Any]:
        """The training state, on the CPU."""
        import torch

        state: dict[str, Any] = torch.load(io.BytesIO(self.read(STATE)), map_location="cpu", weights_only=True)
        return state

    def has(self, file: str) -> bool:
        """Whether the checkpoint has `file`."""
        return self._run.get(f"{self._prefix}{file}") is not None

    def put(self, file: str, content: bytes) -> None:
        """Write another file into it, whole or not at all; raises InputError where it cannot be."""
        self._run.put(f"{self._prefix}{file}", content)

    def read_json(self, file: str) -> dict[str, Any]:
        """What JSON `file` says; raises InputError where it is missing or none."""
        return decode_json(self.read(file), f"{self.uri}/{file}")

    def read(self, file: str) -> bytes:
        """The bytes of `file`; raises InputError where it is missing."""
        content = self._run.get(f"{self._prefix}{file}")
        if content is None:
            raise InputError(f"wanted {file} in {self.uri}, found none; delete that folder to use an earlier one")
        return content
