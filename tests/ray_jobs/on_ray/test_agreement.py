"""Wishes of one rank become everybody's, a step later."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import distributed

from ray_jobs.on_ray.agreement import Agreement, Wish


def exchange(
    rank: int, meeting: Path, wishes: Sequence[Sequence[Wish]], answers: "multiprocessing.Queue[object]"
) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=len(wishes))
    agreement = Agreement(len(wishes))
    heard = [agreement.exchange(wish) for wish in wishes[rank]]
    heard.append(agreement.finish())
    heard.append(agreement.exchange(Wish.NOTHING))
    heard.append(agreement.finish())
    distributed.destroy_process_group()
    answers.put((rank, [int(wish) for wish in heard]))


def test_one_rank_answers_itself_at_once() -> None:
    agreement = Agreement(1)
    assert agreement.exchange(Wish.STOP) == Wish.STOP
    assert agreement.exchange(Wish.NOTHING) == Wish.NOTHING


@pytest.mark.processes
def test_ranks_hear_the_same_at_the_same_step(tmp_path: Path) -> None:
    wishes = [
        [Wish.NOTHING, Wish.CHECKPOINT, Wish.NOTHING, Wish.LOOK_FOR_NOTICES, Wish.STOP],
        [Wish.NOTHING, Wish.NOTHING, Wish.STOP, Wish.CHECKPOINT, Wish.NOTHING],
    ]
    spawn = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[object] = spawn.Queue()
    ranks = [spawn.Process(target=exchange, args=(rank, tmp_path / "meet", wishes, answers)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    heard = dict(answers.get(timeout=240) for _ in ranks)
    for rank in ranks:
        rank.join()
    later = [Wish.NOTHING, Wish.NOTHING, Wish.CHECKPOINT, Wish.STOP, Wish.LOOK_FOR_NOTICES | Wish.CHECKPOINT]
    # The last wish, of the epoch's last step, is heard at once, and never again.
    assert heard[0] == heard[1] == [int(wish) for wish in (*later, Wish.STOP, Wish.NOTHING, Wish.NOTHING)]
