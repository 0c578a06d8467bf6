"""The fleet in numbers."""

from __future__ import annotations

from dataclasses import replace

from notebook_ssh.errors import Problem
from notebook_ssh.model.fleet_stats import fleet_stats
from notebook_ssh.model.record import NotebookState, Record
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.status import Code

NOW = 1_700_000_000


def notebook(name: str, **parts: object) -> Record:
    record = Record(
        name=name, spec=NotebookSpec(modes=(Mode.NGROK,)), state=NotebookState.STOPPED, state_since=NOW - 60
    )
    return replace(record, **parts)  # type: ignore[arg-type]


def test_every_notebook_is_counted_once_under_its_status() -> None:
    fleet = [
        notebook("a", lifecycle_config="c", block_since=NOW - 600),
        notebook("b", lifecycle_config="c", block_since=NOW - 600),
        notebook("c", spec=NotebookSpec()),
        notebook("d", spec=NotebookSpec(problem=Problem("invalid-tag", "The tag ssh is ngork."))),
        notebook("e", problem=Problem("config-too-large", "Too large.")),
    ]
    counted = fleet_stats(fleet, NOW, 300, "ssh")
    assert counted.statuses == {Code.STOPPED: 2, Code.OFF: 1, Code.INVALID_TAG: 1, Code.ERROR: 1}
    assert counted.problems == {"invalid-tag": 1, "config-too-large": 1}
    assert counted.requested == 4
    assert counted.count(Code.ERROR, Code.INVALID_TAG) == 2
    assert counted.count(Code.STALE) == 0


def test_a_bad_token_is_counted_apart_because_it_concerns_everybody() -> None:
    fleet = [
        notebook("a", problem=Problem("ngrok-token-invalid", "ngrok refuses the token.")),
        notebook("b", problem=Problem("ngrok-token-missing", "There is no token.")),
        notebook("c", problem=Problem("ngrok-config", "config.yml cannot be read.")),
    ]
    assert fleet_stats(fleet, NOW, 300, "ssh").token_refused == 2


def test_an_empty_fleet_is_all_zeros() -> None:
    counted = fleet_stats([], NOW, 300, "ssh")
    assert (counted.requested, counted.token_refused, counted.count(*Code)) == (0, 0, 0)
