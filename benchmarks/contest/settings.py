"""What trainings beside peers can be told. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

AS_IT_IS = "as-it-is"
"""The preset laptop without a change."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Trainings beside peers', each a record of its own; killed at any moment, the same command goes on."""

    source: Path
    """Folder of labelled BraTS cases."""
    folder: Path = Path(".bench/contest")
    """Where stores, weights and predictions are kept meanwhile."""
    records: Path = Path("benchmarks/records/accuracy")
    """Where each run's record goes. Runs that have one are not done again."""


@dataclass(frozen=True, kw_only=True)
class AccuracyBenchmark(Contest):
    """Measure accuracy after equal CPU time beside nnU-Net v2 and MONAI, on held-out cases, by one scorer."""

    cpu_minutes: tuple[float, ...] = (15.0, 60.0)
    """Budgets of training, of all its processes together. Conversion and prediction are counted apart."""
    methods: tuple[str, ...] = ()
    """Who takes part, by the names in benchmarks/contest/methods.py; all without it."""
    splits: int = 2
    """A quarter of the cases tests, others in each split."""
    short_too: bool = False
    """Also do runs of fewer than 200 steps; else they end as soon as it is plain that they would be."""


@dataclass(frozen=True, kw_only=True)
class MissingScansBenchmark(Contest):
    """Measure what `--sampling.modality-dropout` costs, and what it is worth beside networks of fewer scans."""

    records: Path = Path("benchmarks/records/missing-scans")
    """Where each run's record goes. Runs that have one are not done again."""
    cpu_minutes: float = 20.0
    """Of each training, of all its processes together."""


@dataclass(frozen=True, kw_only=True)
class LaptopTrialsBenchmark(Contest):
    """Measure a change of the preset laptop on cases that its trainings never saw, beside the preset as it is."""

    records: Path = Path("benchmarks/records/laptop-trials")
    """Where each fold's record goes. Folds that have one are not done again."""
    name: str = AS_IT_IS
    """What the change is called. Default: the preset as it is, which all others are compared with."""
    flags: str = ""
    """What it is: flags of train.py, in quotes."""
    inference: str = ""
    """Flags of predict.py in their place: the networks of the preset as it is predict by them, none is trained."""
    batch: int = 2
    """Patches of a step."""
    cpu_minutes: float = 15.0
    """Of each fold's training, of all its processes together."""
    folds: int = 2
    """Each tests on its part of the cases and trains on the others. Two score as many cases as four for half the time,
    by networks that saw fewer."""


@dataclass(frozen=True, kw_only=True)
class ParityBenchmark(Contest):
    """Measure whether training is worth what nnU-Net's trainer is: one network, the same steps, pairs by seed."""

    records: Path = Path("benchmarks/records/parity")
    """Where each run's record goes. Runs that have one are not done again."""
    steps: int = 1000
    """Of each training."""
    seeds: int = 3
    """Trainings of each."""
