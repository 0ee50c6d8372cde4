"""Patch, micro-batch, and whether activations are recomputed: what the smallest GPU's memory and the cases settle.

Settled where the run's GPUs are known, which is in its workers: a cluster may start from none. What was settled at the
first start lies in the run's folder (a search's, for all its trials) as memory.json.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from statistics import median_low
from typing import Any

import torch

from models import Precision, UNetConfig, choose_precision
from models.memory import NotPredictedError, find_peak
from ray_jobs.on_ray.session import Progress, Session, from_every_rank
from ray_jobs.settings.config import PATCH, TrainConfig, give_by_hand
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.run import same_precision
from storage import open_store
from storage.store.objects import Objects

MEMORY = "memory.json"
GIB = 2**30

# Assumed, not measured: all of it is left free beside what a step is predicted to take.
CONTEXT = 2 * GIB  # the CUDA context with torch's and DALI's kernels, the buffers of cuBLAS, cuDNN and NCCL
SLACK = 1.2  # of torch's own memory: what its cache cannot use, and by how much the prediction may be off
DALI_COPIES = 8  # of a batch's images in float32, in which DALI's graph works, the bank of noise among them
BATCHES_UNDER_WAY = 3  # besides those held ready: the one computed, the one trained on, the one before it

OPTIMISER_COPIES = {"sgd": 1, "adam": 2, "adamw": 2}  # of the weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """The smallest GPU of a run: its name, and all of its memory in bytes."""

    name: str
    memory: int

    def __str__(self) -> str:
        # A driver keeps some bytes more or fewer for itself.
        return f"{self.name}, {round(self.memory / GIB)} GiB"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settled:
    """What was settled, for which GPU and how many workers, and why in words."""

    patch_shape: tuple[int, ...]
    micro_batch_size: int | None
    activation_checkpointing: bool
    card: Card | None
    workers: int
    asked: str
    """What was left to memory, and all that it was settled around."""
    reason: str

    def is_for(self, card: Card | None, workers: int, config: TrainConfig) -> bool:
        """Whether it may stay: for the same kind of GPU, and settled around the same."""
        return (self.card and str(self.card), self.workers, self.asked) == (card and str(card), workers, ask(config))

    def apply(self, config: TrainConfig) -> TrainConfig:
        """Return `config` with what it leaves to memory as it was settled, and nothing left to memory any more."""
        sampling, execution, micro_batch = config.sampling, config.execution, config.micro_batch_size
        if PATCH in config.by_memory:
            sampling = dataclasses.replace(sampling, patch_shape=self.patch_shape)
        if "execution.activation_checkpointing" in config.by_memory:
            execution = dataclasses.replace(execution, activation_checkpointing=self.activation_checkpointing)
        if "micro_batch_size" in config.by_memory:
            micro_batch = self.micro_batch_size
        return dataclasses.replace(
            config, sampling=sampling, execution=execution, micro_batch_size=micro_batch, by_memory=()
        )

    def encode(self) -> bytes:
        """As memory.json."""
        return (json.dumps(dataclasses.asdict(self), indent=2) + "\n").encode()

    @classmethod
    def decode(cls, raw: bytes) -> "Settled":
        """The inverse of `encode`."""
        values: dict[str, Any] = json.loads(raw)
        card = None if values["card"] is None else Card(**values["card"])
        return cls(**values | {"patch_shape": tuple(values["patch_shape"]), "card": card})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """One way to compute a step: patches of which sides, how many of them at once, activations kept or recomputed."""

    patch_shape: tuple[int, ...]
    at_once: int
    recompute: bool

    def __str__(self) -> str:
        sides = " x ".join(map(str, self.patch_shape))
        return f"patches of {sides}, {self.at_once} at once, activations {'recomputed' if self.recompute else 'kept'}"

    def gpu_bytes(self, config: TrainConfig, precision: Precision, *, workers: int) -> int:
        """Return what it is predicted to take of a GPU's memory, with all that lies there beside it."""
        peak = find_peak(config.model, config.loss, precision, recompute=self.recompute, sides=self.patch_shape)
        copies = weight_copies(config) + (workers > 1)  # the last in DDP's buckets
        voxels = torch.Size(self.patch_shape).numel()
        step = copies * peak.weights + peak.step(voxels * self.at_once)
        share = voxels * config.sampling.global_batch_size // workers
        image = config.model.modalities * (2 if precision.use_scaler else 4)
        batches = (config.ready_batches + BATCHES_UNDER_WAY) * (image + config.model.regions)
        return round(CONTEXT + SLACK * step + share * (batches + DALI_COPIES * config.model.modalities * 4))


def weight_copies(config: TrainConfig) -> int:
    """Return how many copies of the weights the optimiser and the average keep."""
    return OPTIMISER_COPIES[config.optimiser.name] + (config.optimiser.ema_decay is not None)


def settle(plan: TrainPlan, session: Session) -> TrainPlan:
    """Return the plan with nothing left to memory any more: as it was settled before, or is now. A collective."""
    config = plan.config
    if not config.by_memory:
        return plan
    precision = same_precision(choose_precision(session.device, config.precision, config.model), session)
    cards = from_every_rank(find_card(session.device), session)
    card = min((each for each in cards if each is not None), key=lambda each: each.memory, default=None)
    settled = None
    if session.rank == 0:
        folder = Objects(plan.settled_in or session.folder)
        settled = settle_in(folder, plan, card, precision, workers=session.world_size)
        session.tell(Progress(stage="note", message=settled.reason))
    settled = from_every_rank(settled, session)[0]
    assert settled is not None
    return dataclasses.replace(plan, config=settled.apply(config))


def find_card(device: torch.device) -> Card | None:
    """Return the GPU `device`; None for a CPU."""
    if device.type != "cuda":
        return None
    found = torch.cuda.get_device_properties(device)
    return Card(name=found.name, memory=found.total_memory)


def settle_in(folder: Objects, plan: TrainPlan, card: Card | None, precision: Precision, *, workers: int) -> Settled:
    """Return what `folder` has settled, or settle it there: the patch once, the rest anew for other GPUs or workers."""
    config, raw = plan.config, folder.get(MEMORY)
    before = None if raw is None else Settled.decode(raw)
    if before is not None and before.is_for(card, workers, config):
        return before
    asked = ask(config)
    if before is not None:
        sampling = dataclasses.replace(config.sampling, patch_shape=before.patch_shape)
        config = give_by_hand(dataclasses.replace(config, sampling=sampling), (PATCH,))
    store = open_store(plan.store)
    shape = median_shape([config.frame.box(store.info(case_id))[1] for case_id in plan.splits.train])
    settled = dataclasses.replace(decide(config, card, precision, workers=workers, shape=shape), asked=asked)
    if before is not None:
        folder.put(MEMORY, settled.encode())
    elif not folder.create(MEMORY, settled.encode()):  # of trials that start at once the first settles it for all
        return settle_in(folder, plan, card, precision, workers=workers)
    return settled


def median_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return each side's median; of two in the middle the smaller."""
    return tuple(median_low(sides) for sides in zip(*shapes, strict=True))


def decide(
    config: TrainConfig, card: Card | None, precision: Precision, *, workers: int, shape: tuple[int, ...]
) -> Settled:
    """Settle what `config` leaves to memory by the first of its ways that fits. `shape`: the cases' median."""
    share = config.sampling.global_batch_size // workers
    given = Way(
        patch_shape=config.sampling.patch_shape,
        at_once=min(config.micro_batch_size or share, share),
        recompute=config.execution.activation_checkpointing,
    )
    if card is None:
        return make_settled(config, given, None, workers, f"no GPU, so memory settles nothing: {given}, as given")
    ways = list(list_ways(config, shape, share=share))
    try:
        needed = [way.gpu_bytes(config, precision, workers=workers) for way in ways]
    except NotPredictedError as error:
        return make_settled(config, given, card, workers, f"memory settles nothing, as {error}: {given}, as given")
    chosen = next((index for index, size in enumerate(needed) if size <= card.memory), len(ways) - 1)
    reason = (
        f"settled by memory: {ways[chosen]}; predicted to take {needed[chosen] / GIB:.1f} of the "
        f"{card.memory / GIB:.1f} GiB of the smallest GPU ({card.name})"
    )
    if needed[chosen] > card.memory:
        reason += ", and nothing smaller is allowed"
    elif chosen:
        reason += f", {needed[chosen - 1] / GIB:.1f} with {ways[chosen - 1]}"
    reason += f"; the cases' median is {' x '.join(map(str, shape))}"
    return make_settled(config, ways[chosen], card, workers, reason)


def make_settled(config: TrainConfig, way: Way, card: Card | None, workers: int, reason: str) -> Settled:
    """Return what a way settles; what is given or, without a card, all stays as it is given."""
    by_memory = card is not None and "micro_batch_size" in config.by_memory
    return Settled(
        patch_shape=way.patch_shape,
        micro_batch_size=way.at_once if by_memory else config.micro_batch_size,
        activation_checkpointing=way.recompute,
        card=card,
        workers=workers,
        asked=ask(config),
        reason=reason,
    )


def ask(config: TrainConfig) -> str:
    """Return what `config` leaves to memory and what it settles in its place, as a text to compare."""
    given = (config.micro_batch_size, config.execution.activation_checkpointing)
    around = (config.sampling.global_batch_size, config.optimiser.name, config.optimiser.ema_decay, config.precision)
    text = f"{sorted(config.by_memory)} {given} {around} {config.model} {config.loss}"
    for unknown in ("network=None, arguments=(), ", ", region_labels=None", ", function=None, arguments=()"):
        text = text.replace(unknown, "")  # versions that did not know them wrote the rest
    return text


def list_ways(config: TrainConfig, shape: tuple[int, ...], *, share: int) -> Iterator[Way]:
    """Yield the ways that `config` allows, the best first.

    The largest patch, and for it as many at once as may be; then with activations recomputed; then a smaller patch.
    Fewer at once cost next to nothing, recomputing a third more arithmetic, and a smaller patch what the network sees.
    Of an imported network neither which patches it takes is known nor how it recomputes.
    """
    by_memory = [name for name in config.by_memory if config.model.network is None or name == "micro_batch_size"]
    patches = [config.sampling.patch_shape]
    if PATCH in by_memory:
        patches = list(list_patches(config.model, config.sampling.patch_shape, shape))
    recomputed = [config.execution.activation_checkpointing]
    if "execution.activation_checkpointing" in by_memory:
        recomputed = [False, True]
    at_once = [min(config.micro_batch_size or share, share)]
    if "micro_batch_size" in by_memory:
        at_once = [size for size in range(share, 0, -1) if share % size == 0]
    for patch in patches:
        for recompute in recomputed:
            for size in at_once:
                yield Way(patch_shape=patch, at_once=size, recompute=recompute)


def list_patches(network: UNetConfig, largest: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield sides that the network takes, none above `largest` nor the cases' median `shape` where it can be helped.

    From the largest down, each time with less of the side that has most of its median, as nnU-Net plans.
    """
    step, shape = network.smallest_side, shape[-network.dimensions :]
    sides = [max(step, min(most, side) // step * step) for most, side in zip(largest, shape, strict=True)]
    if not network.takes(sides):  # one voxel would be left on the coarsest level
        sides[shape.index(max(shape))] += step
    while network.takes(sides):
        yield tuple(sides)
        shares = [side / whole if side > step else 0.0 for side, whole in zip(sides, shape, strict=True)]
        sides[shares.index(max(shares))] -= step


def note_micro_batch(plan: TrainPlan, folder: str, size: int) -> None:
    """Keep a smaller micro-batch than was settled, where one was: later starts on such GPUs begin with it."""
    objects = Objects(plan.settled_in or folder)
    raw = objects.get(MEMORY)
    if raw is not None:
        settled = dataclasses.replace(Settled.decode(raw), micro_batch_size=size)
        reason = f"{settled.reason}; {size} at once since more ran out of memory"
        objects.put(MEMORY, dataclasses.replace(settled, reason=reason).encode())
