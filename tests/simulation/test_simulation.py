"""The control plane against mischief: 100,000 steps and more, each of them the same on every machine.

docs/reliability.md says what is simulated, and how to run more of it.
"""

from __future__ import annotations

import pytest
from simulation.explore import broken, explore, smallest

FAILED_ONCE = (
    (1, 1_000),  # a connection that broke under a write to the table was nobody's
    (3_000, 1_000),  # a configuration's users were not told, because what there was to tell was noted first
    (6_004, 1_000),  # a notebook was deleted between a look and the writing of its tags
    (7_000, 1_000),  # a look that may not change a script noted it as seen, and nobody who may looked again
    (20_012, 1_000),  # a configuration was made, the function died, and nobody knew of it
    (20_042, 1_000),  # one notebook's look mended a shared script, and the other users' records never said so
    (40_031, 700),  # as 20,012
    (40_068, 700),  # the tags were written, the function died before the first record, and nobody took them away
    (40_087, 700),  # a configuration was attached by a person while we deleted it
)
"""Seed and length of each run that broke a promise until the code was mended, and what was wrong."""


@pytest.mark.parametrize("seed", range(1_000, 9_000, 1_000))
def test_every_promise_holds_through_mischief_and_calm(seed: int) -> None:
    counts = explore(14_000, seed)
    assert counts["steps"] >= 14_000
    for fault in (
        "throttled",
        "lost",
        "obeyed, and the answer lost",
        "obeyed twice",
        "killed before a call",
        "killed after a call",
    ):
        assert counts[f"calls {fault}"] > 0, fault
    for signal in ("dropped", "doubled", "late, and so out of order"):
        assert counts[f"signals {signal}"] > 0, signal


@pytest.mark.parametrize(("seed", "length"), FAILED_ONCE)
def test_what_failed_once_holds(seed: int, length: int) -> None:
    assert broken(seed, length=length) is None


def test_a_failure_shrinks_to_what_causes_it() -> None:
    assert smallest(frozenset(range(200)), lambda steps: {17, 140} <= steps, tries=200) == {17, 140}
