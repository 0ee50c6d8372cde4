"""What scoring anybody's segmentations is told."""

from dataclasses import dataclass

from ray_jobs.settings.groups import refuse_below_one
from ray_jobs.settings.label_choice import told_task
from scoring import RulesName


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Score segmentations, whoever made them, against their labels, by the rules of a BraTS year or plain ones."""

    prediction: str
    """Folder, .zip or .tar with predicted segmentations as NIfTI, at any depth, called after their cases."""
    label: str
    """The same of labels, such as a folder of BraTS cases, or a store: a path or an s3:// URL."""
    output: str
    """Folder for the scores and the report: a path or an s3:// URL."""
    task: str | None = None
    """Which task the cases are of: its regions are scored, and its values read. Default: as the store or the cases'
    names say."""
    rules: RulesName | None = None
    """Whose rules. Default: those of the task's year, plain for tasks without any; see docs/scores.md."""
    trust_grid: bool = False
    """Take files of equal shape to lie alike where headers put them elsewhere; see convert.py."""
    workers: int | None = None
    """Cases scored at once. Default: one per CPU of this machine, or of the cluster as far as there are."""

    def __post_init__(self) -> None:
        refuse_below_one(self, "workers")
        told_task(self.task)
