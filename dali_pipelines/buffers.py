"""Memory that patches are read into, used again batch after batch.

A fresh 20 MB array costs as much in page faults as in copying; and from page-locked memory a GPU fetches a batch by
itself, while from any other the CPU copies it once more.
"""

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray

Buffer = NDArray[np.uint8]

_ROUND_TO = 1 << 20


class BufferPool:
    """Buffers of at least the size asked for; any number of threads may take and give back."""

    def __init__(self, *, page_locked: bool = False) -> None:
        self._page_locked = page_locked
        self._free: deque[Buffer] = deque()
        self.made = 0

    def take(self, size: int) -> Buffer:
        """A buffer of `size` bytes or more, with whatever it held before."""
        try:
            buffer = self._free.pop()
        except IndexError:
            return self._make(size)
        # One that is too small is let go: sizes vary little, so all soon have the largest.
        return buffer if buffer.size >= size else self._make(size)

    def give_back(self, buffer: Buffer) -> None:
        """The buffer's contents are no longer needed."""
        self._free.append(buffer)

    def _make(self, size: int) -> Buffer:
        self.made += 1
        size = -(-size // _ROUND_TO) * _ROUND_TO
        if self._page_locked:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        return np.empty(size, np.uint8)
