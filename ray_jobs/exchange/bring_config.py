"""What is told where a network of another program is brought here."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class BringConfig:
    """Make a checkpoint of another program's network, which predict.py then runs as that program does."""

    kind: Positional[Literal["nnunet"]]
    """nnunet: a results folder of nnU-Net v2 with plans.json, dataset.json and fold_*."""
    folder: Positional[str]
    """That folder."""
    output: str
    """New folder or s3:// URL for the checkpoint."""
    fold: str | None = None
    """Which fold: 0 to 4, or all. Default: the only one."""
    file: str = "checkpoint_final.pth"
    """Which of the fold's checkpoints."""
    task: str = "gli-2021"
    """Which task its labels are of, as convert.py names them: by its regions segmentations are made and scored."""
