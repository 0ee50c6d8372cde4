"""What 1 to 64 g4dn nodes would give, and where it stops paying: estimates of a written model (scaling_model.py).

`python ray_jobs/benchmark.py scaling --preset nnunet`. No figure here is measured on AWS. The network's part of the
model is checked in network namespaces (network_check.py); the GPU's speed is an assumption, which `--tflops` or
`--step-seconds` replaces by your own measurement (`benchmark.py train-step` on one g4dn.xlarge).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.layer_costs import count_layers
from benchmarks.report import report
from benchmarks.scaling_model import LayerTime, Network, Sharing, StepTime, predict_step
from benchmarks.train_step import find_network
from storage import InputError

NODES = (1, 2, 4, 8, 16, 32, 64)
STILL_PAYS = 0.8  # of linear scaling: a patch then costs a quarter more than on one node


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """baseline_gbit: always there; burst_gbit: for minutes, until network credits are spent. price: $ an hour.

    Networks and GPUs as EC2's DescribeInstanceTypes gives them (recorded in moto 5.2.5; a test compares). Prices are
    on-demand list prices of us-east-1, from memory: an input to be looked up before money is spent. Spot is a third to
    a half of it.
    """

    name: str
    gpus: int
    baseline_gbit: float
    burst_gbit: float
    price: float


G4DN = (
    InstanceType(name="g4dn.xlarge", gpus=1, baseline_gbit=5, burst_gbit=25, price=0.526),
    InstanceType(name="g4dn.2xlarge", gpus=1, baseline_gbit=10, burst_gbit=25, price=0.752),
    InstanceType(name="g4dn.4xlarge", gpus=1, baseline_gbit=20, burst_gbit=25, price=1.204),
    InstanceType(name="g4dn.8xlarge", gpus=1, baseline_gbit=50, burst_gbit=50, price=2.176),
    InstanceType(name="g4dn.16xlarge", gpus=1, baseline_gbit=50, burst_gbit=50, price=4.352),
    InstanceType(name="g4dn.12xlarge", gpus=4, baseline_gbit=50, burst_gbit=50, price=3.912),
    InstanceType(name="g4dn.metal", gpus=8, baseline_gbit=100, burst_gbit=100, price=7.824),
)


@dataclass(frozen=True, kw_only=True)
class ScalingEstimate:
    """Estimate throughput and cost of 1 to 64 nodes of each g4dn type. Weak scaling: each GPU keeps its batch."""

    preset: str = "nnunet"
    """A U-Net by its name in models.UNET_PRESETS."""
    patch: tuple[int, ...] = (128, 128, 128)
    batch: int = 2
    """Patches a GPU a step; gradient accumulation counts as a larger batch."""
    tflops: float = 8.0
    """What a T4 is assumed to reach on this network in float16: an eighth of its data sheet's 65 TFLOP/s."""
    step_seconds: float | None = None
    """A GPU's own step, measured; takes the place of --tflops."""
    jitter: float = 0.02
    """How much a GPU's own step varies: standard deviation, as a share. Assumed."""
    latency_us: float = 50.0
    """Of a turn between two nodes of one availability zone. Assumed."""
    bucket_mb: float = 25.0
    compression: Literal["none", "fp16", "bf16"] = "none"
    network: Literal["baseline", "burst"] = "baseline"
    """Long runs live on the baseline."""
    json: Path | None = None


def run(config: ScalingEstimate) -> None:
    """Estimate, by a model, what 1 to 64 g4dn nodes would give and where it stops paying; runs anywhere."""
    layers = layer_times(config)
    parameters = sum(layer.parameters for layer in layers)
    one = predict_step(layers, Network(gbit=1, latency=0), Sharing(), ranks=1)
    sharing = Sharing(bucket_mb=config.bucket_mb, gradient_bytes=4 if config.compression == "none" else 2)
    megabytes = parameters * sharing.gradient_bytes / 1e6
    title = (
        f"ESTIMATES: {config.preset}, {config.batch} x {'x'.join(map(str, config.patch))} a GPU, {one.total:.2f} s a "
        f"step alone, {megabytes:.0f} MB of gradients, {config.network} network; share of linear scaling by nodes"
    )
    report(title, [estimate_row(kind, layers, sharing, config) for kind in G4DN], config.json)


def layer_times(config: ScalingEstimate) -> list[LayerTime]:
    """Each layer's forward time by its share of the arithmetic. Raises InputError for unsuitable sides."""
    unet = find_network(config.preset)
    try:
        unet.check_sides(config.patch)
    except ValueError as unsuitable:
        raise InputError(f"--patch: {unsuitable}") from None
    layers = count_layers(unet, patch=config.patch, batch=config.batch)
    flops = 3 * sum(layer.flops for layer in layers)
    step = config.step_seconds if config.step_seconds is not None else flops / (config.tflops * 1e12)
    return [LayerTime(forward=step * layer.flops / flops, parameters=layer.parameters) for layer in layers]


def estimate_row(
    kind: InstanceType, layers: list[LayerTime], sharing: Sharing, config: ScalingEstimate
) -> dict[str, Any]:
    """Share of linear scaling by nodes, where it stops paying, speed and the price of a million patches."""
    steps = {nodes: estimate_step(kind, layers, sharing, config, nodes=nodes) for nodes in NODES}
    alone = predict_step(layers, Network(gbit=1, latency=0), sharing, ranks=1).total
    efficiency = {nodes: alone / step.total for nodes, step in steps.items()}
    paying = [nodes for nodes in NODES if efficiency[nodes] >= STILL_PAYS]
    per_second = {nodes: nodes * kind.gpus * config.batch / steps[nodes].total for nodes in NODES}
    row: dict[str, Any] = {"type": kind.name, "Gbit/s": gbit_of(kind, config)}
    row |= {f"{nodes}": f"{efficiency[nodes]:.0%}" for nodes in NODES}
    row["pays to"] = f"{max(paying)} nodes" if paying else "not at all"
    for nodes in (1, NODES[-1]):
        row[f"patches/s of {nodes}"] = round(per_second[nodes], 1)
        row[f"$ a million, {nodes}"] = round(kind.price * nodes / 3600 * 1e6 / per_second[nodes])
    return row


def estimate_step(
    kind: InstanceType, layers: list[LayerTime], sharing: Sharing, config: ScalingEstimate, *, nodes: int
) -> StepTime:
    """A ring over all GPUs passes each node's network once, however many GPUs the node has."""
    network = Network(gbit=gbit_of(kind, config), latency=config.latency_us / 1e6)
    if nodes == 1:
        network = replace(network, gbit=PCIE_GBIT)
    return predict_step(layers, network, sharing, ranks=nodes * kind.gpus, jitter=config.jitter)


# Within a node gradients pass PCIe 3.0 x8 or x16, shared with the loader: about 6 GB/s.
PCIE_GBIT = 48.0


def gbit_of(kind: InstanceType, config: ScalingEstimate) -> float:
    """The bandwidth that the estimate is for."""
    return kind.baseline_gbit if config.network == "baseline" else kind.burst_gbit
