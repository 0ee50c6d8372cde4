"""Each verdict from times that show it, and none where a run computes."""

import dataclasses
import re

import pytest

from ray_jobs.settings.presets import preset
from ray_jobs.watching.advice import BEARABLE, Advice, Setting, Verdict, advise
from ray_jobs.watching.step_clock import ASIDE, STEP_PARTS

GPU = Setting(device="cuda", precision="float16", compiled=False, world_size=4, validation_every=2)
CPU = dataclasses.replace(GPU, device="cpu", precision="float32", world_size=2)


def spent(**seconds: float) -> dict[str, float]:
    healthy = {"wait": 1.0, "forward": 30.0, "backward": 60.0, "communication": 2.0, "optimiser": 3.0}
    return {**dict.fromkeys((*STEP_PARTS, *ASIDE, "other"), 0.0), **healthy, "other": 5.0, **seconds}


@pytest.mark.parametrize(
    ("seconds", "verdict", "says"),
    [
        (spent(), "compute", "--execution.compile"),
        (spent(wait=40.0), "data", "--read-threads"),
        (spent(communication=40.0), "communication", "over 4 workers"),
        (spent(validation=150.0), "validation", "--validation.every 4"),
        (spent(checkpoints=30.0), "checkpoints", "save less often"),
        (spent(other=500.0), "start", "too short to judge"),
    ],
)
def test_each_verdict(seconds: dict[str, float], verdict: Verdict, says: str) -> None:
    advice = advise(seconds, GPU)
    assert advice.verdict == verdict
    assert says in advice.sentence


def test_the_share_is_of_the_steps_time_for_what_steps_do() -> None:
    advice = advise(spent(wait=95.0, forward=30.0, validation=50.0), GPU)
    assert advice.verdict == "data"
    assert re.search(r"\b50%", advice.sentence)  # of 190 s of steps, not of all 245 s


def test_the_worst_of_two_is_named() -> None:
    shares = spent(wait=10.0, communication=40.0)
    assert advise(shares, GPU).verdict == "communication"
    assert advise(spent(wait=30.0, communication=15.0), GPU).verdict == "data"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (CPU, "a GPU"),
        (dataclasses.replace(GPU, precision="float32"), "--precision auto"),
        (GPU, "--execution.compile True"),
        (dataclasses.replace(GPU, compiled=True), "larger GPU"),
    ],
)
def test_what_makes_computing_faster_depends_on_what_is_in_use(setting: Setting, says: str) -> None:
    assert says in advise(spent(), setting).sentence


def test_on_a_cpu_more_threads_are_not_advised() -> None:
    sentence = advise(spent(wait=40.0), CPU).sentence
    assert "threads" not in sentence
    assert "--cache-gb" in sentence


def test_a_run_without_steps_gets_advice_too() -> None:
    nothing = dict.fromkeys(spent(), 0.0)
    assert isinstance(advise(nothing, CPU), Advice)


def test_every_verdict_but_compute_has_its_limit() -> None:
    assert {*BEARABLE, "compute"} == set(Verdict.__args__)


@pytest.mark.parametrize("setting", [GPU, CPU, dataclasses.replace(GPU, precision="float32")])
def test_every_flag_that_is_advised_exists(setting: Setting) -> None:
    bound = {"wait": 90.0, "communication": 90.0, "validation": 900.0, "checkpoints": 900.0, "forward": 900.0}
    sentences = [advise(spent(**{part: seconds}), setting).sentence for part, seconds in bound.items()]
    flags = {flag for sentence in sentences for flag in re.findall(r"--([a-z.-]+)", sentence)}
    assert len(flags) >= 5
    for flag in flags:
        value: object = preset("demo")
        for name in flag.replace("-", "_").split("."):
            assert hasattr(value, name), f"there is no --{flag}"
            value = getattr(value, name)
