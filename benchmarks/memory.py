"""How much memory a training step takes: predicted beside counted on a CPU, and what follows for GPUs of some sizes.

`python -m benchmarks memory`. Counted is what torch's CPU allocator has handed out at once while a part of a step runs,
by torch's profiler: every tensor and what operations take for themselves, without what oneDNN takes elsewhere. Resident
is what the process grew by, at most, as Linux sees it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.device import PeakMemory
from benchmarks.report import report
from benchmarks.settings import MemoryBenchmark
from models import UNET_PRESETS, Execution, Loss, LossConfig, Precision, build_unet, choose_precision
from models.device_setup import settle_execution
from models.memory import count_step_bytes, predict_peak
from models.precision import BFLOAT16, FLOAT16, FLOAT32
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.presets import preset
from ray_jobs.training.memory_plan import GIB, Card, Way, decide

MIB = 2**20
CPU = torch.device("cpu")

# Networks, patches and batches whose prediction is held against a CPU.
STEPS: tuple[tuple[str, tuple[int, ...], int], ...] = (
    ("nnunet", (64, 64, 64), 2),
    ("resenc", (64, 64, 64), 2),
    ("tiny", (96, 96, 96), 2),
    ("unet3d", (64, 64, 64), 2),
    ("strided", (96, 96, 96), 2),
    ("nnunet2d", (256, 256), 4),
)
# GiB that torch finds on such cards, about, and what "auto" computes in there.
CARDS = {
    "8 GB": (7.6, BFLOAT16),
    "16 GB (T4)": (14.6, FLOAT16),
    "24 GB (A10G)": (22.0, BFLOAT16),
    "40 GB (A100)": (39.4, BFLOAT16),
    "80 GB (H100)": (79.1, BFLOAT16),
}
MEDIAN_SHAPE = (140, 170, 140)  # of cropped BraTS cases, about
MOST = 64  # patches at once that are looked for


def run(config: MemoryBenchmark) -> None:
    """Print both tables, of which the first can be kept, or the rows of the table that decides."""
    if config.table:
        print_peaks()
        return
    precision = choose_precision(CPU, config.precision)
    steps = [step for step in STEPS if not config.only or step[0] in config.only]
    rows = [compare(*step, precision, Execution()) for step in steps]
    report(f"peak memory of a step, {precision.name}, CPU", rows, config.json)
    report("what fits a GPU, and what presets settle", plan_rows(), None)


def compare(
    name: str, sides: tuple[int, ...], batch: int, precision: Precision, execution: Execution
) -> dict[str, Any]:
    """One row: the peak of the second part of a step that is not the first, predicted and counted."""
    network, loss = UNET_PRESETS[name], Loss(LossConfig())
    resident = PeakMemory(CPU)
    model = build_unet(network, settle_execution(execution, CPU, precision, network)).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.99, nesterov=True, fused=False)
    image = torch.zeros(batch, network.modalities, *sides)
    regions = torch.zeros(batch, network.regions, *sides, dtype=torch.uint8)

    def compute_part() -> None:
        with precision.autocast(CPU):
            outputs = model(image)
        loss(outputs, regions).backward()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # each further one sums the weights' gradients in memory of its own
    compute_part()
    optimiser.step()
    compute_part()
    resident_mib = resident.mib()
    weights = sum(weight.nbytes for weight in model.parameters())
    # Weights, gradients and momentum are there already.
    counted = 3 * weights + image.nbytes + regions.nbytes + count_allocated(compute_part)
    torch.set_num_threads(threads)
    predicted = weights + count_step_bytes(
        network, loss.config, precision, sides=sides, batch=batch, execution=execution, on_gpu=False
    )
    return {
        "network": name,
        "patches": f"{batch} x {'x'.join(map(str, sides))}",
        "predicted MiB": predicted / MIB,
        "counted MiB": counted / MIB,
        "off by": f"{predicted / counted - 1:+.1%}",
        "resident MiB": resident_mib if resident_mib is not None else "",
    }


def count_allocated(work: Callable[[], object]) -> int:
    """Bytes that `work` has from torch's CPU allocator at most, beside what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    results = profiled.profiler
    assert results is not None and results.kineto_results is not None
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def print_peaks() -> None:
    """Print what models/memory_table.py should say."""
    for name, network in UNET_PRESETS.items():
        for bits, precision in ((16, BFLOAT16), (32, FLOAT32)):
            for recompute in (False, True):
                peak = predict_peak(network, LossConfig(), precision, recompute=recompute)
                numbers = f"weights={peak.weights:_}, fixed={peak.fixed:_}, per_voxel={peak.per_voxel:_}"
                print(f'    ("{name}", {bits}, {recompute}): StepPeak({numbers}),')


def plan_rows() -> list[dict[str, Any]]:
    """A row for each preset and card: how many of its patches fit, and what it settles for one worker and for many."""
    rows = []
    for name in ("brats3d", "resenc_m", "resenc_l"):
        config = preset(name)
        for card, (gib, precision) in CARDS.items():
            memory = Card(name=card, memory=round(gib * GIB))
            most = [most_at_once(config, memory, precision, recompute=recompute) for recompute in (False, True)]
            many = config.sampling.global_batch_size
            rows.append(
                {
                    "preset": name,
                    "GPU": card,
                    "GiB": gib,
                    "at once": most[0],
                    "recomputed": most[1],
                    "1 worker": settle_in_words(config, memory, precision, workers=1),
                    "a worker a patch": settle_in_words(config, memory, precision, workers=many),
                }
            )
    return rows


def most_at_once(config: TrainConfig, card: Card, precision: Precision, *, recompute: bool) -> int:
    """How many patches of the preset's sides one worker's GPU holds in a step, beside the feed of as many."""

    def fits(size: int) -> bool:
        batch = replace(config.sampling, global_batch_size=size)
        way = Way(patch_shape=batch.patch_shape, at_once=size, recompute=recompute)
        return way.gpu_bytes(replace(config, sampling=batch), precision, workers=1) <= card.memory

    return next((size - 1 for size in range(1, MOST + 1) if not fits(size)), MOST)


def settle_in_words(config: TrainConfig, card: Card, precision: Precision, *, workers: int) -> str:
    """What the preset's patch, micro-batch and checkpointing come to; a dash where nothing that it allows fits."""
    settled = decide(config, card, precision, workers=workers, shape=MEDIAN_SHAPE)
    if "nothing smaller is allowed" in settled.reason:
        return "–"
    sides = "x".join(map(str, settled.patch_shape))
    return f"{sides}, {settled.micro_batch_size}{', recomputed' if settled.activation_checkpointing else ''}"
