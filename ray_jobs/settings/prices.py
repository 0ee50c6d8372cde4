"""What machines cost and which GPUs they have: AWS's list prices, and what spot instances took in a snapshot."""

import dataclasses
from collections.abc import Mapping

# github.com/skypilot-org/skypilot-catalog, catalogs/v8/aws/vms.csv at e385a0d; of three zones the dearest.
SNAPSHOT = "AWS's prices in us-west-2, of a snapshot of 2026"
BESIDE = 0.021  # dollars an hour for a node's disk of 150 GB and its public address


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """An instance type: dollars an hour on demand and as spot, its GPUs, their name and how much each holds, in GiB."""

    dollars: float
    spot: float
    gpus: int
    card: str = "T4"
    gpu_gib: float = 14.6  # as torch finds it


KINDS: Mapping[str, Kind] = {
    "g4dn.xlarge": Kind(dollars=0.526, spot=0.252, gpus=1),
    "g4dn.2xlarge": Kind(dollars=0.752, spot=0.359, gpus=1),
    "g4dn.4xlarge": Kind(dollars=1.204, spot=0.482, gpus=1),
    "g4dn.8xlarge": Kind(dollars=2.176, spot=0.940, gpus=1),
    "g4dn.12xlarge": Kind(dollars=3.912, spot=1.685, gpus=4),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine of EC2's: instance type, and whether it is a spot instance."""

    kind: str
    spot: bool

    @property
    def dollars(self) -> float | None:
        """An hour's price; None where it is not known."""
        kind = KINDS.get(self.kind)
        if kind is None:
            return None
        return (kind.spot if self.spot else kind.dollars) + BESIDE

    def __str__(self) -> str:
        return f"{self.kind} {'as spot' if self.spot else 'on demand'}"
