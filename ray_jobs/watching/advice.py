"""Where a run's time went, and one sentence on what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ray_jobs.watching.step_clock import STEP_PARTS

Verdict = Literal["data", "communication", "validation", "checkpoints", "start", "compute"]

# The share of its time that a run may spend on each before it is bound by it: of the steps' time for what the steps
# do, of all its time for the rest.
BEARABLE: dict[Verdict, float] = {
    "data": 0.05,
    "communication": 0.10,
    "validation": 0.30,
    "checkpoints": 0.05,
    "start": 0.30,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the run ran on and with, as far as it decides what would help."""

    device: Literal["cpu", "cuda"]
    precision: str
    compiled: bool
    world_size: int
    validation_every: int


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What the run is bound by, and a sentence that says what to do."""

    verdict: Verdict
    sentence: str


def advise(seconds: Mapping[str, float], setting: Setting) -> Advice:
    """Return advice for a run that spent `seconds` on the parts of its steps, validation, checkpoints and other things.

    The verdict is what exceeds its bearable share most; where nothing does, the run computes, as it should.
    """
    share = _shares(seconds)
    excess = {verdict: share[verdict] / bearable for verdict, bearable in BEARABLE.items()}
    worst = max(excess, key=lambda verdict: excess[verdict])
    verdict: Verdict = worst if excess[worst] > 1 else "compute"
    percent = f"{share[verdict]:.0%}"
    sentences: dict[Verdict, str] = {
        "data": f"data-bound: {percent} of the steps' time went by waiting for batches; {_feed_faster(setting)}",
        "communication": f"communication-bound: {percent} of the steps' time went to sums over {setting.world_size} "
        "workers that no computing hid; if one of them is slower than the others mend that, else send gradients in 16 "
        "bits (--parallel.gradient-compression bf16), raise --sampling.global-batch-size, or take fewer workers on a "
        "faster network",
        "validation": f"validation-bound: {percent} of the time went to scoring whole cases; give --validation.every "
        f"{2 * setting.validation_every}, or a smaller --validation.overlap",
        "checkpoints": f"checkpoint-bound: {percent} of the time went to saving; save less often, or to a nearer place",
        "start": f"too short to judge: {percent} of the time went to starting, ending and other work between the steps",
        "compute": f"compute-bound, as it should be: {percent} of the steps' time the device computed; "
        f"{_compute_faster(setting)}",
    }
    return Advice(verdict=verdict, sentence=sentences[verdict])


def _shares(seconds: Mapping[str, float]) -> dict[Verdict, float]:
    # A clock that has counted nothing gives shares of nothing.
    steps = sum(seconds[part] for part in STEP_PARTS) or 1.0
    total = sum(seconds.values()) or 1.0
    return {
        "data": seconds["wait"] / steps,
        "communication": seconds["communication"] / steps,
        "validation": seconds["validation"] / total,
        "checkpoints": seconds["checkpoints"] / total,
        "start": seconds["other"] / total,
        "compute": sum(seconds[part] for part in ("forward", "backward", "optimiser")) / steps,
    }


def _feed_faster(setting: Setting) -> str:
    cheaper = (
        "let the cache hold the cohort (--cache-gb), else cut several patches a case (--sampling.patches-per-case)"
    )
    if setting.device == "cpu":
        return f"{cheaper}, or augment less: on a CPU the loader and the network share the cores"
    return f"raise --read-threads and --ready-batches, and {cheaper}"


def _compute_faster(setting: Setting) -> str:
    if setting.device == "cpu":
        return "a GPU is the next step"
    if setting.precision == "float32":
        return "give --precision auto: mixed precision uses the tensor cores"
    if not setting.compiled:
        return "try --execution.compile True, then a larger GPU or more of them"
    return "a larger GPU, or more of them, is what is left"
