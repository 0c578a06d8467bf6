"""Without the stack, in simulated time: days of a notebook, and the return of many after an hour."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from agent_day import Day

HOUR = 3_600
SYNC = 300
AWAY = {"status": 0, "text": "no answer"}
GOOD = {"status": 200, "text": json.dumps({"mode": "ngrok", "sync_after": SYNC})}


def reports(agent: ModuleType, first: float, away_until: float, until: float) -> tuple[list[float], Any]:
    """When one agent reports, in seconds, while the stack is away until `away_until`; and its exchange."""
    asking, now, moments = agent.Exchange(), first, []
    asking.errand = lambda program, verb, ask: AWAY if 0 < now < away_until else GOOD
    while now < until:
        moments.append(now)
        asking.sync({})
        now += asking.delay
    return moments, asking


@pytest.mark.parametrize("seed", [1, 4, 8, 14, 16, 30, 42])
def test_a_day_without_the_stack(seed: int, tmp_path: Path) -> None:
    """What is promised for it stands in docs/reliability.md; `make simulate DAYS=100` plays more days."""
    day = Day(seed, tmp_path)
    day.play()
    assert day.counts["reports while the stack is away"] > 700, "it was asked all day"
    assert day.counts["looks that all is as wished"] > 5


def test_a_day_is_the_same_each_time(tmp_path: Path) -> None:
    days = [Day(42, tmp_path / name) for name in "ab"]
    for day in days:
        day.play()
    one, other = (("\n".join(day.story)).replace(str(day.root), "") for day in days)
    assert one == other


def test_after_an_hour_away_all_report_within_two_minutes_and_not_at_once(agent: ModuleType) -> None:
    first = Counter(
        int(next(moment for moment in reports(agent, -SYNC * number / 200, HOUR, HOUR + 200)[0] if moment >= HOUR))
        for number in range(200)
    )
    assert sum(first.values()) == 200
    assert max(first) <= HOUR + 120
    assert max(first.values()) <= 12, "200 in 120 seconds are 1.7 a second"
