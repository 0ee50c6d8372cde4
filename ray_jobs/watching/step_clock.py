"""Where a rank's time goes: the parts of its training steps, and the work between epochs.

wait            for a batch. On a GPU: how long the device had nothing to do while the loop asked for one. A batch that
                comes late but before the device has finished the last step costs nothing, and counts as nothing.
forward         network and loss
backward        gradients, and what of their averaging over the ranks they hide
communication   the rest of that averaging, from this rank's last gradient to the end of the backward pass, and the
                sums over the ranks that the loss takes. Time that this rank waits for a slower one is in it; averages
                of figures at the end of an epoch are in no part.
optimiser       clipping and update

On a CPU the times are the host's. On a GPU they are the device's own, from events in its stream: what the host does in
advance costs nothing, and what makes the device idle within a part belongs to that part. Nothing here makes the host
wait for the device, except `collect(wait=True)`.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

STEP_PARTS = ("wait", "forward", "backward", "communication", "optimiser")
ASIDE = ("validation", "checkpoints", "figures")

T = TypeVar("T")


class Mark(Protocol):
    """A point in the device's time."""

    def is_past(self) -> bool:
        """Whether the device has come here, so that times can be read."""

    def seconds_until(self, later: "Mark") -> float:
        """Time from here to `later`; both must be past."""

    def wait(self) -> None:
        """Let the host wait until the device comes here."""


class HostMark:
    """A point in the host's time."""

    def __init__(self) -> None:
        self.time = time.perf_counter()

    def is_past(self) -> bool:
        return True

    def seconds_until(self, later: Mark) -> float:
        assert isinstance(later, HostMark)
        return later.time - self.time

    def wait(self) -> None:
        pass


class DeviceMark:
    """A point in a GPU's time: after all work that was queued on the current stream."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def is_past(self) -> bool:
        return bool(self.event.query())

    def seconds_until(self, later: Mark) -> float:
        assert isinstance(later, DeviceMark)
        return float(self.event.elapsed_time(later.event)) / 1000

    def wait(self) -> None:
        self.event.synchronize()


Interval = tuple[str, Mark, Mark]


class StepClock:
    """Measures one rank's steps. `mark` makes a point in the device's time; by default the device's own."""

    def __init__(self, device: torch.device, *, mark: Callable[[], Mark] | None = None) -> None:
        self.seconds = dict.fromkeys((*STEP_PARTS, *ASIDE), 0.0)
        self.started = time.perf_counter()
        self._mark = mark or (DeviceMark if device.type == "cuda" else HostMark)
        self._step: list[Interval] = []
        self._open: tuple[str, Mark] | None = None
        self._unread: deque[list[Interval]] = deque()
        self._last_gradient: tuple[torch.Tensor, Mark] | None = None
        self._hooks: dict[torch.Tensor, RemovableHandle] = {}

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """The batches of `loader`, each with the wait for it; a step ends when the next batch is asked for."""
        remaining = iter(loader)
        while True:
            asked = self._mark()
            batch = next(remaining, None)
            if batch is None:
                return
            self._step = [("wait", asked, self._mark())]
            yield batch
            self._unread.append(self._step)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what the body has the device do as a part of the step, and not as the part around it, if there is one.

        A step may have a part several times.
        """
        around, start = self._open, self._mark()
        if around is not None:
            self._step.append((*around, start))
        self._open = name, start
        yield
        name, start = self._open
        end, local_end = self._mark(), self._take_last_gradient()
        if local_end is None:
            self._step.append((name, start, end))
        else:
            self._step += [(name, start, local_end), ("communication", local_end, end)]
        self._open = None if around is None else (around[0], end)

    def counted(
        self, name: str, work: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return `work` as a function whose calls count as this part of the step."""

        def do_work(tensor: torch.Tensor) -> torch.Tensor:
            with self.part(name):
                return work(tensor)

        return do_work

    @contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """Count the body's time on the host, which must itself wait for the device's results."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def follow_gradients(self, network: nn.Module) -> None:
        """Tell communication from computation in backward passes of `network`, whose gradients the ranks average.

        The first pass shows which gradient comes last; from then on a pass calls one hook. More would cost: each
        needs the interpreter's lock, for which the loader's threads compete.
        """
        for parameter in network.parameters():
            if parameter.requires_grad:
                self._hooks[parameter] = parameter.register_post_accumulate_grad_hook(self._note_gradient)

    def collect(self, *, wait: bool = False) -> list[dict[str, float]]:
        """Return the seconds of each part of the steps that ended since the last call and that the device has done.

        `wait`: also of those that it has still to do. They are added to `seconds`.
        """
        steps: list[dict[str, float]] = []
        while self._unread:
            last = self._unread[0][-1][2]
            if wait:
                last.wait()
            elif not last.is_past():
                break
            step = dict.fromkeys(STEP_PARTS, 0.0)
            for name, start, end in self._unread.popleft():
                step[name] += start.seconds_until(end)
            for name, seconds in step.items():
                self.seconds[name] += seconds
            steps.append(step)
        return steps

    def time_spent(self) -> dict[str, float]:
        """Return the seconds since the clock was made by what they were spent on; `other` is the rest of them."""
        self.collect(wait=True)
        total = time.perf_counter() - self.started
        return {**self.seconds, "other": max(0.0, total - sum(self.seconds.values()))}

    def _note_gradient(self, parameter: torch.Tensor) -> None:
        self._last_gradient = parameter, self._mark()

    def _take_last_gradient(self) -> Mark | None:
        """When the last gradient that is followed came, if one did."""
        if self._last_gradient is None:
            return None
        last, mark = self._last_gradient
        for parameter in [each for each in self._hooks if each is not last]:
            self._hooks.pop(parameter).remove()
        self._last_gradient = None
        return mark
