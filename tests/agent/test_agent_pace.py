"""When the agent reports: as the stack requests, and with a back-off without a reply. No process, no waiting."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

Result = dict[str, Any]


@pytest.fixture
def make_client(agent: ModuleType) -> Callable[[Result], Any]:
    """Return a function that makes a client whose every report has this result."""

    def make(result: Result) -> Any:
        client = agent.StackClient()
        client.run_helper = lambda program, verb, request: result
        return client

    return make


NOW = 1_800_000_000


@pytest.fixture
def clock(agent: ModuleType, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The agent's module `time`; the test sets its function `time()`."""
    clock = SimpleNamespace(**{name: getattr(agent.time, name) for name in dir(agent.time) if name[0] != "_"})
    monkeypatch.setattr(agent, "time", clock)
    return clock


def http_date(seconds: float) -> str:
    return formatdate(seconds, usegmt=True)


def good(**more: Any) -> Result:
    return {"status": 200, "text": json.dumps({"mode": "ngrok", "sync_after": 300} | more)}


def test_the_stack_sets_the_interval_and_jitter_is_added(make_client: Callable[[Result], Any]) -> None:
    client = make_client(good())
    delays = set()
    for _ in range(50):
        assert client.sync({})
        delays.add(client.delay)
    assert 270 <= min(delays) < max(delays) <= 330
    assert len(delays) > 40


@pytest.mark.parametrize(("sync_after", "least", "most"), [(0, 0.9, 1.1), (-5, 0.9, 1.1), (10**9, 3240, 3960)])
def test_an_interval_out_of_range_is_limited(
    make_client: Callable[[Result], Any], sync_after: int, least: float, most: float
) -> None:
    client = make_client(good(sync_after=sync_after))
    client.sync({})
    assert least <= client.delay <= most


@pytest.mark.parametrize(
    "result",
    [
        {"status": 0, "text": "no answer"},
        {"status": 500, "text": ""},
        {"status": 200, "text": "<html>"},
        {"status": 200, "text": "[]"},
        good(mode=None),
        good(mode=["ngrok"]),
        good(sync_after="soon"),
        good(sync_after=1e999),
        {"status": 200, "text": "[" * 100_000},
    ],
)
def test_the_back_off_grows_to_two_minutes(make_client: Callable[[Result], Any], result: Result) -> None:
    client = make_client(result)
    client.reply = {"mode": "bastion"}
    for attempt in range(1, 12):
        assert not client.sync({})
        assert 0.5 * min(2**attempt, 120) <= client.delay <= min(2**attempt, 120)
    assert client.reply == {"mode": "bastion"}, "the last reply is kept"
    assert client.error[1] == ("unreadable" if result["status"] == 200 else result["text"]), "it could hold the token"


@pytest.mark.parametrize(
    "date", ["1 Jan 99999999999999999999 00:00:00 GMT", "1 Jan 2027 00:00:00 -99999999999999999999"]
)
def test_a_date_that_no_clock_can_show_is_none(make_client: Callable[[Result], Any], date: str) -> None:
    client = make_client(good() | {"date": date})
    assert client.sync({})
    assert client.clock_offset == 0


def test_a_saved_file_of_deep_lists_counts_as_none(agent: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "reply.json").write_text("[" * 100_000)
    assert agent.load_json(str(tmp_path / "reply.json")) == {}


def test_the_first_reply_after_failures_ends_the_back_off(make_client: Callable[[Result], Any]) -> None:
    client = make_client({"status": 503, "text": ""})
    for _ in range(5):
        client.sync({})
    client.run_helper = make_client(good()).run_helper
    assert client.sync({})
    assert (client.failures, client.error) == (0, None)


@pytest.mark.parametrize(("ahead", "offset"), [(0, 0), (1, 0), (7200, 7200), (-10800, -10800)])
def test_the_stacks_clock_is_used_if_they_differ(
    clock: SimpleNamespace, make_client: Callable[[Result], Any], ahead: int, offset: int
) -> None:
    clock.time = lambda: NOW
    client = make_client(good(until=NOW + offset + 60) | {"date": http_date(NOW + ahead)})
    client.sync({})
    assert client.clock_offset == offset
    assert client.mode() == "ngrok"
    clock.time = lambda: NOW + 60
    assert client.mode() == "off"


def test_a_wrong_clock_is_corrected_after_one_response(
    clock: SimpleNamespace, make_client: Callable[[Result], Any]
) -> None:
    """Twenty minutes are too many for a signature (SigV4 allows five), and for the stack to accept `booted_at`."""
    clock.time = lambda: NOW
    client = make_client({"status": 0, "text": "no answer"})
    for _ in range(9):
        client.sync({})
    boot = client.boot
    refusal = {"text": '{"message": "Signature expired"}', "date": http_date(NOW - 1200)}
    client.run_helper = make_client(refusal | {"status": 403}).run_helper
    client.sync({})
    assert client.delay <= 2, "not after two minutes, as before"
    client.run_helper = make_client(refusal | {"status": 400}).run_helper
    client.sync({})
    assert client.boot["boot"] != boot["boot"]
    assert boot["booted_at"] - client.boot["booted_at"] == 1200
    client.sync({})
    assert client.delay > 2, "and only once: the offset is known now"


def test_the_sequence_grows_across_restarts_of_the_agent(make_client: Callable[[Result], Any]) -> None:
    sequence = []
    for _ in range(2):
        client = make_client(good())
        for _ in range(3):
            client.sync({})
            sequence.append(client.sequence)
    assert sequence[:3] == sorted(set(sequence[:3]))
    assert sequence[3] >= sequence[0], "it grows with the time since boot"
