"""The parts of a step: on a device whose time the test sets, on the CPU, and with two ranks that average gradients."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from ray_jobs.watching.step_clock import STEP_PARTS, StepClock

ROOT = Path(__file__).parents[3]


class Device:
    """A device that works through its queue later than the host fills it."""

    def __init__(self) -> None:
        self.host = 0.0  # time on the host
        self.free = 0.0  # when the device will have done all that is queued
        self.waits = 0

    def queue(self, seconds: float) -> None:
        """Give the device work."""
        self.free = max(self.free, self.host) + seconds

    def mark(self) -> "DeviceTime":
        self.free = max(self.free, self.host)
        return DeviceTime(self, self.free)


class DeviceTime:
    def __init__(self, device: Device, at: float) -> None:
        self.device, self.at = device, at

    def is_past(self) -> bool:
        return self.device.host >= self.at

    def seconds_until(self, later: "DeviceTime") -> float:
        assert self.is_past() and later.is_past(), "read before the device came here"
        return later.at - self.at

    def wait(self) -> None:
        self.device.waits += 1
        self.device.host = max(self.device.host, self.at)


def run_steps(device: Device, clock: StepClock, *, batch_takes: float, step_takes: float, steps: int = 5) -> None:
    def load() -> object:
        for _ in range(steps):
            device.host += batch_takes
            yield object()

    for _ in clock.batches(load()):
        with clock.part("forward"):
            device.queue(step_takes / 4)
        with clock.part("backward"):
            device.queue(step_takes / 2)
        with clock.part("optimiser"):
            device.queue(step_takes / 4)


def test_a_batch_that_comes_before_the_device_is_idle_costs_nothing() -> None:
    device = Device()
    clock = StepClock(torch.device("cpu"), mark=device.mark)
    run_steps(device, clock, batch_takes=0.5, step_takes=1.0)
    steps = clock.collect(wait=True)
    # Of the first batch nothing can be hidden.
    assert [step["wait"] for step in steps] == pytest.approx([0.5, 0, 0, 0, 0])
    assert sum(clock.seconds.values()) == pytest.approx(0.5 + 5 * 1.0)


def test_the_wait_is_what_the_device_stood_idle() -> None:
    device = Device()
    clock = StepClock(torch.device("cpu"), mark=device.mark)
    run_steps(device, clock, batch_takes=1.5, step_takes=1.0)
    waits = [step["wait"] for step in clock.collect(wait=True)]
    assert waits == pytest.approx([1.5, 0.5, 0.5, 0.5, 0.5])  # the host stood 1.5 in next() each time


def test_collecting_never_makes_the_host_wait_unless_told() -> None:
    device = Device()
    clock = StepClock(torch.device("cpu"), mark=device.mark)
    run_steps(device, clock, batch_takes=0.0, step_takes=1.0)
    assert clock.collect() == []  # the host is at 0, the device has all five steps to do
    device.host = 2.5
    assert len(clock.collect()) == 2
    assert device.waits == 0
    assert len(clock.collect(wait=True)) == 3
    assert device.waits == 3
    assert clock.seconds["backward"] == pytest.approx(2.5)
    assert clock.collect(wait=True) == []


def test_a_part_may_come_several_times_in_a_step() -> None:
    device = Device()
    clock = StepClock(torch.device("cpu"), mark=device.mark)
    for _ in clock.batches([object()]):
        for _ in range(3):
            with clock.part("forward"):
                device.queue(1.0)
    (step,) = clock.collect(wait=True)
    assert step == {**dict.fromkeys(STEP_PARTS, 0.0), "forward": 3.0}


def test_a_part_within_another_is_not_counted_twice() -> None:
    device = Device()
    clock = StepClock(torch.device("cpu"), mark=device.mark)

    def add_up(tensor: torch.Tensor) -> torch.Tensor:
        device.queue(4.0)
        return tensor + 1

    counted = clock.counted("communication", add_up)
    for _ in clock.batches([object()]):
        with clock.part("forward"):
            device.queue(1.0)
            assert counted(torch.ones(1)) == 2
            device.queue(2.0)
        with clock.part("backward"):
            device.queue(3.0)
    (step,) = clock.collect(wait=True)
    assert step == {"wait": 0.0, "forward": 3.0, "backward": 3.0, "communication": 4.0, "optimiser": 0.0}


def test_host_times_on_the_cpu() -> None:
    clock = StepClock(torch.device("cpu"))
    for _ in clock.batches(iter([1, 2])):
        with clock.part("forward"):
            time.sleep(0.02)
    with clock.aside("validation"):
        time.sleep(0.03)
    assert len(clock.collect()) == 2
    before = time.perf_counter()
    spent = clock.time_spent()
    after = time.perf_counter()
    assert spent["forward"] >= 0.04
    assert spent["validation"] >= 0.03
    assert spent["backward"] == 0
    assert before - 1e-6 <= clock.started + sum(spent.values()) <= after + 1e-6


def test_one_gradient_is_followed_after_the_first_pass() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    marks: list[int] = []
    device = Device()

    def mark() -> DeviceTime:
        marks.append(1)
        return device.mark()

    clock = StepClock(torch.device("cpu"), mark=mark)
    clock.follow_gradients(network)
    counts = []
    for _ in clock.batches(range(3)):
        before = len(marks)
        with clock.part("backward"):
            network(torch.ones(2, 3)).sum().backward()
        counts.append(len(marks) - before - 2)
    assert counts == [4, 1, 1]


# Each rank's gradient of the only layer takes no time; averaging it takes as long as the slow rank sleeps.
RANK = """
import os, pathlib, sys, time, torch
from torch import nn
import torch.distributed as dist
from ray_jobs.watching.step_clock import StepClock

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
network = nn.parallel.DistributedDataParallel(nn.Linear(8, 1))
network(torch.ones(2, 8)).sum().backward()  # what happens once, of which the ranks need not be done at the same time
dist.barrier()
clock = StepClock(torch.device("cpu"))
clock.follow_gradients(network)
for step in clock.batches(range(4)):
    with clock.part("forward"):
        loss = network(torch.ones(2, 8)).sum()
    meeting = pathlib.Path(f"{sys.argv[2]}-{step}")
    if rank == 0:
        meeting.touch()
    else:
        while not meeting.exists():  # however late the other is on a busy machine, it waits for this one
            time.sleep(0.005)
        time.sleep(0.5)
    with clock.part("backward"):
        loss.backward()
dist.barrier()  # neither leaves while the other still needs it
print(clock.time_spent()["communication"], clock.seconds["backward"], flush=True)
os._exit(0)  # a thread of gloo that wants the interpreter while it is taken down would end the process with an abort
"""


@pytest.mark.processes
def test_waiting_for_the_other_ranks_gradients_is_communication(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "meet")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    (fast, fast_backward), (slow, _) = ([float(word) for word in out.split()] for out, _ in outputs)
    assert fast > 4 * 0.5 * 0.8  # it waits for the slow one in each of four steps
    assert fast_backward < fast / 2
    assert slow < fast / 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_device_times_on_a_gpu() -> None:
    device = torch.device("cuda")
    clock = StepClock(device)
    left = torch.randn(4096, 4096, device=device)
    for _ in clock.batches(range(4)):
        with clock.part("forward"):
            for _ in range(20):
                left = left @ left / 64
        torch.cuda.synchronize()
        time.sleep(0.05)  # not in a part
    spent = clock.time_spent()
    assert spent["forward"] > 0
    assert spent["wait"] < 0.02
