"""The scaling model's arithmetic, and its estimates for g4dn."""

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scaling import G4DN, NODES, run
from benchmarks.scaling_model import TCP_PAYLOAD, Layer, Network, count_layers, predict_step, split_into_buckets
from benchmarks.settings import ScalingEstimate
from models import UNET_PRESETS, build_unet
from storage import InputError

# Three layers of 10 MiB of float32 gradients, each a second in the forward pass.
LAYERS = [Layer(cost=1.0, parameters=10 * 2**18)] * 3
SLOW = Network(gbit=8e-9 * 10 * 2**20 / TCP_PAYLOAD, latency=0.0)  # 10 MiB a second


def test_one_rank_sends_nothing() -> None:
    assert predict_step(LAYERS, SLOW, ranks=1) == 9.0


def test_communication_hides_behind_the_backward_pass_but_for_the_last_bucket() -> None:
    # A ring of two sends each bucket's bytes once: a second a bucket, while the next layer takes two.
    assert predict_step(LAYERS, SLOW, bucket_mb=10, ranks=2) == pytest.approx(9.0 + 1.0)
    assert predict_step(LAYERS, SLOW, bucket_mb=1000, ranks=2) == pytest.approx(9.0 + 3.0)
    assert predict_step(LAYERS, SLOW, bucket_mb=10, gradient_bytes=2, ranks=2) == pytest.approx(9.0 + 0.5)


def test_more_ranks_send_up_to_twice_the_bytes_and_wait_for_the_slowest() -> None:
    assert SLOW.all_reduce(10 * 2**20, 64) == pytest.approx(2 * 63 / 64)
    assert Network(gbit=1e9, latency=1e-3).all_reduce(4, 64) == pytest.approx(2 * 63 * 1e-3)
    fast = Network(gbit=1e9, latency=0.0)
    even, uneven = (predict_step(LAYERS, fast, ranks=8, jitter=jitter) for jitter in (0.0, 0.1))
    assert even == pytest.approx(9.0)
    assert 1.1 * even < uneven < 1.3 * even


def test_buckets_are_closed_by_the_gradient_that_fills_them() -> None:
    size = 10 * 2**18
    assert split_into_buckets(LAYERS, 15) == [(4.0, 2 * size), (2.0, size)]
    assert [parameters for _, parameters in split_into_buckets(LAYERS, 10)] == [size] * 3 + [0]


def test_layers_are_counted_without_computing() -> None:
    layers = count_layers(UNET_PRESETS["tiny"], patch=(48, 48, 48), batch=2)
    network = build_unet(UNET_PRESETS["tiny"])
    assert sum(layer.parameters for layer in layers) == sum(each.numel() for each in network.parameters())
    assert 3 * sum(layer.cost for layer in layers) / 2e9 == pytest.approx(9.2, rel=0.05)  # docs/models.md


def estimates(tmp_path: Path, **options: Any) -> dict[str, dict[str, Any]]:
    file = tmp_path / "figures.json"
    run(ScalingEstimate(json=file, **options))
    document = json.loads(file.read_text())
    assert document["title"].startswith("ESTIMATES")
    return {row["type"]: row for row in document["rows"]}


def share(row: dict[str, Any], nodes: int) -> int:
    return int(row[str(nodes)].removesuffix("%"))


@pytest.mark.processes
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
        assert kind.gbit == card["BaselineBandwidthInGbps"]
        assert kind.gpus == listed[kind.name]["GpuInfo"]["Gpus"][0]["Count"]


def test_what_the_user_can_mend_is_said() -> None:
    with pytest.raises(InputError, match=r"--patch: "):
        run(ScalingEstimate(patch=(100, 100, 100)))
