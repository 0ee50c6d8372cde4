"""A converted phantom cohort and a configuration small enough for tests."""

import dataclasses
import importlib
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ray_jobs.on_ray.metadata_service import INSTANCE_ACTION, REBALANCE, TOKEN
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.presets import preset
from ray_jobs.training.plan import TrainPlan
from storage import MODALITIES, CohortStore, assign_splits
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS

REGIONS = GLI_2021_TASK.region_names

ROOT = Path(__file__).parents[2]

# The demo as it was until 30 November 2026: what tests know of earlier versions' runs is of that one.
FORMER_DEMO = ("--optimiser.learning-rate", "3e-3", "--validation.overlap", "0.25")
# The preset laptop as it was until 1 December 2026.
FORMER_LAPTOP = ("--preset", "laptop", "--validation.whole")

Command = Callable[..., "subprocess.CompletedProcess[str]"]

# The demo, small: three steps an epoch of 16³ patches.
SMALL = (
    *("--epochs", "2", "--sampling.patch-shape", "16", "16", "16", "--sampling.patches-per-epoch", "12"),
    *("--model.widths", "4", "8", "--model.deep-supervision", "0", "--optimiser.warmup-steps", "1"),
    *("--validation.overlap", "0", "--validation.window-batch", "16"),
)


@pytest.fixture(scope="session")
def phantom_store(phantom_source: Path, tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    """The phantom cohort as a store."""
    from ray_jobs.on_ray.conversion import convert_cohort
    from storage import open_store

    uri = str(tmp_path_factory.mktemp("store") / "phantom.zarr")
    convert_cohort(phantom_source, uri)
    return open_store(uri)


@pytest.fixture(scope="session")
def small_config() -> TrainConfig:
    """The demo preset with a network and patches that train in seconds."""
    demo = preset("demo")
    return dataclasses.replace(
        demo,
        epochs=2,
        sampling=dataclasses.replace(demo.sampling, patch_shape=(16, 16, 16), patches_per_epoch=12),
        model=dataclasses.replace(demo.model, widths=(4, 8), deep_supervision=0),
        optimiser=dataclasses.replace(demo.optimiser, warmup_steps=1),
        validation=dataclasses.replace(demo.validation, overlap=0.0, window_batch=16),
    )


@pytest.fixture
def make_plan(phantom_store: CohortStore, tmp_path: Path) -> Callable[[TrainConfig], TrainPlan]:
    """A plan over the phantom store with a cache of the test's own."""

    def make(config: TrainConfig) -> TrainPlan:
        splits = assign_splits(phantom_store.infos())
        return TrainPlan(config=config, store=phantom_store.uri, splits=splits, cache=tmp_path / "cache")

    return make


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run that is over: what it did, what came of it and how long that took."""

    plan: TrainPlan
    folder: Path
    result: dict[str, Any]
    history: list[dict[str, float]]
    seconds: float


@pytest.fixture(scope="session")
def train_bare(phantom_store: CohortStore) -> Callable[[TrainConfig, Path], TrainedRun]:
    """Train in this process to the end, without pictures, in a folder of the caller's."""
    import torch

    from ray_jobs.on_ray.session import LocalSession
    from ray_jobs.training.train_loop import train

    def train_there(config: TrainConfig, folder: Path) -> TrainedRun:
        splits = assign_splits(phantom_store.infos())
        plan = TrainPlan(config=config, store=phantom_store.uri, splits=splits, cache=folder / "cache")
        session = LocalSession(folder / "run", torch.device("cpu"))
        with pytest.MonkeyPatch.context() as patch:
            draw_nothing(patch)
            started = time.perf_counter()
            result = train(plan, session)
            seconds = time.perf_counter() - started
        return TrainedRun(plan=plan, folder=folder / "run", result=result, history=session.history, seconds=seconds)

    return train_there


@pytest.fixture(scope="session")
def trained(
    train_bare: Callable[[TrainConfig, Path], TrainedRun],
    small_config: TrainConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> TrainedRun:
    """The small configuration, trained to the end for all tests that only look at what comes of it."""
    return train_bare(small_config, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `python ray_jobs/<script> …` as a user would, in an empty folder with a home of its own."""

    def run(script: str, *arguments: str, environment: dict[str, str] | None = None, timeout: float = 300) -> object:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        variables = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "160", **(environment or {})}
        variables.pop("RAY_ADDRESS", None)  # a cluster of its own, whatever this process joins
        return subprocess.run(
            [sys.executable, str(ROOT / "ray_jobs" / script), *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """As `command`, but in this process: what it imports is there already."""
    (tmp_path / "home").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")

    def run(script: str, *arguments: str) -> object:
        main = importlib.import_module(f"ray_jobs.{Path(script).stem}").main
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        capfd.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # as Python itself starts
            status = run_command(main)
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, status, printed.out, printed.err)

    return run


@pytest.fixture
def bare_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without panels, which take longer than a test's training; others train and draw them whole."""
    draw_nothing(monkeypatch)


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every figure of a run one empty panel."""

    def empty(*_: object, **__: object) -> Figure:
        return Figure(figsize=(1, 1))

    monkeypatch.setattr("ray_jobs.pictures.figures.sections_figure", empty)
    monkeypatch.setattr("ray_jobs.watching.monitoring.draw_threshold_curves", empty)


@pytest.fixture
def on_shared_head(shared_head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts Ray in this process joins a cluster that runs already. Its workers know nothing of the test's."""
    monkeypatch.setenv("RAY_ADDRESS", shared_head.ray)


@pytest.fixture
def make_checkpoint(tmp_path: Path, small_config: TrainConfig) -> Callable[..., str]:
    """Save an untrained network as a validated checkpoint of a run; return the run's folder."""
    import torch

    from models import Decision, build_unet
    from ray_jobs.checkpoints.checkpoint import CheckpointRecord, encode_checkpoint
    from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
    from ray_jobs.evaluation.decision_file import encode_decision
    from ray_jobs.settings.config import run_identity

    def make(
        name: str,
        *,
        seed: int,
        config: TrainConfig | None = None,
        thresholds: tuple[float, ...] | None = (0.502, 0.501, 0.5),
        decided: Mapping[str, Any] | None = None,  # beside the thresholds
        modalities: tuple[str, ...] | None = MODALITIES,  # None: by a version that did not write them down
    ) -> str:
        config = config or small_config
        torch.manual_seed(seed)
        model = build_unet(config.model, config.execution)
        said = {"regions": list(REGIONS)} | ({} if modalities is None else {"modalities": list(modalities)})
        files = encode_checkpoint(
            model,
            state={},
            config={**run_identity(config, "digest"), **said},
            decision=thresholds and encode_decision(Decision(thresholds=thresholds, **(decided or {})), REGIONS),
        )
        record = CheckpointRecord(epoch=1, step=0, metrics={"iou_mean": 0.5})
        CheckpointStore(str(tmp_path / name)).save(record, files)
        return str(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def draw_phantom(phantom_source: Path) -> Callable[..., bytes]:
    """Draw a phantom, predicted a little beside its label, with it or without."""
    from storage import find_cases, region_masks
    from storage.labels.conventions import BRATS_124, MODALITIES
    from storage.store.held_case import hold_source

    held = hold_source(find_cases(phantom_source).cases[0], MODALITIES, BRATS_124, GLI_2021_TASK)
    assert held.arrays.label_DHW is not None
    truth_RDHW = region_masks(held.arrays.label_DHW, GLIOMA_REGIONS).astype(bool)
    predicted_RDHW = np.roll(truth_RDHW, 2, axis=2)

    def draw(how: Callable[..., bytes], *, labelled: bool) -> bytes:
        return how(held.case, GLIOMA_REGIONS, held.arrays.image_MDHW, truth_RDHW if labelled else None, predicted_RDHW)

    return draw


@pytest.fixture(scope="session")
def small_arguments() -> Sequence[str]:
    """`small_config` as command-line arguments."""
    return SMALL


class FakeMetadata:
    """What a metadata service says: `answers` maps paths to (status, body), the others answer 404.

    Only the newest token is good.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.token_status = 200
        self.tokens_given = 0
        self.asked: list[tuple[str, int]] = []  # path and the status it was answered with
        self.url = ""

    @property
    def token(self) -> str:
        return f"token-{self.tokens_given}"

    def expire_token(self) -> None:
        """The token given last is good no longer."""
        self.tokens_given += 1

    def give_notice(self, body: str | Callable[[], str]) -> None:
        """Say it from now on, or what `body` makes of the time when it is asked."""
        self.answers[INSTANCE_ACTION] = (200, body)

    def recommend_rebalancing(self) -> None:
        self.answers[REBALANCE] = (200, '{"noticeTime": "2026-11-24T08:22:00Z"}')

    def answer(self, method: str, path: str, token: str | None, lifetime: str | None) -> tuple[int, str]:
        if path == TOKEN:
            if method != "PUT" or lifetime is None or not 1 <= int(lifetime) <= 21600:
                return 400, ""
            self.tokens_given += 1
            return self.token_status, self.token
        if method != "GET" or token != self.token:
            return 401, ""
        status, body = self.answers.get(path, (404, ""))
        return status, body() if callable(body) else body


@pytest.fixture
def fake_metadata() -> Iterator[FakeMetadata]:
    """An EC2 instance metadata service that says what the test tells it to."""
    fake = FakeMetadata()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            path = self.path.lstrip("/")
            token = self.headers.get("X-aws-ec2-metadata-token")
            lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            status, body = fake.answer(self.command, path, token, lifetime)
            fake.asked.append((path, status))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = respond

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def losses_by_step() -> Callable[[Path], dict[int, set[float]]]:
    """Every loss that any start of the run in a folder wrote for a step: one, if doing it again changed nothing."""

    def read(run: Path) -> dict[int, set[float]]:
        found: dict[int, set[float]] = {}
        for file in run.glob("events.*"):
            events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
            for event in events.Scalars("loss/step") if "loss/step" in events.Tags()["scalars"] else ():
                found.setdefault(event.step, set()).add(event.value)
        return found

    return read


@pytest.fixture
def training_workers() -> Callable[[int], list[psutil.Process]]:
    """Return the training workers that a command, by its pid, has on this machine."""

    def find(pid: int) -> list[psutil.Process]:
        workers = []
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # ended since it was listed
                if "RayTrainWorker" in child.name():
                    workers.append(child)
        return workers

    return find
