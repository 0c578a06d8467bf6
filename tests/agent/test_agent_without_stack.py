"""A day without the stack, and its return after an hour, in simulated time: the real exchange, and no waiting."""

from __future__ import annotations

import json
from collections import Counter
from types import ModuleType
from typing import Any

HOUR, DAY = 3_600, 86_400
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


def test_in_a_day_without_the_stack_the_last_answer_holds(agent: ModuleType) -> None:
    moments, asking = reports(agent, -1.0, away_until=2 * DAY, until=DAY)
    assert asking.mode() == "ngrok"
    assert DAY / 120 <= len(moments) <= DAY / 60 + 10, "asked on, at most once a minute"


def test_after_an_hour_away_all_report_within_two_minutes_and_not_at_once(agent: ModuleType) -> None:
    first = Counter(
        int(next(moment for moment in reports(agent, -SYNC * number / 200, HOUR, HOUR + 200)[0] if moment >= HOUR))
        for number in range(200)
    )
    assert sum(first.values()) == 200
    assert max(first) <= HOUR + 120
    assert max(first.values()) <= 12, "200 in 120 seconds are 1.7 a second"
