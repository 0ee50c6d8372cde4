"""What each part of a prediction costs a case: reading, network, writing, scores, figures, one after the other; and
what a case takes as `predict.py --workers 1` does it, all but the first two beside the next case.

`python -m benchmarks prediction --checkpoint runs/NAME --input DIR_OR_STORE`
"""

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.cost import time_call
from benchmarks.device import device_name, find_device
from benchmarks.inference import keep_freed_memory
from benchmarks.report import report
from benchmarks.settings import PredictionBenchmark
from benchmarks.whole_head import store_of
from models import Decision, RegionRules
from ray_jobs.checkpoints.lookup import find_checkpoint, read_modalities
from ray_jobs.checkpoints.trained_on import read_task
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.predicting.finishing import CaseFinisher, Clock
from ray_jobs.predicting.predict_config import InferenceConfig, choose_rules, is_store
from ray_jobs.predicting.prediction import CasePredictor, MakePredictor, PredictionPlan
from ray_jobs.predicting.reading import FolderInput, StoreInput
from storage import MODALITIES, InputError, Task, find_cases, open_store
from storage.scans.task_detection import read_label_values, settle_tasks

NETWORK = "network"
ROUNDS = 2  # the cheapest counts, of each part
CLOCKS = {"CPU-s a case": time.process_time, "s a case": time.perf_counter}
WARM, COUNTED = 2, 6  # cases beside one another: until imports are over, and then


def run(config: PredictionBenchmark) -> None:
    """Predict some cases with each clock, turn about."""
    device = find_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    network = open_trained(config.checkpoint, device)
    checkpoint = find_checkpoint(config.checkpoint)
    task = read_task(checkpoint)
    place = config.input or store_of(config.checkpoint)
    source, case_ids = open_input(place, task, read_modalities(checkpoint) or MODALITIES)
    decision = network.decision or Decision.plain(len(task.regions))
    labels = tuple(region.labels for region in task.regions)
    plan = PredictionPlan(
        checkpoints=(network.uri,),
        source=source,
        rules=RegionRules(labels=labels, **vars(decision)),
        inference=InferenceConfig(),
        probabilities=False,
    )
    predictor = CasePredictor(plan, [network], device)
    finish = CaseFinisher(scored_by=choose_rules(None, task), written=None, figures=True, viewer=True)

    def seconds_of(case_ids: Sequence[str], now: Callable[[], float]) -> dict[str, float]:
        spent: dict[str, float] = {}
        for case_id in case_ids:
            predicted = predictor.predict_by(Clock(now), case_id)
            for part, seconds in finish.finish(predicted, Clock(now)).record["seconds"].items():
                spent[part] = spent.get(part, 0) + seconds / len(case_ids)
        return spent

    wanted = case_ids[: config.cases]
    start = time_call(lambda: seconds_of(wanted[:1], time.perf_counter))  # what the first imports is not counted
    print(f"the first case, with what it imports: {start.cpu:.1f} CPU-s")
    best: dict[str, dict[str, float]] = {unit: {} for unit in CLOCKS}
    for _ in range(ROUNDS):
        for unit, now in CLOCKS.items():
            for part, seconds in seconds_of(wanted, now).items():
                best[unit][part] = min(seconds, best[unit].get(part, seconds))
    rows: list[dict[str, Any]]
    rows = [{"part": part} | {unit: spent[part] for unit, spent in best.items()} for part in next(iter(best.values()))]
    outside = {unit: sum(spent.values()) - spent[NETWORK] for unit, spent in best.items()}
    rows.append({"part": "all but the network"} | outside)
    if find_spec("ray") is None:
        print("what a case takes beside the next is left out: Ray is not installed")
    else:
        a_case, of_network = seconds_beside(plan, finish, wanted, use_gpu=device.type == "cuda")
        beside = {"a case beside the next": a_case, "of it not the network": a_case - of_network}
        rows += [{"part": part, "s a case": seconds} for part, seconds in beside.items()]
    title = f"prediction, {len(wanted)} cases, scores by {finish.scored_by} rules, {device_name(device)}"
    report(title, rows, config.json)


def seconds_beside(
    plan: PredictionPlan, finish: CaseFinisher, case_ids: Sequence[str], *, use_gpu: bool
) -> tuple[float, float]:
    """Seconds from case to case with one worker, and the network's of a case, where other CPUs finish each."""
    from ray_jobs.on_ray.ray_start import ray_running
    from ray_jobs.on_ray.spread import spread_and_finish

    cases = [case_ids[number % len(case_ids)] for number in range(WARM + COUNTED)]
    ended, network = [], []
    with ray_running(dashboard=False):
        make = MakePredictor(plan=plan, use_gpu=use_gpu)
        for outcome in spread_and_finish(make, finish, cases, workers=1, use_gpu=use_gpu):
            if outcome.result is None:
                raise InputError(f"{outcome.item}: {outcome.error}")
            ended.append(time.perf_counter())
            network.append(outcome.result.record["seconds"][NETWORK])
    return (ended[-1] - ended[WARM - 1]) / COUNTED, sum(network[WARM:]) / COUNTED


def open_input(place: str, task: Task, modalities: Sequence[str]) -> tuple[StoreInput | FolderInput, Sequence[str]]:
    """How cases are read, and the labelled ones."""
    if is_store(place):
        return StoreInput(uri=place), [info.case_id for info in open_store(place).infos() if info.labelled]
    found = [case for case in find_cases(Path(place), modalities=modalities).cases if case.label is not None]
    if not found:
        raise InputError(f"wanted --input with labelled cases, found none in {place}")
    settled = settle_tasks(found, {case.case_id: read_label_values(case) for case in found}, decides=[task])
    cases = {case.case_id: case for case in settled.cases}
    return FolderInput(cases=cases, modalities=tuple(modalities), task=task), list(cases)
