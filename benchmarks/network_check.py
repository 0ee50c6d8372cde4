"""The scaling model against ranks in network namespaces whose links are held to a rate; needs root and `tc`.

`python ray_jobs/benchmark.py network-check` predicts and measures the step of two ranks for the link of each g4dn type
and for each switch of parallel.py; `--ranks 4` makes it four, on one bridge. Bytes and rates are a tenth of
what they stand for, so that times are as they would be: this machine's own link is not fast enough for the rest. No
GPU computes; see network_worker.py.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.network_worker import Case
from benchmarks.report import report
from benchmarks.scaling import G4DN, ScalingEstimate, layer_times
from benchmarks.scaling_model import LayerTime, Network, Sharing, predict_step
from storage import InputError

SCALE = 10
NETWORK = "10.231.78"
LIMIT_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class NetworkCheck:
    """Measure ranks over limited links, and compare with the scaling model."""

    ranks: int = 2
    """Each in a namespace of its own."""
    preset: str = "nnunet"
    """A U-Net by its name in models.UNET_PRESETS: how much each layer computes and sends."""
    patch: tuple[int, ...] = (128, 128, 128)
    batch: int = 2
    step_seconds: float = 0.72
    """What a rank alone is to take for a step; the default is the scaling estimate's for a T4."""
    steps: int = 9
    """Timed steps of each row, after three; the median counts."""
    switches: bool = True
    """Rows for bucket sizes, compression, static graph and bucket views, on g4dn.xlarge's link."""
    json: Path | None = None


def run(config: NetworkCheck) -> None:
    """Measure ranks in network namespaces with slow links beside the scaling model; wants root, ip and tc."""
    if os.geteuid() != 0 or shutil.which("tc") is None or shutil.which("ip") is None:
        raise InputError("network-check wants root, and ip and tc (Debian's iproute2), for network namespaces")
    estimate = ScalingEstimate(
        preset=config.preset, patch=config.patch, batch=config.batch, step_seconds=config.step_seconds
    )
    layers = [
        LayerTime(forward=layer.forward, parameters=max(1, layer.parameters // SCALE))
        for layer in layer_times(estimate)
    ]
    if config.ranks < 2:
        raise InputError(f"--ranks must be at least 2, got {config.ranks}")
    cases = make_cases(switches=config.switches)
    with tempfile.TemporaryDirectory() as folder, connected_hosts(config.ranks) as hosts:
        measured = measure_in(hosts, Path(folder), layers, cases, steps=config.steps)
    # A sleep ends a little late: what the ranks took alone is what the model is asked about.
    late = measured["alone"]["seconds"] / config.step_seconds
    computed = [replace(layer, forward=late * layer.forward) for layer in layers]
    pairs = zip(cases, measured["cases"], strict=True)
    rows = [compare(computed, case, found, measured, ranks=config.ranks) for case, found in pairs]
    title = (
        f"{config.ranks} ranks, {config.preset} a tenth: step of {1000 * config.step_seconds:.0f} ms alone "
        f"(measured {1000 * measured['alone']['seconds']:.0f}), a turn {1e6 * measured['latency']:.0f} µs"
    )
    report(title, rows, config.json)


def make_cases(*, switches: bool) -> list[Case]:
    """Every rate that a g4dn type has for good, then every switch at the lowest."""
    rates = sorted({kind.baseline_gbit for kind in G4DN if kind.gpus == 1})
    cases = [Case(mbit=round(1000 * rate / SCALE), parallel=scaled()) for rate in rates]
    if switches:
        lowest = cases[0].mbit
        turned: list[dict[str, Any]] = [
            {"bucket_mb": 1.0},
            {"bucket_mb": 5.0},
            {"bucket_mb": 1000.0},
            {"gradient_compression": "fp16"},
            {"gradient_compression": "bf16"},
            {"static_graph": True},
            {"gradient_as_bucket_view": True},
        ]
        cases += [Case(mbit=lowest, parallel=scaled(**each)) for each in turned]
    return cases


def scaled(*, bucket_mb: float = 25.0, **switches: Any) -> dict[str, Any]:
    """ParallelConfig's fields, with the bucket as much smaller as the gradients are."""
    return {"bucket_mb": bucket_mb / SCALE, **switches}


def compare(
    layers: Sequence[LayerTime], case: Case, found: dict[str, float], measured: Any, *, ranks: int
) -> dict[str, Any]:
    """A row: what was measured and what the model says, from the rate and a turn's latency alone."""
    compressed = case.parallel.get("gradient_compression", "none") != "none"
    sharing = Sharing(bucket_mb=case.parallel["bucket_mb"], gradient_bytes=2 if compressed else 4)
    network = Network(gbit=case.mbit / 1000, latency=measured["latency"])
    step = predict_step(layers, network, sharing, ranks=ranks)
    switches = {name: value for name, value in case.parallel.items() if name != "bucket_mb"}
    bucket = f"buckets of {case.parallel['bucket_mb'] * SCALE:g} MiB"
    return {
        "stands for Gbit/s": case.mbit * SCALE / 1000,
        "switches": ", ".join([bucket, *(f"{name} {value}" for name, value in switches.items())]),
        "measured ms": 1000 * found["seconds"],
        "predicted ms": 1000 * step.total,
        "off by": f"{step.total / found['seconds'] - 1:+.1%}",
        "of it waiting": f"{1 - measured['alone']['seconds'] / found['seconds']:.0%}",
        "MB sent": found["bytes"] * SCALE / 1e6,
        "CPU ms": 1000 * found["cpu_seconds"],
    }


def measure_in(
    hosts: Sequence[str], folder: Path, layers: Sequence[LayerTime], cases: Sequence[Case], *, steps: int
) -> Any:
    """What the worker of the first namespace measured."""
    plan = {
        "address": f"{NETWORK}.1",
        "ranks": len(hosts),
        "layers": [(layer.forward, layer.parameters) for layer in layers],
        "cases": [asdict(case) for case in cases],
        "steps": steps,
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    workers = []
    try:
        for rank, host in enumerate(hosts):
            command = ["ip", "netns", "exec", host, sys.executable, "-m", "benchmarks.network_worker"]
            workers.append(subprocess.Popen([*command, str(rank), str(folder)]))
        for worker in workers:
            if worker.wait(LIMIT_SECONDS):
                raise RuntimeError("a worker of the network check failed: see its message above")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return json.loads((folder / "0.json").read_text())


@contextmanager
def connected_hosts(count: int) -> Iterator[list[str]]:
    """Namespaces on one bridge, which is in a namespace too; each has an eth0."""
    switch = f"bsn{os.getpid()}-s"
    hosts = [f"bsn{os.getpid()}-{number}" for number in range(1, count + 1)]
    try:
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for number, host in enumerate(hosts, start=1):
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
            ip(*("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", switch))
            ip("-n", switch, "link", "set", f"port{number}", "master", "bridge", "up")
            ip("-n", host, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
        yield hosts
    finally:
        for host in (*hosts, switch):
            subprocess.run(["ip", "netns", "del", host], capture_output=True)  # its end of a wire goes with it


def ip(*arguments: str) -> None:
    """Run ip, and say why where it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
