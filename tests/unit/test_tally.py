"""The fleet in numbers."""

from __future__ import annotations

from dataclasses import replace

from notebook_ssh.errors import Problem
from notebook_ssh.rules.record import Mode, NotebookState, Record, Wish
from notebook_ssh.rules.status import Code
from notebook_ssh.rules.tally import tally

NOW = 1_700_000_000


def notebook(name: str, **parts: object) -> Record:
    record = Record(name=name, wish=Wish(mode=Mode.NGROK), state=NotebookState.STOPPED, state_since=NOW - 60)
    return replace(record, **parts)  # type: ignore[arg-type]


def test_every_notebook_is_counted_once_under_its_status() -> None:
    fleet = [
        notebook("a", configuration="c", block_since=NOW - 600),
        notebook("b", configuration="c", block_since=NOW - 600),
        notebook("c", wish=Wish()),
        notebook("d", wish=Wish(problem=Problem("invalid-tag", "The tag ssh is ngork."))),
        notebook("e", problem=Problem("config-too-large", "Too large.")),
    ]
    counted = tally(fleet, NOW, 300, "ssh")
    assert counted.statuses == {Code.STOPPED: 2, Code.OFF: 1, Code.INVALID_TAG: 1, Code.ERROR: 1}
    assert counted.problems == {"invalid-tag": 1, "config-too-large": 1}
    assert counted.wished == 4
    assert counted.count(Code.ERROR, Code.INVALID_TAG) == 2
    assert counted.count(Code.STALE) == 0


def test_a_bad_token_is_counted_apart_because_it_concerns_everybody() -> None:
    fleet = [
        notebook("a", problem=Problem("ngrok-token-invalid", "ngrok refuses the token.")),
        notebook("b", problem=Problem("ngrok-token-missing", "There is no token.")),
        notebook("c", problem=Problem("ngrok-config", "config.yml cannot be read.")),
    ]
    assert tally(fleet, NOW, 300, "ssh").token_refused == 2


def test_an_empty_fleet_is_all_zeros() -> None:
    counted = tally([], NOW, 300, "ssh")
    assert (counted.wished, counted.token_refused, counted.count(*Code)) == (0, 0, 0)
