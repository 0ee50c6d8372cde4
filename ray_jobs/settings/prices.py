"""What machines cost and which GPUs they have: list prices, and how far a snapshot of spot prices lay below them."""

import dataclasses
from collections.abc import Mapping

SNAPSHOT = "AWS's list prices of us-west-2, from memory; spot at 47 % of them, the most of a snapshot of November 2026"
SPOT_SHARE = 0.47  # g4dn.xlarge took 36 to 47 %; other types were not looked at
BESIDE = 0.021  # dollars an hour for a node's disk of 150 GB and its public address


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """An instance type: dollars an hour on demand, its GPUs, their name and how much each of them holds, in GiB."""

    dollars: float
    gpus: int
    card: str = "T4"
    gpu_gib: float = 14.6  # as torch finds it


KINDS: Mapping[str, Kind] = {
    "g4dn.xlarge": Kind(dollars=0.526, gpus=1),
    "g4dn.2xlarge": Kind(dollars=0.752, gpus=1),
    "g4dn.4xlarge": Kind(dollars=1.204, gpus=1),
    "g4dn.8xlarge": Kind(dollars=2.176, gpus=1),
    "g4dn.12xlarge": Kind(dollars=3.912, gpus=4),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine of EC2's: instance type, and whether it is a spot instance."""

    kind: str
    spot: bool

    @property
    def dollars(self) -> float | None:
        """An hour's price; None where it is not known."""
        if self.kind not in KINDS:
            return None
        return KINDS[self.kind].dollars * (SPOT_SHARE if self.spot else 1.0) + BESIDE

    def __str__(self) -> str:
        return f"{self.kind} {'as spot' if self.spot else 'on demand'}"
