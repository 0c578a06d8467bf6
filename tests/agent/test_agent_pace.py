"""How often the stack is asked: as it says, and ever less often while it does not answer. No process, no waiting."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import formatdate
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

Reply = dict[str, Any]


@pytest.fixture
def exchange(agent: ModuleType) -> Callable[[Reply], Any]:
    """Makes an exchange that gets this reply to every report."""

    def make(reply: Reply) -> Any:
        made = agent.Exchange()
        made.errand = lambda program, verb, ask: reply
        return made

    return make


NOW = 1_800_000_000


@pytest.fixture
def clock(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The module `time` as the agent has it; the test says what its `time()` answers."""
    clock = SimpleNamespace(**{name: getattr(agent.time, name) for name in dir(agent.time) if name[0] != "_"})
    monkeypatch.setattr(agent, "time", clock)
    return clock


def http_date(moment: float) -> str:
    return formatdate(moment, usegmt=True)


def good(**more: Any) -> Reply:
    return {"status": 200, "text": json.dumps({"mode": "ngrok", "sync_after": 300} | more)}


def test_the_stack_sets_the_pace_and_no_two_notebooks_keep_step(exchange: Callable[[Reply], Any]) -> None:
    asking = exchange(good())
    delays = set()
    for _ in range(50):
        assert asking.sync({})
        delays.add(asking.delay)
    assert 270 <= min(delays) < max(delays) <= 330
    assert len(delays) > 40


@pytest.mark.parametrize(("told", "least", "most"), [(0, 0.9, 1.1), (-5, 0.9, 1.1), (10**9, 3240, 3960)])
def test_a_pace_beyond_reason_is_not_taken(
    exchange: Callable[[Reply], Any], told: int, least: float, most: float
) -> None:
    asking = exchange(good(sync_after=told))
    asking.sync({})
    assert least <= asking.delay <= most


@pytest.mark.parametrize(
    "reply",
    [
        {"status": 0, "text": "no answer"},
        {"status": 500, "text": ""},
        {"status": 200, "text": "<html>"},
        {"status": 200, "text": "[]"},
        good(mode="nonsense"),
        good(sync_after="soon"),
    ],
)
def test_it_is_asked_ever_less_often_up_to_two_minutes(exchange: Callable[[Reply], Any], reply: Reply) -> None:
    asking = exchange(reply)
    asking.answer = {"mode": "bastion"}
    for attempt in range(1, 12):
        assert not asking.sync({})
        assert 0.5 * min(2**attempt, 120) <= asking.delay <= min(2**attempt, 120)
    assert asking.answer == {"mode": "bastion"}, "what was known stays"
    assert asking.failed[1] == ("unreadable" if reply["status"] == 200 else reply["text"]), "it could hold the token"


def test_the_first_answer_after_failures_ends_the_back_off(exchange: Callable[[Reply], Any]) -> None:
    asking = exchange({"status": 503, "text": ""})
    for _ in range(5):
        asking.sync({})
    asking.errand = exchange(good()).errand
    assert asking.sync({})
    assert (asking.failures, asking.failed) == (0, None)


@pytest.mark.parametrize(("ahead", "kept"), [(0, 0), (1, 0), (7200, 7200), (-10800, -10800)])
def test_the_stacks_clock_counts_where_they_differ(
    clock: SimpleNamespace, exchange: Callable[[Reply], Any], ahead: int, kept: int
) -> None:
    clock.time = lambda: NOW
    asking = exchange(good(until=NOW + kept + 60) | {"date": http_date(NOW + ahead)})
    asking.sync({})
    assert asking.ahead == kept
    assert asking.mode() == "ngrok"
    clock.time = lambda: NOW + 60
    assert asking.mode() == "off"


def test_a_clock_that_is_wrong_is_known_after_one_answer_and_put_right_at_once(
    clock: SimpleNamespace, exchange: Callable[[Reply], Any]
) -> None:
    """Twenty minutes are too many for a signature (SigV4 admits five), and for the stack to believe when a boot began."""
    clock.time = lambda: NOW
    asking = exchange({"status": 0, "text": "no answer"})
    for _ in range(9):
        asking.sync({})
    named = asking.boot
    refusal = {"text": '{"message": "Signature expired"}', "date": http_date(NOW - 1200)}
    asking.errand = exchange(refusal | {"status": 403}).errand
    asking.sync({})
    assert asking.delay <= 2, "not after two minutes, as in vain before"
    asking.errand = exchange(refusal | {"status": 400}).errand
    asking.sync({})
    assert asking.boot["boot"] != named["boot"]
    assert named["booted_at"] - asking.boot["booted_at"] == 1200
    asking.sync({})
    assert asking.delay > 2, "and once only: its clock is known by now"


def test_each_report_is_newer_than_the_last_also_after_a_restart_of_the_agent(exchange: Callable[[Reply], Any]) -> None:
    sequence = []
    for _ in range(2):
        asking = exchange(good())
        for _ in range(3):
            asking.sync({})
            sequence.append(asking.sequence)
    assert sequence[:3] == sorted(set(sequence[:3]))
    assert sequence[3] >= sequence[0], "it grows with the time since boot"
