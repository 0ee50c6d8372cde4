"""`python ray_jobs/tune.py` as users type it: a whole search, a search that was cut off, thresholds as trials."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import ray
import torch
from ray.tune.search.optuna import OptunaSearch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.lookup import find_checkpoints
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.searching.scheduler import read_reports
from ray_jobs.searching.search import most_at_once, signals_raised, was_under_way
from ray_jobs.searching.space import parse_space, set_fields
from ray_jobs.settings.command import parse_training
from ray_jobs.settings.exit_status import StoppedBySignalError
from ray_jobs.training.planning import Decided
from storage import CohortStore

ROOT = Path(__file__).parents[3]
GRID = ("--algorithm", "grid", "--scheduler", "none")
CPU = torch.device("cpu")
PATIENCE_SECONDS = 240


def read_results(search: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((search / "results.json").read_text())
    return found


def reports_of_trials(search: Path) -> list[list[dict[str, Any]]]:
    """What each trial told Tune, in order."""
    files = sorted(search.glob("trial_*/result.json"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def hparams_of_trials(search: Path) -> Iterator[tuple[dict[str, float], set[str]]]:
    """What TensorBoard's HParams tab reads of each trial: the values, and the names of the metrics."""
    for file in search.glob("trial_*/events.*"):
        data = EventAccumulator(str(file)).Reload().summary_metadata
        values: dict[str, float] = {}
        metrics: set[str] = set()
        for name, metadata in data.items():
            if metadata.plugin_data.plugin_name != "hparams":
                continue
            content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
            if name == "_hparams_/session_start_info":
                values = {key: value.number_value for key, value in content.session_start_info.hparams.items()}
            if name == "_hparams_/experiment":
                metrics = {each.name.tag for each in content.experiment.metric_infos}
        yield values, metrics


@pytest.mark.processes
@pytest.mark.usefixtures("on_shared_head")
def test_a_search_of_four_trials_two_at_a_time_of_which_two_fail(
    tmp_path: Path, phantom_store: CohortStore, small_arguments: Sequence[str], run_here
) -> None:
    arguments = ["--store", phantom_store.uri, "--name", "search", "--workers", "1", *small_arguments, *GRID]
    arguments += ["--sampling.patches-per-epoch", "24"]
    # With the larger weight the loss is infinite, which the trainer bears for ten steps.
    arguments += ["--space", "optimiser.learning-rate=choice:0.001,0.01", "loss.voxel-weight=choice:1,1e39"]
    arguments += ["--price-per-node-hour", "0.5", "--max-failures", "0", "--objective", "dice"]
    done = run_here("tune.py", *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    search = tmp_path / "runs" / "search"
    found = read_results(search)
    rows = found["trials"]
    assert [row["status"] for row in rows] == ["finished", "finished", "failed", "failed"]
    tried = [(row["values"]["optimiser.learning_rate"], row["values"]["loss.voxel_weight"]) for row in rows]
    assert sorted(tried) == [(0.001, 1), (0.001, 1e39), (0.01, 1), (0.01, 1e39)]
    assert all(row["values"]["loss.voxel_weight"] == 1 for row in rows[:2])
    assert "wanted finite gradients" in rows[3]["error"] and "wanted finite gradients" in done.stdout
    assert rows[0]["dice"]["mean"] >= rows[1]["dice"]["mean"]
    assert (found["rules"], found["objective"]) == ("plain", "dice")
    for row in rows[:2]:
        assert set(row["threshold"]) == {"WT", "TC", "ET"}
        assert set(row["dice"]) == set(row["iou"]) == {"WT", "TC", "ET", "mean"}
        assert row["epochs"] == 2 and row["patches_per_second"] > 0
        nodes = 1 / found["pricing"]["workers_per_node"]
        assert row["cost"] == pytest.approx(0.5 * nodes * row["seconds"] / 3600, rel=0.01)
    # Two at a time: some trial starts before another ends.
    spans = [
        (reports[0]["timestamp"] - reports[0]["time_this_iter_s"], reports[-1]["timestamp"])
        for reports in reports_of_trials(search)
        if reports
    ]
    assert any(a[0] < b[1] and b[0] < a[1] for a in spans for b in spans if a != b)

    # The best checkpoint is a whole one, with the thresholds of its row.
    best = open_trained(str(search / "best"), CPU)
    assert open_trained(str(search), CPU).uri == best.uri
    assert best.decision is not None and best.config.objective == "dice"
    assert best.decision.thresholds == pytest.approx(tuple(rows[0]["threshold"].values()))
    assert best.config.optimiser.learning_rate == rows[0]["values"]["optimiser.learning_rate"]
    assert (search / "search.png").stat().st_size > 10_000
    links = re.findall('href="(trials/[^"]*)"', (search / "report.html").read_text())
    assert len(links) == 2 and all("Finished" in (search / link).read_text() for link in links)
    filled = [(values, metrics) for values, metrics in hparams_of_trials(search) if values]
    assert {values["optimiser.learning_rate"] for values, _ in filled} == {0.001, 0.01}
    assert all("ray/tune/iou_mean" in metrics and "ray/tune/threshold_WT" in metrics for _, metrics in filled)

    again = run_here("tune.py", *arguments)
    assert again.returncode == 0 and "is finished" in again.stdout


@pytest.mark.processes
@pytest.mark.usefixtures("on_shared_head")
def test_trials_are_scored_on_all_cases_out_of_fold(
    tmp_path: Path, phantom_store: CohortStore, small_arguments: Sequence[str], run_here
) -> None:
    arguments = ["--store", phantom_store.uri, "--name", "search", "--workers", "1", *small_arguments, *GRID]
    arguments += ["--space", "optimiser.learning_rate=choice:0.01,0.001", "--splits.folds", "2", "--epochs", "1"]
    done = run_here("tune.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    found = read_results(tmp_path / "runs" / "search")
    assert [row["status"] for row in found["trials"]] == ["finished"] * 2
    for row in found["trials"]:
        whole = json.loads((Path(row["run"]) / "summary.json").read_text())
        assert row["checkpoint"] == row["run"] and len(whole["by_case"]) == 6
        for region, score in row["iou"].items():
            assert score == pytest.approx(whole["out_of_fold"]["iou"][region]["mean"])
            assert score == pytest.approx(sum(own["iou"][region] for own in whole["by_case"].values()) / 6)
        assert set(row["threshold"]) == {"WT", "TC", "ET"} and row["epochs"] == 1
    best, other = found["trials"]
    assert best["iou"]["mean"] >= other["iou"]["mean"] and found["best"]["checkpoint"] == best["run"]
    networks = [open_trained(each.uri, CPU) for each in find_checkpoints(best["run"])]
    assert [network.config.splits.fold for network in networks] == [0, 1]
    assert {network.config.optimiser.learning_rate for network in networks} == {*best["values"].values()}
    assert f"checkpoint {best['run']}" in done.stdout and "on all cases, out of fold" in done.stdout
    assert (tmp_path / "runs" / "search" / "search.png").is_file()


@pytest.mark.system
def test_a_killed_search_goes_on_where_it_was(
    tmp_path: Path,
    phantom_store: CohortStore,
    small_arguments: Sequence[str],
    command,
    losses_by_step: Callable[[Path], dict[int, set[float]]],
) -> None:
    """With the defaults: Optuna chooses, ASHA stops. A search killed in its second trial remembers the first."""
    arguments = ["--store", phantom_store.uri, "--name", "search", "--workers", "1", *small_arguments]
    # This seed's rates are a middling, a good and a poor one, so ASHA lets the second go on and stops the third.
    arguments += ["--epochs", "6", "--max-concurrent", "1", "--trials", "3", "--search-seed", "1"]
    search, home = tmp_path / "runs" / "search", tmp_path / "home"
    home.mkdir()
    script = [sys.executable, str(ROOT / "ray_jobs" / "tune.py"), *arguments]
    with (tmp_path / "log").open("w") as log:
        # Tune writes down what it knows every ten seconds, which is a trial here.
        variables = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "1"}
        first = subprocess.Popen(script, cwd=tmp_path, env=variables, stdout=log, stderr=log)
    try:
        # One trial through, the other in the middle.
        wait_until(lambda: "epoch 2 of 6" in (tmp_path / "log").read_text().partition("finished")[2], first, tmp_path)
        outliving = psutil.Process(first.pid).children(recursive=True)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    (finished_id,) = re.findall(r"^trial (\w+) .* finished$", (tmp_path / "log").read_text(), re.MULTILINE)
    finished = search / "trials" / finished_id
    (cut_off,) = [run for run in (search / "trials").iterdir() if run != finished]
    before = {file.name: file.stat().st_mtime_ns for file in finished.iterdir()}
    _, alive = psutil.wait_procs(
        outliving, timeout=PATIENCE_SECONDS
    )  # the killed driver's workers take a moment to end
    assert alive == []

    refused = command("tune.py", *arguments)
    assert refused.returncode == 2 and "--resume" in refused.stderr

    done = command("tune.py", *arguments, "--resume", timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = read_results(search)["trials"]
    run_of = {Path(row["run"]): row for row in rows}
    (last,) = set(run_of) - {finished, cut_off}
    assert [run_of[run]["status"] for run in (finished, cut_off, last)] == ["finished", "finished", "stopped"]
    # The last is measured by the two before it: a search that had forgotten them would train it to the end.
    assert [run_of[run]["epochs"] for run in (finished, cut_off)] == [6, 6]
    assert [epoch for trial_id, epoch, _ in heard_by_scheduler(search) if trial_id == last.name] == [1]
    rates = [run_of[run]["values"]["optimiser.learning_rate"] for run in (finished, cut_off, last)]
    assert rates == pytest.approx(rates_of_optuna(seed=1, trials=3))
    assert {file.name: file.stat().st_mtime_ns for file in finished.iterdir()} == before
    for row in rows:
        best = CheckpointStore(row["run"]).best()
        assert best is not None and row["iou"]["mean"] == best.score
    # The other went on from its checkpoint: no line for its first epochs again, and its steps are done once.
    own = [line for line in done.stdout.splitlines() if line.startswith(f"trial {cut_off.name}")]
    assert own and not [line for line in own if "epoch 1 of 6" in line or "epoch 2 of 6" in line]
    # What the scheduler heard in either start is there for a third.
    assert {trial_id for trial_id, _, _ in heard_by_scheduler(search)} == {
        run.name for run in (finished, cut_off, last)
    }
    losses = losses_by_step(cut_off)
    assert sorted(losses) == list(range(1, 19)) and all(len(values) == 1 for values in losses.values())


def test_as_many_trials_at_once_as_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    decided = Decided(plan=None, store_digest="", regions=(), workers=2, least_workers=2, use_gpu=False)  # type: ignore[arg-type]

    def at_once(**resources: float) -> int:
        monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
        return most_at_once(decided)

    assert (at_once(CPU=4), at_once(CPU=1), at_once(CPU=4, tune_driver=8)) == (2, 1, 2)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # whose drivers wait for their workers' place
    assert (at_once(CPU=4, tune_driver=8), at_once(CPU=4)) == (8, 2)


def test_a_search_of_which_tune_knows_no_trial_yet_starts_anew(tmp_path: Path) -> None:
    """Tuner.restore would go on with one trial of no values."""
    folder = RunFolder(str(tmp_path), "search")
    folder.put("tuner.pkl", b"as Tune leaves it first")
    assert not was_under_way(folder)
    folder.put("experiment_state-2026-11-26_08-00-00.json", b"{}")
    assert was_under_way(folder)


def heard_by_scheduler(search: Path) -> list[tuple[str, int, float]]:
    """Trial, epoch and score as they were reported, in all starts."""
    reports = read_reports(RunFolder(str(search.parent), search.name))
    return [(trial_id, *each) for trial_id, own in reports.items() for each in own]


def rates_of_optuna(*, seed: int, trials: int) -> list[float]:
    """What an uninterrupted search tries; the scores do not yet matter for so few."""
    space = {"rate": optuna.distributions.FloatDistribution(3e-4, 3e-2, log=True)}
    searcher = OptunaSearch(space=space, metric="iou_mean", mode="max", seed=seed)
    return [searcher.suggest(str(trial))["rate"] for trial in range(trials)]


def test_arguments_of_an_imported_network_are_fields() -> None:
    base = parse_training(["--model.network", "a:b", "--model.arguments", "width=4", "depth=2"])
    (domain,) = parse_space(("model.arguments.width=integer:8:16",), base).values()
    assert domain.examples == (8, 16)
    searched = set_fields(base, {"model.arguments.width": 8, "optimiser.learning_rate": 0.01})
    assert searched.model.arguments == ("depth=2", "width=8") and searched.optimiser.learning_rate == 0.01
    assert set_fields(base, {"model.arguments.norm": "batch"}).model.arguments[-1] == "norm=batch"


def test_bad_searches_are_one_line(phantom_store: CohortStore, run_here) -> None:
    store, own = ["--store", phantom_store.uri], ["--model.network", "tests.own_networks:Plain"]
    for arguments, says in (
        (["--space", "weight_decay=loguniform:1:2"], "did you mean optimiser.weight_decay"),
        (["--space", "epochs=choice:0"], "--epochs must be at least 1"),
        (["--algorithm", "grid"], "--algorithm grid wants"),
        (["--search", "threshold"], "--checkpoint go together"),
        (["--preset", "brats3d", "--space", "model.norm_groups=choice:4,8"], "give --sampling.patch-shape"),
        ([*own, "--space", "model.norm_groups=choice:4,8"], "is no field of a run that can be searched"),
        ([*own, "--space", "model.arguments=choice:a,b"], "is no field of a run that can be searched"),
        ([*own, "--space", "model.arguments.depth=choice:4,8"], "has no argument depth, did you mean width?"),
        (
            [*own, "--space", "model.arguments.width=choice:4,-8"],
            "Plain(width=-8, in_channels=4, out_channels=3) fails",
        ),
        (["--space", "model.arguments.width=choice:4,8"], "is no field of a run that can be searched"),
    ):
        done = run_here("tune.py", *store, *arguments)
        assert done.returncode == 2 and says in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_search_at_once_and_says_how_it_goes_on(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(StoppedBySignalError, match="stopped by signal") as ended, signals_raised():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert ended.value.status == 128 + number and "--resume" in ended.value.remedy
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("what_came_of_it", [SystemError("returned a result with an exception set"), None])
def test_what_libraries_make_of_the_signal_does_not_matter(what_came_of_it: Exception | None) -> None:
    """Ray's C code waits when the signal comes, and covers what the handler raises; Tune may pass over it."""
    with pytest.raises(StoppedBySignalError) as ended, signals_raised():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except StoppedBySignalError as error:
            if what_came_of_it is not None:
                raise what_came_of_it from error
    assert ended.value.status == 128 + signal.SIGTERM and "--resume" in ended.value.remedy


def wait_until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", folder: Path) -> None:
    for _ in range(600):
        if ready():
            return
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.5)
    raise AssertionError((folder / "log").read_text())
