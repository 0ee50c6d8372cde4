"""What each benchmark can be told, without what it imports: --help and typing errors are answered at once."""

import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from models import ImportedConfig, Objective, PrecisionName


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A benchmark whose figures can be kept."""

    json: Path | None = None
    """Write the figures to this file, too."""


@dataclass(frozen=True, kw_only=True)
class ConvertBenchmark(Recorded):
    """Measure the conversion of a BraTS folder with one worker, beside nnU-Net v2's preprocessing."""

    source: Path
    """Folder with BraTS cases."""
    cases: int | None = None
    """How many of its cases to convert; all without it."""
    peer_python: Path | None = Path(sys.executable) if find_spec("nnunetv2") else None
    """A Python that has nnunetv2 installed, as this one may; it knows the names of BraTS 2018-2021 only."""


@dataclass(frozen=True, kw_only=True)
class ArchivesBenchmark(Recorded):
    """Measure the conversion of a zip, a tar and a tar.gz with one worker, beside unpacking and then converting."""

    source: Path
    """Folder with BraTS cases, of which the archives are made."""
    cases: int | None = None
    """How many of its cases to pack; all without it."""


@dataclass(frozen=True, kw_only=True)
class StoreReadsBenchmark(Recorded):
    """Measure reads of patches and cases: from the store, and from the node's cache of decoded cases."""

    store: str
    """A converted cohort, path or URL."""
    cases: int = 4
    """How many of its cases to read."""
    patches: int = 16
    """How many random patches to read."""
    patch_side: int = 128
    """Voxels a side."""


@dataclass(frozen=True, kw_only=True)
class LoaderBenchmark(Recorded):
    """Measure what a training patch costs from the cache to the trainer, 3-D and 2-D."""

    store: str
    """A converted cohort, path or URL."""
    patches: int = 48
    """Timed in each stage, after as many batches as fill the queues."""
    patch_shape: tuple[int, int, int] = (128, 128, 128)
    slice_shape: tuple[int, int] = (192, 160)
    batch_size: int = 2
    """Patches a batch; slices come eight times as many."""
    read_threads: int = 1
    graph_threads: int = 1
    """Threads that compute patches."""
    device: str = "auto"
    """cpu, or cuda:N for gpu_full as well; auto takes a GPU where there is one."""


@dataclass(frozen=True, kw_only=True)
class PeersLoaderBenchmark(Recorded):
    """Measure the training loaders of nnU-Net v2, MONAI and TorchIO beside ours; those not installed are left out."""

    store: str
    """A converted cohort, path or URL."""
    patches: int = 24
    """Timed for each loader, after two."""


@dataclass(frozen=True, kw_only=True)
class TrainStepBenchmark(Recorded):
    """Measure a training step on random patches, without Ray: time, memory and arithmetic."""

    preset: str = "tiny"
    """A U-Net by its name in models.UNET_PRESETS."""
    model: ImportedConfig = field(default_factory=ImportedConfig)
    patch: tuple[int, ...] | None = None
    """Patch sides; by default 128 on a GPU and 48 on a CPU, 2-D four times that."""
    batch: int = 2
    steps: int = 5
    """Timed steps of each row, turn about, after two of warm-up; the fastest counts, others measure neighbours."""
    device: str = "auto"
    """cpu or cuda:N; auto takes a GPU where there is one."""
    precision: PrecisionName = "auto"
    channels_last: bool | None = None
    """Memory layout of the default network; without it as training decides by device and precision."""
    activation_checkpointing: bool = False
    """Of the default network."""
    compile: bool = False
    """A row for the default network compiled: its first step takes a minute, and wants a C++ compiler or Triton."""
    peers: bool = False
    """Rows for pytorch-3dunet's and MONAI's U-Nets of these widths, nnU-Net's own, and the preset beside --model."""


@dataclass(frozen=True, kw_only=True)
class InferenceBenchmark(Recorded):
    """Measure whole-volume inference, our sliding window beside MONAI's, and what counting thresholds adds to it."""

    preset: str = "strided"
    """A 3-D U-Net by its name in models.UNET_PRESETS."""
    volume: tuple[int, int, int] = (140, 170, 140)
    """Voxels along D, H, W: about those of a brain-cropped BraTS case."""
    window: tuple[int, int, int] = (96, 96, 96)
    rounds: int = 3
    """Both are run this often, turn about; the fastest of each is reported."""
    device: str = "auto"
    """cpu or cuda:N; auto takes a GPU where there is one."""
    precision: PrecisionName = "auto"


@dataclass(frozen=True, kw_only=True)
class WholeHeadBenchmark(Recorded):
    """Measure on a CPU what whole heads cost a trained network, ours and MONAI as each is shipped, and their Dice."""

    checkpoint: str = ".bench/demo/runs/demo"
    """A checkpoint, or a run's folder; by default what the demo benchmark left."""
    store: str | None = None
    """The cohort it was trained on, path or URL: its test cases are predicted. Default: as the run's summary says."""
    cases: int = 2
    """How many of them."""
    rounds: int = 2
    """All are run this often, turn about; the least CPU time of each is reported."""
    threads: int = 2
    cache: Path = Path(".bench/cache")
    """Where decoded cases are kept."""


@dataclass(frozen=True, kw_only=True)
class PredictionBenchmark(Recorded):
    """Measure what each part of a prediction costs a case: reading, network, writing, scores, figures."""

    checkpoint: str = ".bench/demo/runs/demo"
    input: str | None = None
    """A folder of labelled NIfTI cases or a store; the run's own store without it."""
    cases: int = 2
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class ScoreBenchmark(Recorded):
    """Measure scores by the rules of 2026 beside brats-evaluate, and compare every number of both."""

    source: Path | None = None
    """Folder of labelled BraTS cases, whose bent labels are scored; without it synthetic tumours of 240 x 240 x 155."""
    task: str = "gli-2024"
    """gli-2024, ped-2024, met-2024, men-rt, men or goat: brats-evaluate has a configuration for each."""
    cases: int = 4
    """How many to score in one run; the cost of one alone is measured beside it."""
    rounds: int = 3
    """All are run this often, turn about; the least CPU time of each is reported."""
    program: Path = Path(".venv-score/bin/brats-evaluate")
    """brats-evaluate of brats-evaluation 0.0.10; `make .venv-score/.installed` installs it there."""


@dataclass(frozen=True, kw_only=True)
class DecisionsBenchmark(Recorded):
    """Measure what decisions gain on others when they are chosen on few cases, from stored out-of-fold evidence."""

    evidence: tuple[Path, ...] = ()
    """Folders of the finished folds of one cross-validation, or their evidence.npz."""
    held_out: tuple[str, ...] = ()
    """Folders of finished runs whose validation and test cases are predicted for it: of runs that kept no evidence."""
    chosen_on: tuple[int, ...] = (2, 4, 8)
    """Subjects drawn to choose on; the others are scored."""
    draws: int = 200
    """Of each number."""
    objective: Objective = "iou"
    """What is maximised and reported: iou or dice."""
    seed: int = 0
    """Of the draws."""


@dataclass(frozen=True, kw_only=True)
class EndToEndBenchmark(Recorded):
    """Measure whether the loader feeds the network: each alone, both together, and the share of time that waits."""

    preset: str = "demo"
    """A training preset: its patches, augmentation, network, loss and optimiser."""
    store: str | None = None
    """A converted cohort, path or URL; without it a synthetic one is written first."""
    patch: tuple[int, ...] | None = None
    """Patch sides instead of the preset's."""
    batch: int | None = None
    """Patches a step instead of the preset's."""
    device: str = "auto"
    """cpu or cuda:N; auto takes a GPU where there is one."""
    precision: PrecisionName = "auto"
    steps: int = 30
    """Timed in each stage, after three of warm-up."""
    sleeping_step: tuple[float, ...] = ()
    """Instead of training, sleep for these multiples of the loader's time per batch."""
    ready_batches: tuple[int, ...] = ()
    """How many batches the sleeping steps' loaders hold ready; the default is training's."""


@dataclass(frozen=True, kw_only=True)
class CpuTableBenchmark(Recorded):
    """Measure a training step on this CPU in each arithmetic and layout, for models/cpu_table.py."""

    rounds: int = 4
    """Steps of each variant after the first, turn about; the one that takes the least CPU time is reported."""


@dataclass(frozen=True, kw_only=True)
class MemoryBenchmark(Recorded):
    """Measure on a CPU the peak memory that is predicted for training steps, and say what fits GPUs of some sizes."""

    precision: PrecisionName = "auto"
    only: tuple[str, ...] = ()
    """Networks to compare; six without it."""
    table: bool = False
    """Measure nothing, and print models/memory_table.py's rows anew."""


@dataclass(frozen=True, kw_only=True)
class GrowthBenchmark(Recorded):
    """Measure what grows with a cohort's cases and a search's trials, at three sizes, and write it as formulas."""

    cases: tuple[int, ...] = (100, 1251, 2500)
    """Of cohorts that are converted and opened."""
    trials: tuple[int, ...] = (10, 30, 100)
    """Of searches whose trials pretend to train."""


@dataclass(frozen=True, kw_only=True)
class ProcessesBenchmark(Recorded):
    """Measure how much memory each process of convert, train and predict needs at most, as the commands are typed."""

    source: Path | None = None
    """Folder with BraTS cases; a few synthetic ones as large as BraTS's without it."""
    cases: int = 3
    """How many synthetic ones."""


@dataclass(frozen=True, kw_only=True)
class DemoBenchmark(Recorded):
    """Measure `make train` after the installation, from the command to the first step and to the end."""

    workers: int | None = None
    """Training processes; as many as by default without it."""


@dataclass(frozen=True, kw_only=True)
class DemoSeedsBenchmark(Recorded):
    """Measure how far the scores of `make train` hang on the seed; runs that have ended are not done again."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of weights, patches and augmentation; the cohort is the same."""
    precisions: tuple[PrecisionName, ...] = ("auto",)
    """What to compute in; each seed is trained in each of them."""


@dataclass(frozen=True, kw_only=True)
class InstallationBenchmark(Recorded):
    """Measure the size of the installation beside nnU-Net v2's and MONAI's, each in a fresh environment."""

    only: tuple[str, ...] = ()
    """How the rows begin that are wanted; all without it."""


@dataclass(frozen=True, kw_only=True)
class Laptop:
    """Measure all that a laptop can, one after the other, into benchmarks/records and BENCHMARKS.md: `make bench`."""

    source: Path | None = None
    """Folder of BraTS cases; synthetic ones without it."""
    only: tuple[str, ...] = ()
    """Names of records; all without it."""


@dataclass(frozen=True, kw_only=True)
class Bars(Recorded):
    """Write what a machine without a GPU waits for, what it should be and what it is by the records."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Write BENCHMARKS.md from the records; measures nothing."""
