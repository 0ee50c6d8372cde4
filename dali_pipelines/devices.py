"""The device's name checked before anything is built for it, and made current in every thread that works for it."""

import torch

from storage.errors import InputError


def parse_device(name: str) -> torch.device:
    """ "cpu", "cuda" or "cuda:N" -> a torch device, with a number for a GPU; raises InputError where there is none."""
    kind, _, number = name.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (number and not number.isdigit()):
        raise InputError(f'wanted device "cpu" or "cuda:N", got "{name}"')
    index = int(number or 0)
    if index >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise InputError(f'wanted GPU "{name}", but torch sees {found} GPUs; use "cpu" or install a GPU build of torch')
    return torch.device("cuda", index)


def make_current(device: torch.device) -> None:
    """Make a GPU the calling thread's own: every new thread is on GPU 0.

    It is to the current GPU that DALI takes page-locked memory to belong, and on its stream that a finished batch is
    handed over.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
