"""A bucket that cannot be reached for a while: the run goes on, or ends, and earlier checkpoints stay."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer

import storage.store.objects
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.on_ray.session import LocalSession, Progress, RaySession
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.groups import CheckpointConfig
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.train_loop import train
from storage.store.objects import Objects

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("bare_pictures")]

BUCKET = "runs"


class Endpoint:
    """An S3 endpoint on loopback that can go and come back with all it held."""

    def __init__(self) -> None:
        self.port = 0
        self._server: ThreadedMotoServer | None = None
        self.start()

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._server is None:
            self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
            self._server.start()
            _, self.port = self._server.get_host_and_port()

    def stop(self) -> None:
        """Stop it, unless it has stopped."""
        if self._server is not None:
            self._server.stop()
            self._server = None


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(storage.store.objects, "RETRIES", 0)  # or the test would wait two minutes for each failure
    endpoint = Endpoint()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{endpoint.port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield endpoint
    endpoint.stop()


def wait_for_checkpoint(folder: str, position: tuple[int, int]) -> None:
    until = time.monotonic() + 120
    while (newest := CheckpointStore(folder).newest()) is None or newest.position != position:
        assert time.monotonic() < until, newest
        time.sleep(0.1)


class Outage(LocalSession):
    """A session whose run folder lies on S3, away from before step `gone` until step `back`, of three an epoch.

    It publishes as a Ray worker does.
    """

    publish = RaySession.publish

    def __init__(self, scratch: Path, endpoint: Endpoint, *, gone: int = 4, back: int = 7) -> None:
        super().__init__(scratch, torch.device("cpu"))
        self.folder = f"s3://{BUCKET}/{scratch.parent.name}"  # the endpoint outlives a test
        self.told: list[str] = []
        self._endpoint, self._steps, self._gone, self._back = endpoint, 0, gone, back
        self._remote = True

    def tell(self, progress: Progress) -> None:
        self.told.append(progress.message)

    def stop_asked(self) -> bool:
        self._steps += 1
        if self._steps == self._gone:
            wait_for_checkpoint(self.folder, (self._gone // 3, 0))  # it is written in the background
            self._endpoint.stop()
        if self._steps == self._back:
            self._endpoint.start()
        return False


class Elsewhere(LocalSession):
    """A session whose run folder is not where it writes its artifacts, as one on S3 is not."""

    publish, end = RaySession.publish, RaySession.end
    _remote = True


def test_a_worker_that_ends_leaves_no_artifacts_behind(tmp_path: Path) -> None:
    session = Elsewhere(tmp_path / "scratch", torch.device("cpu"))
    session.folder = str(tmp_path / "run")
    (tmp_path / "scratch" / "events").write_text("of the last steps, after the last checkpoint")
    (tmp_path / "run" / "events").mkdir(parents=True)  # cannot be written over
    session.end()
    assert (tmp_path / "scratch" / "events").exists()
    (tmp_path / "run" / "events").rmdir()
    session.end()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "events").read_text() == "of the last steps, after the last checkpoint"


@pytest.fixture
def make(
    small_config: TrainConfig, make_plan: Callable[[TrainConfig], TrainPlan], tmp_path: Path, endpoint: Endpoint
) -> Callable[..., tuple[TrainPlan, Outage]]:
    def make(checkpoints: CheckpointConfig, **when: int) -> tuple[TrainPlan, Outage]:
        plan = make_plan(dataclasses.replace(small_config, epochs=3, checkpoints=checkpoints))
        return plan, Outage(tmp_path / "scratch", endpoint, **when)

    return make


def test_the_run_goes_on_without_the_checkpoints_of_the_outage(make) -> None:
    plan, session = make(CheckpointConfig(every_steps=2, on_failure="continue"))
    result = train(plan, session)
    lost = [line for line in session.told if "could not be written" in line]
    assert any("checkpoint_epoch_0001_step_000002" in line and "cannot reach s3://runs/" in line for line in lost)
    assert all("the run goes on" in line for line in lost)
    assert any(line.startswith("events and figures are brought over later") for line in session.told)
    assert [figures["epoch"] for figures in result["history"]] == [1, 2, 3]
    assert CheckpointStore(session.folder).newest().position == (3, 0)
    brought = {key.rsplit("/", 1)[-1].split(".")[0] for key in Objects(session.folder).keys("")}
    assert "events" in brought and any(name.startswith("cross_section_") for name in brought)


def test_the_last_checkpoint_counts_as_well(make, endpoint: Endpoint) -> None:
    plan, session = make(CheckpointConfig(on_failure="stop"), gone=7, back=100)
    result = train(plan, session)
    assert "checkpoint_epoch_0003 could not be written" in result["failed"]
    endpoint.start()
    assert CheckpointStore(session.folder).newest().position == (2, 0)
    assert "validation" in train(plan, session)
    assert CheckpointStore(session.folder).newest().position == (3, 0)


def test_the_run_ends_where_it_is_told_to_and_goes_on_later(make, endpoint: Endpoint) -> None:
    plan, session = make(CheckpointConfig(every_steps=2, on_failure="stop"))
    result = train(plan, session)
    assert "cannot reach s3://runs/" in result["failed"]
    endpoint.start()
    assert CheckpointStore(session.folder).newest().position == (1, 0)  # the last before the outage
    assert "validation" in train(plan, session)
