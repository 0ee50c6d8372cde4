"""What training patches took: added up over epochs and starts of a run, and shown as rates."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Patches trained on, in how many seconds, of which waiting for them: on one rank, or a mean over all."""

    patches: int = 0
    seconds: float = 0.0
    wait: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            patches=self.patches + other.patches, seconds=self.seconds + other.seconds, wait=self.wait + other.wait
        )

    @property
    def patches_per_second(self) -> float:
        """Training's throughput; 0 where no time was spent."""
        return self.patches / self.seconds if self.seconds else 0.0

    @property
    def data_wait_fraction(self) -> float:
        """Share of the time that was waited for data; 0 where no time was spent."""
        return self.wait / self.seconds if self.seconds else 0.0

    def rates(self) -> dict[str, float]:
        """Both under their names, for events and summaries."""
        return {"patches_per_second": self.patches_per_second, "data_wait_fraction": self.data_wait_fraction}
