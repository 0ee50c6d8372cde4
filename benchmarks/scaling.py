"""What 1 to 64 g4dn nodes would give, and where it stops paying: estimates of a written model (scaling_model.py).

`python -m benchmarks scaling --preset nnunet`. No figure here is measured. The GPU's speed is an assumption, which
`--step-seconds` replaces by your own measurement (`train-step` on one g4dn.xlarge).
"""

from dataclasses import dataclass
from typing import Any

from benchmarks.networks import check_sides, find_network
from benchmarks.report import report
from benchmarks.scaling_model import Layer, Network, count_layers, predict_step
from benchmarks.settings import ScalingEstimate

NODES = (1, 2, 4, 8, 16, 32, 64)
STILL_PAYS = 0.8  # of linear scaling: a patch then costs a quarter more than on one node

# Assumed: what a T4 reaches in float16, an eighth of its data sheet's 65 TFLOP/s; a turn between two nodes of one
# availability zone; and how much a GPU's own step varies (standard deviation).
T4_FLOPS = 8e12
LATENCY_SECONDS = 50e-6
JITTER = 0.02
# Within a node gradients pass PCIe 3.0 x8 or x16, shared with the loader: about 6 GB/s.
PCIE_GBIT = 48.0


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """gbit: the network that lasts; the smaller types have bursts of minutes above it. price: $ an hour.

    Networks and GPUs as EC2's DescribeInstanceTypes gives them (recorded in moto 5.2.5; a test compares). Prices are
    on-demand list prices of us-east-1, from memory: an input to be looked up before money is spent. Spot is a third to
    a half of it.
    """

    name: str
    gpus: int
    gbit: float
    price: float


G4DN = (
    InstanceType(name="g4dn.xlarge", gpus=1, gbit=5, price=0.526),
    InstanceType(name="g4dn.2xlarge", gpus=1, gbit=10, price=0.752),
    InstanceType(name="g4dn.4xlarge", gpus=1, gbit=20, price=1.204),
    InstanceType(name="g4dn.8xlarge", gpus=1, gbit=50, price=2.176),
    InstanceType(name="g4dn.16xlarge", gpus=1, gbit=50, price=4.352),
    InstanceType(name="g4dn.12xlarge", gpus=4, gbit=50, price=3.912),
    InstanceType(name="g4dn.metal", gpus=8, gbit=100, price=7.824),
)


def run(config: ScalingEstimate) -> None:
    """Estimate throughput and cost of each type. Weak scaling: each GPU keeps its batch."""
    unet = find_network(config.preset)
    check_sides(unet, config.patch, "--patch")
    layers = count_layers(unet, patch=config.patch, batch=config.batch)
    flops = 3 * sum(layer.cost for layer in layers)
    alone = config.step_seconds if config.step_seconds is not None else flops / T4_FLOPS
    timed = [Layer(cost=alone * layer.cost / flops, parameters=layer.parameters) for layer in layers]
    gradient_bytes = 4 if config.compression == "none" else 2
    megabytes = sum(layer.parameters for layer in layers) * gradient_bytes / 1e6
    sides = "x".join(map(str, config.patch))
    title = (
        f"ESTIMATES: {config.preset}, {config.batch} x {sides} a GPU, {alone:.2f} s a step alone, {megabytes:.0f} MB "
        "of gradients; share of linear scaling by nodes"
    )
    rows = [estimate_row(kind, timed, alone, gradient_bytes, config.batch) for kind in G4DN]
    report(title, rows, config.json)


def estimate_row(
    kind: InstanceType, layers: list[Layer], alone: float, gradient_bytes: int, batch: int
) -> dict[str, Any]:
    """Share of linear scaling by nodes, where it stops paying, speed and the price of a million patches."""

    def step_of(nodes: int) -> float:
        # A ring over all GPUs passes each node's network once, however many GPUs the node has.
        network = Network(gbit=kind.gbit if nodes > 1 else PCIE_GBIT, latency=LATENCY_SECONDS)
        ranks = nodes * kind.gpus
        return predict_step(layers, network, ranks=ranks, gradient_bytes=gradient_bytes, jitter=JITTER)

    steps = {nodes: step_of(nodes) for nodes in NODES}
    paying = [nodes for nodes in NODES if alone / steps[nodes] >= STILL_PAYS]
    row: dict[str, Any] = {"type": kind.name, "Gbit/s": kind.gbit}
    row |= {f"{nodes}": f"{alone / steps[nodes]:.0%}" for nodes in NODES}
    row["pays to"] = f"{max(paying)} nodes" if paying else "not at all"
    for nodes in (1, NODES[-1]):
        per_second = nodes * kind.gpus * batch / steps[nodes]
        row[f"patches/s of {nodes}"] = round(per_second, 1)
        row[f"$ a million, {nodes}"] = round(kind.price * nodes / 3600 * 1e6 / per_second)
    return row
