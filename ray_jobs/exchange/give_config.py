"""What is told where a network is given away or brought here."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

Kind = Literal["onnx", "monai", "nnunet"]


@dataclass(frozen=True, kw_only=True)
class GiveConfig:
    """Write a trained network for another program, with all that it must know, and a model card."""

    kind: Positional[Kind]
    """onnx: model.onnx for any ONNX runtime, normalisation, windows, decision and labels in its metadata. monai: a
    bundle that monai.bundle runs from scans to labels. nnunet: a results folder that nnUNetv2_predict runs."""
    checkpoint: str
    """Folder or s3:// URL of a checkpoint, or of a run: then its best one."""
    output: str
    """Folder or s3:// URL for what is written; what an earlier call wrote there is written over."""
