"""Without the stack, in simulated time: days of one notebook, and many notebooks after an outage of an hour."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.agent_day import SimulatedDay

HOUR = 3_600
SYNC = 300
DOWN = {"status": 0, "text": "no answer"}
GOOD = {"status": 200, "text": json.dumps({"mode": "ngrok", "sync_after": SYNC})}


def reports(agent: ModuleType, first: float, down_until: float, until: float) -> tuple[list[float], Any]:
    """Return when one agent reports, in seconds, if the stack is down until `down_until`; and its client."""
    client, now, times = agent.StackClient(), first, []
    client.run_helper = lambda program, verb, request: DOWN if 0 < now < down_until else GOOD
    while now < until:
        times.append(now)
        client.sync({})
        now += client.delay
    return times, client


@pytest.mark.parametrize(
    "seed",
    [
        1,
        14,
        *(
            pytest.param(seed, marks=pytest.mark.nightly(sibling="test_a_day_without_the_stack"))
            for seed in (4, 8, 16, 30, 42)
        ),
    ],
)
def test_a_day_without_the_stack(seed: int, tmp_path: Path) -> None:
    """The invariants are in docs/reliability.md; `make simulate DAYS=100` simulates more days."""
    day = SimulatedDay(seed, tmp_path)
    day.run()
    assert day.counts["reports while the stack is down"] > 700, "it reported all day"
    assert day.counts["checks of the desired state"] > 5


def test_a_day_is_reproducible(tmp_path: Path) -> None:
    days = [SimulatedDay(42, tmp_path / name) for name in "ab"]
    for day in days:
        day.run()
    first, second = (("\n".join(day.log_lines)).replace(str(day.root), "") for day in days)
    assert first == second


def test_after_an_outage_of_an_hour_all_report_within_two_minutes_and_not_at_once(agent: ModuleType) -> None:
    first = Counter(
        int(next(second for second in reports(agent, -SYNC * number / 200, HOUR, HOUR + 200)[0] if second >= HOUR))
        for number in range(200)
    )
    assert sum(first.values()) == 200
    assert max(first) <= HOUR + 120
    assert max(first.values()) <= 12, "200 in 120 seconds are 1.7 a second"
