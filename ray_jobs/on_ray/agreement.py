"""What one rank knows (a clock, a notice, a wish to stop), all ranks act on at the same step."""

import enum
from typing import Any

import torch


class Wish(enum.IntFlag):
    """What a rank wants after a step."""

    NOTHING = 0
    CHECKPOINT = 1
    STOP = 2
    LOOK_FOR_NOTICES = 4  # asking whether a node is about to go is itself a collective
    LEAVE = 8  # a node goes in a moment: save, and do no step more that would be lost


class Agreement:
    """Exchanges wishes once a step. The answer comes a step later, so that nobody waits for it.

    Wishes travel from host to host: a flag that lies on a GPU would be read behind all that is queued there.
    Every rank must call `exchange` after every step. Only rank 0's and other ranks' wishes together count: a wish of
    one rank is a wish of all.
    """

    def __init__(self, world_size: int) -> None:
        self._world_size = world_size
        self._flags: torch.Tensor | None = None
        self._pending: Any = None

    def exchange(self, wish: Wish) -> Wish:
        """Send this rank's wish; return what any rank wished the step before."""
        if self._world_size == 1:
            return wish
        answer = self._answer()
        self._flags = torch.tensor([bool(wish & each) for each in _WISHES], dtype=torch.float32)
        self._pending = torch.distributed.all_reduce(self._flags, torch.distributed.ReduceOp.MAX, async_op=True)
        return answer

    def finish(self) -> Wish:
        """Wait for what any rank wished in the last step: there is no step after it to hear of it in time."""
        answer = self._answer()
        self._flags = self._pending = None
        return answer

    def _answer(self) -> Wish:
        if self._pending is None or self._flags is None:
            return Wish.NOTHING
        self._pending.wait()
        answer = Wish.NOTHING
        for each, flag in zip(_WISHES, self._flags.tolist(), strict=True):
            answer |= each if flag else Wish.NOTHING
        return answer


_WISHES = (Wish.CHECKPOINT, Wish.STOP, Wish.LOOK_FOR_NOTICES, Wish.LEAVE)
