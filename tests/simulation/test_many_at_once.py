"""Hundreds of notebooks (a thousand at night), tagged within a minute and started within another, against the rates that SageMaker allows.

The handlers are the deployed ones; account, people and clock are the simulation's. Calls beyond a service's rate are
refused, and tried again as botocore does.
"""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

import pytest
from simulation.account import LifecycleConfig, Notebook
from simulation.busy import BUCKETS, DESCRIPTION, SCRIPT, WRITE, Busy, EachItsOwn
from simulation.invariants import Truth, encoded
from simulation.run import BEGIN, CONCURRENCY, RATE_LIMITED, bound

FLEETS = [
    200,
    pytest.param(1_000, marks=pytest.mark.nightly(sibling="test_everything_is_as_the_tags_ask")),
]
"""Notebooks that are tagged and started at the same time."""
TO_A_CONFIGURATION = 20
MINUTE = 60_000
STARTED = 1_800_000
"""Milliseconds after its tag at which each is started."""


class Day(Busy):
    """The whole fleet's day."""

    many = 0

    def found(self) -> None:
        """The fleet, stopped and untagged; every tenth notebook without a configuration."""
        account = self.account
        for number in range(self.many // TO_A_CONFIGURATION):
            name = f"team-{number}"
            account.lifecycle_configs[name] = LifecycleConfig(name, self.now, None, encoded(SCRIPT))
            self.invariants.truths[name] = Truth(SCRIPT)
        for number in range(self.many):
            lifecycle_config = None if number % 10 == 0 else f"team-{number // TO_A_CONFIGURATION}"
            name = f"box-{number}"
            account.notebooks[name] = Notebook(name, f"role-{number}", self.now, "Stopped", lifecycle_config)


@pytest.fixture(scope="module", params=FLEETS)
def day(request: pytest.FixtureRequest) -> Day:
    """The day on which all of them start."""
    run = Day()
    run.many = request.param
    run.account.person = False
    with patch.dict(CONCURRENCY, notebooks=2), bound(run):  # MaximumConcurrency in template.yaml
        try:
            run.found()
            for number in range(run.many):
                then, name = run.now + number * MINUTE // run.many, f"box-{number}"
                run.at(then, partial(run.tag, name))
                run.at(then + STARTED, partial(run.start, name))
            run.at(run.now + 900_000, run._sweep)
            run.at(run.now + STARTED + 600_000, lambda: setattr(run, "faults", False))  # no more reports and sweeps
            run.rest()
            run._sweep_once("afterwards")
        finally:
            run._end()
    return run


def test_everything_is_as_the_tags_ask(day: Day) -> None:
    with bound(day):
        day.invariants.settled()
        day.invariants.shown()
    assert day.invariants.checked["notebooks with the block in place"] == day.many
    assert not day.dead


def test_writes_are_as_few_as_the_requests(day: Day) -> None:
    """Each script once, each lack of a configuration once, and at most three changes of the status shown for each."""
    writes = day.invariants.writes
    assert writes["script"] == day.many // TO_A_CONFIGURATION
    assert (writes["create"], writes["attach"]) == (1, day.many // 10)
    assert day.many <= writes["tags"] <= 3 * day.many


def test_writes_keep_their_pace(day: Day) -> None:
    """A last look that is refused for a while makes its write late, and the next one early: that is rare."""
    refused = sum(day.refused[operation] for operation in RATE_LIMITED)
    made = sum(day.asked[operation] for operation in RATE_LIMITED) - refused
    assert made > day.many // 10
    assert refused <= 0.02 * made


def test_three_hundred_configurations_take_little_more_than_their_seconds() -> None:
    """docs/performance.md has the bar: a second each, and a tenth; one in fifty refused."""
    run = EachItsOwn(300)
    run.play_out()
    assert len(run.wrote) == 300
    assert run.wrote[-1] - BEGIN <= 300 * 1_100
    assert run.refused[WRITE] <= 6
    # The look, the last look and the one after: more than that, and the rate of descriptions sets the pace.
    assert run.asked[DESCRIPTION] <= 3.1 * 300


def test_a_slot_that_a_slow_last_read_has_missed_is_not_used() -> None:
    """Another tool describes configurations as well, and leaves us two a second."""
    run = EachItsOwn(100)
    with patch.dict(BUCKETS, {DESCRIPTION: (2, 2)}):
        run.play_out()
    assert len(run.wrote) == 100
    assert run.refused[WRITE] <= 2
    assert run.refused[DESCRIPTION] > 30, "last looks were quick, and nothing is shown"
