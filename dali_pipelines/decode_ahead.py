"""The first pass over the cases: each is decoded before a sample asks for it, and how long that takes is said before.

To decode a case costs thirty times what a patch costs of a case that is decoded. Until a node has decoded each of them
once, a fast GPU would wait at every step.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from dali_pipelines.sampling import PatchSampler
from dali_pipelines.source import is_of_the_case
from storage import DecodedCaseCache

# The first case decoded in a process pays for imports as well.
_CASES_TIMED = 2


@dataclass(frozen=True, kw_only=True)
class ColdCache:
    """Of how many `cases` a node has yet to decode `missing`, and the seconds that one of them takes one thread.

    `fit`: whether the cache holds all of them; what it does not hold is decoded again in every pass.
    """

    cases: int
    missing: int
    seconds_a_case: float
    fit: bool


class DecodeAhead:
    """Decodes `case_ids` into the cache, in that order, until all are there, the cache is full, or `stop` is called.

    Nothing is evicted for it, so what is about to be used stays. What fails is left to whoever asks for the case: there
    it fails again, and the error can name the sample that wanted it.
    """

    def __init__(self, cache: DecodedCaseCache, case_ids: Iterator[str], *, threads: int) -> None:
        self._cache, self._case_ids = cache, case_ids
        self._taking, self._over = threading.Lock(), threading.Event()
        # Daemons: where nobody calls stop, an interpreter that ends must not wait for a whole cohort.
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-ahead_{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads; waits for the cases that are being decoded. Idempotent."""
        self._over.set()
        if threading.current_thread() not in self._threads:  # the garbage collector calls from any thread
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            with self._taking:
                case_id = next(self._case_ids, None)
            if case_id is None:
                return
            try:
                goes_on = self._cache.decode_ahead(case_id)
            except Exception as error:
                goes_on = is_of_the_case(error)
            if not goes_on:
                self._over.set()


def first_uses(sampler: PatchSampler, numbers: Iterator[tuple[int, int]], *, cases: int) -> Iterator[str]:
    """Each of the sampler's `cases` once, in the order in which the samples of these (epoch, index) want them."""
    seen: set[str] = set()
    while len(seen) < cases:
        case_id = sampler.case_id(*next(numbers))
        if case_id not in seen:
            seen.add(case_id)
            yield case_id


def measure_cold_cache(cache: DecodedCaseCache, case_ids: Sequence[str]) -> ColdCache | None:
    """Look which of the cases are missing, and decode the first of them to see what one takes.

    None where none is missing, or where the first cannot be read: whoever asks for them will say so.
    """
    missing = [case_id for case_id in case_ids if not cache.holds(case_id)]
    seconds: float | None = None
    for case_id in missing[:_CASES_TIMED]:
        wall, cpu = time.perf_counter(), time.process_time()
        with suppress(Exception):
            cache.read_case(case_id)
            # Several threads decode one case, so all that they computed counts; or it was the network that took longer.
            seconds = max(time.perf_counter() - wall, time.process_time() - cpu)
    if seconds is None:
        return None
    fit = cache.bytes_of(case_ids) <= cache.max_bytes
    return ColdCache(cases=len(case_ids), missing=len(missing), seconds_a_case=seconds, fit=fit)
