"""The GPU check without a GPU: how it goes on, stops and records, and what its checks make of what they see."""

import contextlib
import dataclasses
import faulthandler
import json
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks import gpu_check
from benchmarks.__main__ import main
from benchmarks.gpu_check import CHECKS, Check, run_checks
from benchmarks.gpu_checks import short_run, steps, synchronisations
from benchmarks.gpu_checks.bench import Bench, Finding
from benchmarks.gpu_checks.feed import check_one_batch, measure_loader_alone, measure_waits, problems_of
from benchmarks.gpu_checks.parity import OPERATIONS, check_mixture, chosen, compare_graphs
from benchmarks.stores import open_cohort
from dali_pipelines import AugmentationConfig, Batch
from ray_jobs.settings.exit_status import run_command
from storage import DecodedCaseCache, open_store

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


class Clock:
    """Seconds that are left; nobody waits for them."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = seconds

    def left(self) -> float:
        return self.seconds


def make_bench(clock: Clock | None = None, **fields: Any) -> Bench:
    """A bench that has nothing but time, unless it is given more."""
    given = {"cache": None, "device": CPU, "side": 16, "folder": Path()} | fields
    return Bench(seconds_left=(clock or Clock()).left, **given)


def passing(_: Bench) -> Iterator[Finding]:
    yield Finding(passed=True, figures="as it should be")


def breaking(_: Bench) -> Iterator[Finding]:
    yield Finding(what="first", passed=True, figures="well")
    raise RuntimeError("no kernel\n  image")


def failing(_: Bench) -> Iterator[Finding]:
    yield Finding(passed=False, figures="2 labels differ")


def named(checks: Sequence[Check], bench: Bench) -> dict[str, tuple[str, str]]:
    return {row["check"]: (row["passed"], row["figures"]) for row in run_checks(checks, bench)}


def test_an_error_costs_its_check_alone(capsys: pytest.CaptureFixture[str]) -> None:
    found = named([Check(name="a", work=breaking), Check(name="b", work=passing)], make_bench())
    assert found == {
        "a: first": ("yes", "well"),
        "a": ("NO", "RuntimeError: no kernel image"),
        "b": ("yes", "as it should be"),
    }
    assert "in breaking" in capsys.readouterr().err  # where it came from


def test_the_last_checks_are_left_out_and_named() -> None:
    clock, begun = Clock(100), []

    def taking(seconds: float) -> Callable[[Bench], Iterator[Finding]]:
        def work(_: Bench) -> Iterator[Finding]:
            begun.append(seconds)
            clock.seconds -= seconds
            yield Finding(figures="done")

        return work

    checks = [
        Check(name="quick", work=taking(60), seconds=5),
        Check(name="long", work=taking(1), seconds=50),
        Check(name="would fit", work=taking(2), seconds=5),
    ]
    rows = list(run_checks(checks, make_bench(clock)))
    assert begun == [60]
    assert [(row["check"], row["passed"], row["s"]) for row in rows] == [
        ("quick", "-", 60),
        ("long", "left out", 0),
        ("would fit", "left out", 0),
    ]
    assert all("--minutes" in row["figures"] for row in rows[1:])


def test_a_check_that_has_begun_takes_the_steps_that_there_is_time_for() -> None:
    clock, taken = Clock(10), []

    def step() -> None:
        clock.seconds -= 4
        taken.append(clock.seconds)

    assert steps.seconds_a_step(step, make_bench(clock), steps=20) >= 0
    assert taken == [6, 2, -2]
    steps.seconds_a_step(step, make_bench(clock), steps=20)
    assert len(taken) == 4  # one gives a figure at least


def test_what_a_cpu_cannot_show_is_left_out_with_its_reason() -> None:
    found = named([Check(name="memory", work=breaking, needs_gpu="it has none")], make_bench())
    assert found == {"memory": ("left out", "needs a GPU: it has none")}


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch, store_uri: str, tmp_path: Path) -> Callable[..., int]:
    """Run the command with these checks instead of its own; returns its status."""
    monkeypatch.setattr(gpu_check, "describe_origin", lambda title: {"title": title})  # asks git

    def run(*checks: Check, minutes: str = "5") -> int:
        monkeypatch.setattr(gpu_check, "CHECKS", checks)
        typed = ["--device", "cpu", "--store", store_uri, "--minutes", minutes, "--json", str(tmp_path / "found.json")]
        return run_command(lambda _: main(["gpu-check", *typed]))

    return run


def test_the_record_is_written_after_each_check(run_with: Callable[..., int], tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def look(_: Bench) -> Iterator[Finding]:
        seen.append([row["check"] for row in json.loads((tmp_path / "found.json").read_text())["rows"]])
        yield Finding(figures="looked")

    first, *others = (Check(name="a", work=passing), Check(name="b", work=look), Check(name="c", work=look))
    assert run_with(first, *others) == 0
    assert seen == [["a"], ["a", "b"]]
    assert [file.name for file in tmp_path.glob("found*")] == ["found.json"]


def test_the_exit_status(
    run_with: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine, late = Check(name="fine", work=passing), Check(name="late", work=failing, seconds=1e9)
    assert run_with(fine, late) == 0
    assert "late: left out" in capsys.readouterr().out
    assert run_with(Check(name="bad", work=failing), fine) == 1
    assert run_with(Check(name="broken", work=breaking), fine) == 1
    assert run_with(fine, minutes="0") == 2
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run_command(lambda _: main(["gpu-check"])) == 2
    assert "wanted a GPU" in capsys.readouterr().err


def test_one_that_hangs_is_ended(run_with: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[object] = []

    def arm(seconds: float, *, exit: bool, **_: object) -> None:
        armed.append((seconds, exit))

    monkeypatch.setattr(faulthandler, "dump_traceback_later", arm)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: armed.append("cancelled"))
    run_with(Check(name="a", work=breaking))
    assert armed == [(300 + gpu_check.GRACE_SECONDS, True), "cancelled"]


@pytest.mark.processes
def test_a_minute_on_a_cpu_without_ray_passes(store_uri: str, tmp_path: Path) -> None:
    """As a machine would have it that has neither Ray nor MONAI."""
    target = tmp_path / "found.json"
    typed = ["gpu-check", "--device", "cpu", "--minutes", "1", "--side", "32"]
    typed += ["--store", store_uri, "--json", str(target)]
    script = "import sys; sys.modules.update(ray=None, monai=None); from benchmarks.__main__ import main\n"
    command = [sys.executable, "-c", f"{script}sys.exit(main({typed!r}))"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(target.read_text())["rows"]
    for row in rows:
        assert f"{row['check']}: {row['passed']}, {row['figures']}" in done.stdout
    # Each has its rows, in the order of the list; on a busy machine the last ones may be left out, and say so.
    assert list(dict.fromkeys(row["check"].split(": ")[0] for row in rows)) == [check.name for check in CHECKS]
    assert rows[0]["passed"] == "yes"
    assert {row["passed"] for row in rows} <= {"yes", "-", "left out"}


def test_the_document_explains_each_check() -> None:
    text = (ROOT / "docs" / "gpu.md").read_text()
    for name in {check.name.split(",")[0] if check.name.startswith("parity") else check.name for check in CHECKS}:
        assert f"| {name}" in text, name


def test_every_augmentation_is_checked_alone() -> None:
    fields = {field.name for field in dataclasses.fields(AugmentationConfig)}
    drawn = {name.removesuffix("_probability") for name in fields if name.endswith("_probability")}
    drawn.remove("shift")  # no operation: it is in the normalisation's offsets, which every sample has
    assert set(OPERATIONS) == {name for name in drawn if not name.endswith("_modality")}
    assert [check.name for check in CHECKS if check.name.startswith("parity, ")] == [
        *(f"parity, {name.replace('_', ' ')}" for name in OPERATIONS),
        "parity, all together",
        "parity, normalisation",
    ]


@pytest.mark.slow
def test_a_graph_equals_itself(store_uri: str, tmp_path: Path) -> None:
    cache = DecodedCaseCache(open_store(store_uri), tmp_path, max_bytes=10**9)
    found = list(check_mixture(make_bench(cache=cache, folder=tmp_path)))
    assert [(row.what, row.passed) for row in found] == [("patches", True), ("slices", True)]


@pytest.mark.slow
def test_of_a_large_store_only_the_first_cases_are_ever_decoded(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu_checks.bench.MOST_CASES", 2)
    threads = torch.get_num_threads()
    cache = open_cohort(store_uri, tmp_path, most=2)
    bench = make_bench(cache=cache, folder=tmp_path)
    for check in (check_one_batch, measure_waits, measure_loader_alone, short_run.check_short_run):
        assert all(finding.passed is not False for finding in check(bench))
    torch.set_num_threads(threads)
    assert cache.store.case_ids[:2] == bench.cases
    assert [cache.holds(case_id) for case_id in cache.store.case_ids] == [True, True, False]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoGraphs(Bench):
    """Batches that two graphs gave."""

    on_cpu: Batch
    on_device: Batch

    def open_loader(self, _: Any, __: Any, *, device: str | None = None) -> Any:
        return contextlib.nullcontext([self.on_cpu if device == "cpu" else self.on_device])


@pytest.mark.parametrize(("device", "allowed"), [("cpu", 0.0), ("cuda:0", 9e-3)])
def test_parity_is_no_difference_of_labels_and_little_of_images(device: str, allowed: float) -> None:
    plans: Any = (SimpleNamespace(parameters={"mirror": np.array([False, True]), "noise_on": np.array(0)}),)
    image, regions = torch.zeros(1, 1, 300, 400), torch.zeros(1, 3, 300, 400, dtype=torch.uint8)
    same = Batch(image=image, regions=regions, plans=plans)

    def changed(values: torch.Tensor, to: float, *, voxels: int = 1) -> torch.Tensor:
        other = values.clone()
        other.view(-1)[:voxels] = to
        return other

    def passes(other: Batch, flag: str | None = "mirror") -> bool:
        place = torch.device(device)
        given: dict[str, Any] = {**vars(make_bench(device=place)), "on_cpu": same, "on_device": other}
        bench = TwoGraphs(**given)
        verdicts = [row.passed for row in compare_graphs(bench, chosen(["mirror"], 1.0), flag)]
        assert verdicts in ([True, True], [False, False])
        return verdicts[0] is True

    assert passes(same)
    assert passes(dataclasses.replace(same, image=image + allowed))
    assert not passes(dataclasses.replace(same, image=image + allowed + 2e-3))
    assert not passes(dataclasses.replace(same, regions=changed(regions, 1)))
    for value in (1.0, float("nan")):
        # One voxel of 120,000 may be further off on a GPU.
        assert passes(dataclasses.replace(same, image=changed(image, value))) is (allowed > 0)
        assert not passes(dataclasses.replace(same, image=changed(image, value, voxels=2)))
    # Equal, but no sample has what is to be looked at.
    assert not passes(same, "noise_on")
    assert passes(same, None)


def test_a_batch_is_looked_at() -> None:
    image = torch.randn(2, 4, 3, 3)
    regions = torch.zeros(2, 3, 3, 3, dtype=torch.uint8)
    good = Batch(image=image, regions=regions, plans=())
    assert not list(problems_of(good, CPU))
    assert list(problems_of(good, torch.device("cuda:0"))) == [
        "image lies on cpu, not on cuda:0",
        "regions lies on cpu, not on cuda:0",
    ]
    for wrong, said in (
        ({"image": image / 0}, "image is not finite"),
        ({"image": torch.zeros_like(image)}, "image is the same everywhere"),
        ({"regions": regions + 2}, "regions are no masks"),
    ):
        assert said in list(problems_of(dataclasses.replace(good, **wrong), CPU))  # type: ignore[arg-type]


def test_synchronisations_are_counted_with_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with synchronisations.reported() as seen:
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally at x.cpp:1)", stacklevel=1)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)
    assert modes == ["warn", 0]
    ((place, times),) = synchronisations.places(seen).items()
    assert place.startswith("benchmarks/test_gpu_check.py:") and times == 2


def test_a_step_may_wait_once() -> None:
    once, twice = Counter({"models/precision.py:136": 1}), Counter({"a.py:1": 1, "b.py:2": 1})
    assert synchronisations.summarise([once, Counter(), once]).passed
    found = synchronisations.summarise([once, twice])
    assert not found.passed
    assert "1, 2 in 2 steps" in found.figures and "b.py:2 (1)" in found.figures


def test_what_does_not_fit_is_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_trial(_: Bench, trial: steps.Trial) -> steps.Timed:
        if trial.batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return steps.Timed(first=3.0, each=0.05, allocated=9 * 2**30, reserved=10 * 2**30)

    class Card:
        total_memory = 16 * 2**30

    monkeypatch.setattr(steps, "time_trial", time_trial)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Card)
    one, two, four = steps.measure_batches(make_bench())
    assert one.figures.startswith("9 GiB allocated at most, 10 reserved, 0.00")
    assert "predicted, of 16" in one.figures and one.figures != two.figures  # of a batch twice as large
    assert four.figures.startswith("out of memory, ")
    assert "50 ms a step of 2 x 16^3, 40 patches/s" in steps.speed_in_words(make_bench(), steps.Trial(build=nothing))
    assert steps.speed_in_words(make_bench(), steps.Trial(build=nothing, batch=4)) == "out of memory"


def nothing() -> torch.nn.Module:
    return torch.nn.Identity()


def test_a_peer_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> torch.nn.Module:
        raise ImportError("No module named 'monai.networks'", name="monai.networks")

    monkeypatch.setattr(steps, "list_networks", lambda *_: {"MONAI DynUNet": missing})
    (found,) = steps.compare_peers(make_bench())
    assert found.figures.startswith("monai is not installed") and found.passed is None


RESULT = {
    "history": [{}],
    "time": {"seconds": {"forward": 1.0, "wait": 0.0}},
    "validation": {"iou": {"mean": 0.5}},
    "throughput": {"precision": "bfloat16"},
}


@pytest.fixture
def short_bench(monkeypatch: pytest.MonkeyPatch, store_uri: str, tmp_path: Path) -> Callable[..., list[Finding]]:
    """Do the short run with a loop that ends as it is told: "stops" where asked, or "goes on"."""

    def check(*, difference: float, doubts: set[str], first: str = "stops", second: str = "goes on") -> list[Finding]:
        turns = iter(("goes on", first, second))

        def train(_: Any, session: short_run.ShortSession) -> dict[str, Any]:
            session.losses = [2.0, 1.0]
            turn = next(turns)
            if turn == "fails":
                return {"failed": "no finite gradients"}
            asked = [session.stop_asked() for _ in range(32)]
            return {"stopped": f"after step {asked.index(True) if any(asked) else 0}"} if turn == "stops" else RESULT

        monkeypatch.setattr(short_run, "train", train)
        monkeypatch.setattr(short_run, "compare_weights", lambda *_: difference)
        monkeypatch.setattr(short_run, "repeatable", lambda _: contextlib.nullcontext(doubts))
        cache = DecodedCaseCache(open_store(store_uri), tmp_path, max_bytes=10**9)
        return list(short_run.check_short_run(make_bench(cache=cache, folder=tmp_path)))

    return check


@pytest.mark.parametrize(
    ("difference", "doubts", "passed"), [(0.0, set(), True), (1e-3, set(), False), (1e-3, {"cumsum_cuda"}, None)]
)
def test_a_resume_that_is_not_exact_fails_unless_the_gpu_cannot_repeat_itself(
    difference: float,
    doubts: set[str],
    passed: bool | None,  # noqa: FBT001
    short_bench: Callable[..., list[Finding]],
) -> None:
    training, resume = short_bench(difference=difference, doubts=doubts)
    assert training.passed and "loss 2, then 1" in training.figures
    assert resume.passed is passed
    assert "stopped after step 23" in resume.figures and all(each in resume.figures for each in doubts)


@pytest.mark.parametrize(
    ("first", "second", "passed"),
    [("stops", "stops", None), ("goes on", "goes on", False), ("stops", "fails", False), ("fails", "goes on", False)],
)
def test_a_run_that_does_not_stop_or_fails_is_no_resume(
    first: str,
    second: str,
    passed: bool | None,  # noqa: FBT001
    short_bench: Callable[..., list[Finding]],
) -> None:
    _, resume = short_bench(difference=0.0, doubts=set(), first=first, second=second)
    assert resume.passed is passed


def test_a_gpu_is_told_to_repeat_itself_and_what_cannot_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, bool]] = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda **how: told.append(how))
    with short_run.repeatable(CPU) as doubts:
        assert not told  # a CPU's runs are as they always are
    with pytest.raises(RuntimeError, match="in the middle"), short_run.repeatable(torch.device("cuda:0")) as doubts:
        assert told == [{"mode": True, "warn_only": True}]
        warnings.warn("cumsum_cuda does not have a deterministic implementation, but you set …", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
        raise RuntimeError("in the middle")
    assert told[1:] == [{"mode": False}]
    assert doubts == {"cumsum_cuda does not have a deterministic implementation"}


def test_what_became_of_a_run() -> None:
    config = short_run.preset("demo")
    assert short_run.describe_run(RESULT, [1.0, 1.5], config).passed is False
    assert short_run.describe_run({"failed": "no finite gradients"}, [], config).passed is False
    cut = short_run.describe_run({"stopped": "after step 3 of epoch 1"}, [], config)
    assert cut.passed is None and cut.figures == "stopped after step 3 of epoch 1"


def test_the_newest_weights_are_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(short_run, "newest_name", lambda _: "newest")
    for name, value in (("left", 1.0), ("right", 1.25)):
        (tmp_path / name / "newest").mkdir(parents=True)
        save_file({"a": torch.zeros(2), "b": torch.tensor([0.0, value])}, tmp_path / name / "newest/model.safetensors")
    assert short_run.compare_weights(tmp_path / "left", tmp_path / "right") == 0.25
    assert short_run.compare_weights(tmp_path / "left", tmp_path / "left") == 0
