"""What is saved with the best weights and drawn at the end of a run."""

from collections.abc import Sequence

from models import Decision
from ray_jobs.checkpoints.checkpoint import DECISION, EVIDENCE, Checkpoint
from ray_jobs.checkpoints.run_folder import encode_json
from ray_jobs.evaluation.case_image import CaseImage
from ray_jobs.evaluation.decision_file import encode_decision
from ray_jobs.evaluation.verdict import Verdict
from ray_jobs.on_ray.session import Session
from ray_jobs.pictures.figures import draw_cross_section
from ray_jobs.watching.monitoring import Monitor


def keep_decision(verdict: Verdict, checkpoint: Checkpoint) -> None:
    """Save the decision with the weights that it is for, and what it was chosen by."""
    if verdict.validation.evidence is not None:
        checkpoint.put(EVIDENCE, verdict.validation.evidence.encode())
    checkpoint.put(DECISION, encode_json(encode_decision(verdict.decision, verdict.validation.curves.regions)))


def draw_cases(images: Sequence[CaseImage], decision: Decision, session: Session, monitor: Monitor) -> None:
    """Draw cross-sections into the run folder; a disk that is full costs them, not the run."""
    try:
        for image in images:
            draw_cross_section(image, decision).savefig(session.artifacts / f"cross_section_{image.case_id}.png")
    except OSError as error:
        monitor.tell(f"cross-sections are missing: {error}")
