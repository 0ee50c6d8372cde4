"""A training run watched: every query of the Grafana dashboard against a real Prometheus, and Ray Train's own list.

Grafana itself is not in Debian and is not started here.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.on_ray.conversion import convert_cohort

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "cluster" / "grafana" / "brats-stream.json"
# Panels that have nothing to show where there is no GPU.
NEED_A_GPU = {"GPU utilisation", "GPU memory"}
# And where no prices are known, off EC2.
NEED_PRICES = {"Cost so far", "Cost an hour", "Dollars lost to restarts"}
TRAINING = (
    *("--workers", "2", "--epochs", "12", "--sampling.patch-shape", "24", "24", "24"),
    *("--sampling.patches-per-epoch", "80", "--model.widths", "4", "8", "--model.deep-supervision", "0"),
    *("--optimiser.warmup-steps", "1", "--validation.overlap", "0", "--validation.window-batch", "16"),
    *("--validation.every", "2"),
)

Panel = tuple[str, str]


class Prometheus:
    """A Prometheus on loopback that reads what Ray says of its targets."""

    def __init__(self, address: str) -> None:
        self.address = address

    def wait(self) -> None:
        """Return when it takes questions."""
        for _ in range(120):
            with suppress(OSError), urllib.request.urlopen(f"{self.address}/-/ready"):
                return
            time.sleep(0.5)
        raise AssertionError("prometheus did not start; see prometheus.log")

    def ask(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def values(self, expr: str) -> list[float]:
        """The numbers that `expr` gives now."""
        return [float(each["value"][1]) for each in self.ask("query", query=expr)["result"]]


@pytest.fixture
def start_prometheus(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[[Path], Prometheus]]:
    program = shutil.which("prometheus", path=f"{ROOT / '.prometheus/usr/bin'}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("there is no prometheus: make drill-metrics fetches it")
    servers: list[subprocess.Popen[bytes]] = []

    def start(ray_folder: Path) -> Prometheus:
        targets = ray_folder / "prom_metrics_service_discovery.json"
        job = {"job_name": "ray", "file_sd_configs": [{"files": [str(targets)]}]}
        settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
        (tmp_path / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
        address = f"127.0.0.1:{free_port()}"
        command = [program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/prometheus"]
        with (tmp_path / "prometheus.log").open("w") as log:
            servers.append(
                subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log, cwd=tmp_path)
            )
        prometheus = Prometheus(f"http://{address}")
        prometheus.wait()
        return prometheus

    yield start
    for server in servers:
        server.terminate()
        server.wait(30)


def queries() -> dict[Panel, str]:
    """Every query of the dashboard as Grafana would send it, by panel and letter."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        (panel["title"], target["refId"]): target["expr"].replace("$run", ".*").replace("$__rate_interval", "15s")
        for panel in panels
        for target in panel.get("targets", ())
    }


def test_every_query_has_data_while_a_run_trains(
    start_head: Callable[..., Any],
    start_prometheus: Callable[[Path], Prometheus],
    phantom_source: Path,
    tmp_path: Path,
) -> None:
    convert_cohort(phantom_source, str(tmp_path / "phantom.zarr"))
    head = start_head({"RAY_metrics_report_interval_ms": "1000"})
    head.wait_for_jobs()
    prometheus = start_prometheus(head.folder)
    variables = {"BRATS_STORE": str(tmp_path / "phantom.zarr"), "BRATS_RUNS": str(tmp_path / "runs")}
    job = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", head.address]
    job += ["--runtime-env-json", json.dumps({"env_vars": variables})]
    command = [*job, "--", "python", "ray_jobs/train.py", "--name", "watched", *TRAINING]
    with (tmp_path / "job.log").open("w") as log:
        training = subprocess.Popen(command, env=head.environment, stdout=log, stderr=log)
    try:
        seen, runs = watch(training, prometheus, head)
    finally:
        training.kill()
        training.wait()
    assert training.returncode == 0, (tmp_path / "job.log").read_text()[-3000:]

    wanted = {panel for panel in queries() if panel[0] not in NEED_A_GPU | NEED_PRICES}
    assert seen.keys() == wanted, f"no data for {sorted(wanted - seen.keys())}"
    assert all(math.isfinite(value) for values in seen.values() for value in values), seen
    (run,) = runs
    assert run["name"] == "watched"
    assert run["status"] == "RUNNING"
    assert len(run["attempts"][0]["workers"]) == 2


def watch(
    training: "subprocess.Popen[bytes]", prometheus: Prometheus, head: Any
) -> tuple[dict[Panel, list[float]], list[Any]]:
    """Ask every query until it has data or the run ends; return what came, and what Ray Train's list knew."""
    waiting = queries()
    seen: dict[Panel, list[float]] = {}
    runs: list[Any] = []
    while training.poll() is None:
        time.sleep(2)
        for panel in list(waiting):
            if (found := prometheus.values(waiting[panel])) and all(map(math.isfinite, found)):
                seen[panel] = found
                del waiting[panel]
        if not runs and ("Loss", "A") in seen:
            runs = head.ask("/api/train/v2/runs/v1")["train_runs"]
            assert prometheus.ask("label/run/values", **{"match[]": "ray_brats_epoch"}) == ["watched"]
    return seen, runs
