"""The scaling model's arithmetic, its estimates for g4dn, and (with root) what two real ranks say of it."""

import gzip
import json
import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from benchmarks.layer_costs import count_layers
from benchmarks.network_check import NetworkCheck
from benchmarks.network_check import run as check_network
from benchmarks.scaling import G4DN, NODES, ScalingEstimate, run
from benchmarks.scaling_model import TCP_PAYLOAD, LayerTime, Network, Sharing, predict_step, split_into_buckets
from models import UNET_PRESETS, build_unet
from storage import InputError

# Three layers of 10 MiB of float32 gradients, each a second in the forward pass.
LAYERS = [LayerTime(forward=1.0, parameters=10 * 2**18)] * 3
SLOW = Network(gbit=8e-9 * 10 * 2**20 / TCP_PAYLOAD, latency=0.0)  # 10 MiB a second


def test_one_rank_sends_nothing() -> None:
    step = predict_step(LAYERS, SLOW, Sharing(), ranks=1)
    assert (step.total, step.communication) == (9.0, 0.0)


def test_communication_hides_behind_the_backward_pass_but_for_the_last_bucket() -> None:
    # A ring of two sends each bucket's bytes once: a second a bucket, while the next layer takes two.
    small = predict_step(LAYERS, SLOW, Sharing(bucket_mb=10), ranks=2)
    assert small.waits == pytest.approx(1.0)
    whole = predict_step(LAYERS, SLOW, Sharing(bucket_mb=1000), ranks=2)
    assert whole.waits == pytest.approx(3.0)
    assert small.communication == whole.communication == pytest.approx(3.0)
    compressed = predict_step(LAYERS, SLOW, Sharing(bucket_mb=10, gradient_bytes=2), ranks=2)
    assert compressed.waits == pytest.approx(0.5)


def test_more_ranks_send_up_to_twice_the_bytes_and_wait_for_the_slowest() -> None:
    assert SLOW.all_reduce(10 * 2**20, 64) == pytest.approx(2 * 63 / 64)
    assert Network(gbit=1e9, latency=1e-3).all_reduce(4, 64) == pytest.approx(2 * 63 * 1e-3)
    fast = Network(gbit=1e9, latency=0.0)
    even, uneven = (predict_step(LAYERS, fast, Sharing(), ranks=8, jitter=jitter).total for jitter in (0.0, 0.1))
    assert even == pytest.approx(9.0)
    assert 1.1 * even < uneven < 1.3 * even


def test_buckets_are_closed_by_the_gradient_that_fills_them() -> None:
    size = 10 * 2**18
    assert split_into_buckets(LAYERS, Sharing(bucket_mb=15)) == [(4.0, 2 * size), (2.0, size)]
    assert [parameters for _, parameters in split_into_buckets(LAYERS, Sharing(bucket_mb=10))] == [size] * 3 + [0]


def test_layers_are_counted_without_computing() -> None:
    layers = count_layers(UNET_PRESETS["tiny"], patch=(48, 48, 48), batch=2)
    network = build_unet(UNET_PRESETS["tiny"])
    assert sum(layer.parameters for layer in layers) == sum(each.numel() for each in network.parameters())
    assert layers[0].name.startswith("encoder.0")
    assert 3 * sum(layer.flops for layer in layers) / 2e9 == pytest.approx(9.2, rel=0.05)  # docs/models.md


def estimates(tmp_path: Path, **options: Any) -> dict[str, dict[str, Any]]:
    file = tmp_path / "figures.json"
    run(ScalingEstimate(json=file, **options))
    document = json.loads(file.read_text())
    assert document["title"].startswith("ESTIMATES")
    return {row["type"]: row for row in document["rows"]}


def share(row: dict[str, Any], nodes: int) -> int:
    return int(row[str(nodes)].removesuffix("%"))


def test_the_slowest_network_stops_paying_first(tmp_path: Path) -> None:
    plain, half = estimates(tmp_path), estimates(tmp_path, compression="fp16")
    assert set(plain) == {kind.name for kind in G4DN}
    for row in plain.values():
        shares = [share(row, nodes) for nodes in NODES]
        assert shares == sorted(shares, reverse=True)
    assert [share(plain[f"g4dn.{size}"], 64) for size in ("xlarge", "2xlarge", "4xlarge")] == sorted(
        share(plain[f"g4dn.{size}"], 64) for size in ("xlarge", "2xlarge", "4xlarge")
    )
    assert share(half["g4dn.xlarge"], 64) > share(plain["g4dn.xlarge"], 64)
    slower = estimates(tmp_path, step_seconds=10.0)
    assert share(slower["g4dn.xlarge"], 64) > share(plain["g4dn.xlarge"], 64)


def test_networks_and_gpus_are_those_that_ec2_lists() -> None:
    pytest.importorskip("moto")
    listed = json.loads(gzip.decompress((files("moto") / "ec2/resources/instance_types.json.gz").read_bytes()))
    for kind in G4DN:
        card = listed[kind.name]["NetworkInfo"]["NetworkCards"][0]
        assert (kind.baseline_gbit, kind.burst_gbit) == (card["BaselineBandwidthInGbps"], card["PeakBandwidthInGbps"])
        assert kind.gpus == listed[kind.name]["GpuInfo"]["Gpus"][0]["Count"]


def test_what_the_user_can_mend_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--patch: "):
        run(ScalingEstimate(patch=(100, 100, 100)))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match="network-check wants root"):
        check_network(NetworkCheck())


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("tc") is None, reason="network namespaces want root and tc")
def test_two_ranks_send_what_the_model_says(tmp_path: Path) -> None:
    """Bytes are exact; times only bounded from below, since others on the machine add to them."""
    file = tmp_path / "figures.json"
    before = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    check_network(NetworkCheck(step_seconds=0.2, steps=3, json=file))
    after = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert after == before
    rows = json.loads(file.read_text())["rows"]
    parameters = sum(layer.parameters for layer in count_layers(UNET_PRESETS["nnunet"], patch=(64,) * 3, batch=1))
    for row in rows:
        halved = "gradient_compression" in row["switches"]
        assert row["MB sent"] == pytest.approx(parameters * (2 if halved else 4) / 1e6, rel=0.03)
        assert row["measured ms"] >= 200  # what a step sleeps; the prediction starts from a step measured alone
    # On the slowest link what is sent takes longer than the backward pass: it cannot go unnoticed.
    assert rows[0]["measured ms"] > 200 + 50
