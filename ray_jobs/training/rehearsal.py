"""A step rehearsed by every rank alone, before the first: whether a micro-batch fits the device's memory.

Ranks wait for each other in the middle of a step, so that one which ran out of memory there would let the others hang.
Here none waits until all have tried. Every part of every step has the same shapes, so what is rehearsed should fit
afterwards; where it does not, the next start of the run begins with half (train_loop.py).
Nothing that a run depends on changes: no weight or buffer, no gradient, no random number, no batch of the loader's.
"""

import dataclasses
import gc

import torch

from models import Loss
from models.device_setup import settle_execution
from models.unet import channels_last_format
from ray_jobs.on_ray.session import Progress, Session, from_every_rank
from ray_jobs.training.memory_plan import BATCHES_UNDER_WAY, DALI_COPIES, OPTIMISER_COPIES, note_micro_batch
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.run import Run

OUT_OF_MEMORY = ("CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
REMEDY = "give --execution.activation-checkpointing, a smaller --sampling.patch-shape, or a larger GPU"


class TooLittleMemoryError(RuntimeError):
    """Half of the micro-batch, or a single patch, does not fit the device either."""


def rehearse(run: Run, session: Session) -> Run:
    """Return the run with a micro-batch that fits: its own, or half of it where some rank ran out of memory.

    Every rank must call it. Raises TooLittleMemoryError, on all of them alike.
    """
    size = patches_at_once(run)
    if fits_everywhere(run, session, size):
        return run
    half = size // 2
    if not half:
        raise TooLittleMemoryError(f"out of memory with a single patch in a step: {REMEDY}")
    if not fits_everywhere(run, session, half):
        raise TooLittleMemoryError(f"out of memory with {size} patches at once, and with {half}: {REMEDY}")
    if session.rank == 0:
        message = f"out of memory with {size} patches at once: going on with {half}, and the same global batch"
        session.tell(Progress(stage="note", message=message))
        note_micro_batch(run.plan, session.folder, half)
    config = dataclasses.replace(run.plan.config, micro_batch_size=half)
    return dataclasses.replace(run, plan=dataclasses.replace(run.plan, config=config))


def fits_everywhere(run: Run, session: Session, size: int) -> bool:
    """Whether each rank has the memory for `size` patches at once."""
    fits = fits_here(run, session.device, size)
    gc.collect()  # the error's frames hold tensors
    if session.device.type == "cuda":
        torch.cuda.empty_cache()  # DALI has an allocator of its own
    return all(from_every_rank(fits, session))


def fits_here(run: Run, device: torch.device, size: int) -> bool:
    """Whether `size` patches go forward and backward here, beside all that a later step finds in memory."""
    try:
        beside = hold_what_comes_later(run, device)
        compute_gradients(run, device, size)
        del beside
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device had no memory left: torch says so itself, libraries below it in words of their own."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def halve_at_the_next_start(plan: TrainPlan, run: Run, session: Session) -> None:
    """Note half of the micro-batch, where memory settles it, for the start that follows a step without memory."""
    half = patches_at_once(run) // 2
    if half and "micro_batch_size" in plan.config.by_memory:
        session.tell(Progress(stage="note", message=f"out of memory: the next start computes {half} patches at once"))
        note_micro_batch(plan, session.folder, half)


def hold_what_comes_later(run: Run, device: torch.device) -> list[torch.Tensor]:
    """Take the memory of gradients, of an optimiser that has not stepped yet, of batches under way and of DALI's work.

    As memory_plan.py counts them: DALI has computed nothing by then.
    """
    config, weights = run.plan.config, list(run.model.parameters())
    copies = 1 + (0 if run.optimiser.state else OPTIMISER_COPIES[config.optimiser.name])
    held = [torch.empty_like(weight) for weight in weights for _ in range(copies)]
    batches = config.ready_batches + BATCHES_UNDER_WAY - 1  # the last is the one that is computed
    held += [part for _ in range(batches) for part in empty_batch(run, device, share_of(run))]
    voxels = share_of(run) * config.model.modalities * torch.Size(config.sampling.patch_shape).numel()
    return [*held, torch.empty(DALI_COPIES * voxels, device=device)]


def share_of(run: Run) -> int:
    """Patches of a step that are this rank's."""
    return run.loader.shard.local_batch_size(run.loader.sampling.global_batch_size)


def patches_at_once(run: Run) -> int:
    """Patches of a part of this rank's share: those of the micro-batch, or all."""
    share = share_of(run)
    return min(run.plan.config.micro_batch_size or share, share)


def compute_gradients(run: Run, device: torch.device, size: int) -> None:
    """Forward and backward of empty patches, without other ranks, and without touching the weights' gradients."""
    image, regions = empty_batch(run, device, size)
    image.zero_()
    run.model.train()
    buffers = [(buffer, buffer.clone()) for buffer in run.model.buffers()]  # such as batch normalisation's means
    # Through the wrapper, by which torch.compile cuts the graph for DDP.
    with run.gradients_kept_local(), run.precision.autocast(device):
        outputs = run.parallel(image)
    config = run.plan.config
    alone = Loss(config.loss, add_up=lambda sums: sums, region_labels=config.model.region_labels).to(device)
    loss = alone(outputs, regions.zero_())
    weights = [weight for weight in run.model.parameters() if weight.requires_grad]
    torch.autograd.grad(loss, weights, allow_unused=True)
    for buffer, before in buffers:
        buffer.copy_(before)


def empty_batch(run: Run, device: torch.device, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and regions as the loader hands them over, not filled."""
    config = run.plan.config
    dimensions, sides = config.sampling.dimensions, config.sampling.patch_shape
    channels_last = settle_execution(config.execution, device, run.precision, config.model).channels_last
    image = torch.empty(
        (size, config.model.modalities, *sides),
        device=device,
        dtype=torch.float16 if run.precision.use_scaler else torch.float32,
        memory_format=channels_last_format(dimensions) if channels_last else torch.contiguous_format,
    )
    return image, torch.empty((size, config.model.regions, *sides), device=device, dtype=torch.uint8)
