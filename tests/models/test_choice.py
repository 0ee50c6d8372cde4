"""A rule is taken where it truly helps, plain stays where nothing does, and nobody is scored by what he chose."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from models import (
    GRID,
    CaseEvidence,
    Decision,
    Evidence,
    RegionLabels,
    choose_decision,
    mean_interval,
    nested_decisions,
)

ONE: RegionLabels = ((1,),)
PLAIN = Decision.plain(1)
HALF = GRID.index(0.5)
Pieces = Sequence[tuple[int, int]]
"""Components of a region: voxels and hits."""


def make_case(name: str, true: int, pieces: Callable[[int], Pieces], subject: str | None = None) -> CaseEvidence:
    """A case of one region with these components at each step of the grid."""
    rows = [[0, step, *piece, *[0] * len(GRID)] for step in range(len(GRID)) for piece in pieces(step)]
    table_CX = np.array(rows, np.int64).reshape(-1, 4 + len(GRID))
    true_R = np.array([true], np.int64)
    return CaseEvidence(case_id=name, subject=subject or name, voxel_mm3=1.0, true_R=true_R, components_CX=table_CX)


def painted_into_some(rng: np.random.Generator, cases: int) -> list[CaseEvidence]:
    """Two cases of five lack the region, and have 20 to 400 voxels of it painted in."""
    made = []
    for number in range(cases):
        lacks, size = rng.random() < 0.4, int(rng.integers(20, 400)) if rng.random() < 0.9 else 3000
        hits = int(rng.integers(2000, 3500))
        pieces = [(size, 0)] if lacks else [(4000, hits)]
        made.append(make_case(str(number), 0 if lacks else 4000, lambda _, pieces=pieces: pieces))
    return made


def only_noise(rng: np.random.Generator, cases: int) -> list[CaseEvidence]:
    """What a threshold adds or takes in a case is by chance, and there is nothing to leave out that is not true."""
    made = []
    for number in range(cases):
        right = 3000 + rng.integers(-600, 600, len(GRID))
        pieces = [[(4000, int(hits)), (30, 30)] for hits in right]
        made.append(make_case(str(number), 4100, pieces.__getitem__))
    return made


def gains(make: Callable[[np.random.Generator, int], list[CaseEvidence]], chosen_on: int, draws: int) -> list[float]:
    """Of decisions chosen on so many cases, what they add to the IoU of 40 others."""
    found = []
    for seed in range(draws):
        evidence = Evidence(make(np.random.default_rng(seed), chosen_on + 40), ONE)
        decision = choose_decision(evidence, "iou", range(chosen_on)).decision
        more_NR = evidence.scores(decision, "iou") - evidence.scores(PLAIN, "iou")
        found.append(float(more_NR[chosen_on:].mean()))
    return found


def test_a_rule_that_helps_is_found_at_eight_cases_and_costs_nothing_at_two() -> None:
    assert np.mean(gains(painted_into_some, 8, 20)) > 0.1
    assert gains(painted_into_some, 2, 10) == [0.0] * 10


@pytest.mark.parametrize("chosen_on", [4, 8])
def test_where_thresholds_are_noise_choosing_costs_next_to_nothing(chosen_on: int) -> None:
    assert np.mean(gains(only_noise, chosen_on, 25)) > -0.002


def test_what_was_taken_is_said_with_its_evidence() -> None:
    cases = [make_case(str(n), 100, lambda _: [(100, 90), (40, 0)]) for n in range(4)]
    cases += [make_case(str(n), 0, lambda _: [(40, 0)]) for n in range(4, 8)]
    choice = choose_decision(Evidence(cases, ONE), "dice")
    assert choice.decision == Decision(thresholds=(0.5,), smallest_mm3=(50.0,)) and choice.unseen == ()
    (taken,) = choice.taken
    assert (taken.kind, taken.region, taken.value, taken.better, taken.worse) == ("smallest mm3", 0, 50.0, 8, 0)
    assert taken.gain == pytest.approx((4 + 4 * (180 / 200 - 180 / 240)) / 8)
    assert 0 < taken.at_least < taken.gain


def test_only_the_largest_is_kept_where_others_are_larger_than_any_small_one() -> None:
    cases = [make_case(str(n), 9000, lambda _: [(2000, 0), (9000, 8000)]) for n in range(6)]
    assert choose_decision(Evidence(cases, ONE), "iou").decision == Decision(
        thresholds=(0.5,), largest_tumour_only=True
    )


def test_a_threshold_is_moved_where_every_case_wants_it() -> None:
    cases = [make_case(str(n), 100, lambda step, n=n: [(100, 50 + 10 * step + n)]) for n in range(4)]
    decision = choose_decision(Evidence(cases, ONE), "iou").decision
    assert decision.thresholds == (0.7,)


def test_exams_of_one_subject_are_one_witness() -> None:
    def cases(subjects: int) -> list[CaseEvidence]:
        return [make_case(str(n), 0, lambda _: [(40, 0)], str(n % subjects)) for n in range(6)] + [
            make_case(f"seen {n}", 100, lambda _: [(100, 90)], str(n)) for n in range(subjects)
        ]

    assert choose_decision(Evidence(cases(2), ONE), "iou").decision == PLAIN
    assert choose_decision(Evidence(cases(6), ONE), "iou").decision != PLAIN


def test_a_region_that_no_case_has_stays_plain() -> None:
    """To predict it nowhere would be best for these cases, and wrong for the first that has it."""
    cases = [make_case(str(n), 0, lambda _: [(40, 0)]) for n in range(12)]
    choice = choose_decision(Evidence(cases, ONE), "iou")
    assert choice.decision == PLAIN and choice.unseen == (0,) and not choice.taken


def test_nobody_is_scored_by_what_he_chose() -> None:
    def cases(last: CaseEvidence) -> Evidence:
        helped = [make_case(str(n), 100, lambda _: [(100, 90), (40, 0)]) for n in range(3)]
        return Evidence([*helped, last], ONE)

    spoilt = cases(make_case("last", 4000, lambda _: [(40, 40)] * 100))
    decisions = nested_decisions(spoilt, "iou")
    assert len(set(decisions[:3])) == 1 and decisions[0] == PLAIN  # the last one speaks against it
    assert decisions[3].largest_tumour_only  # and is itself scored by what the others want
    assert spoilt.scores(decisions[3], "iou")[3, 0] == 0.01
    assert choose_decision(spoilt, "iou").decision == PLAIN


def test_how_far_few_cases_can_be_trusted() -> None:
    assert mean_interval([0.5]) is None
    low, high = mean_interval([0.70, 0.80]) or (0.0, 0.0)
    assert (low, high) == (pytest.approx(0.75 - 12.7062 * 0.05, abs=1e-4), 1.0)
    low, high = mean_interval([0.2, 0.4, 0.6, 0.8]) or (0.0, 0.0)
    assert (low, high) == (
        pytest.approx(0.5 - 3.18245 * 0.129099, abs=1e-4),
        pytest.approx(0.5 + 3.18245 * 0.129099, abs=1e-4),
    )
