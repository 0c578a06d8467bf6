"""The fleet in numbers."""

from __future__ import annotations

from dataclasses import replace

from support.builders import a_record, a_report

from notebook_ssh.errors import Problem
from notebook_ssh.model.fleet_stats import fleet_stats
from notebook_ssh.model.record import NotebookState, Record, Route
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
    counted = fleet_stats(fleet, NOW, 300)
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
    assert fleet_stats(fleet, NOW, 300).token_refused == 2


def test_one_notebook_cannot_accuse_a_token_by_which_another_is_connected() -> None:
    accuser = notebook("a", problem=Problem("ngrok-token-invalid", "ngrok refuses the token."))
    connected = a_record(name="b", report=a_report())
    through_bastion = a_record(
        name="c",
        spec=NotebookSpec((Mode.BASTION,)),
        report=a_report(modes=(Mode.BASTION,), host=None, port=None),
        routes={Mode.BASTION: Route(True, "10.0.0.1")},
    )
    now = connected.report.received_at if connected.report else 0
    assert fleet_stats([accuser, connected], now, 300).token_refused == 0
    assert fleet_stats([accuser, through_bastion], now, 300).token_refused == 1
    assert fleet_stats([accuser, replace(accuser, name="d"), connected], now, 300).token_refused == 2


def test_an_empty_fleet_is_all_zeros() -> None:
    counted = fleet_stats([], NOW, 300)
    assert (counted.requested, counted.token_refused, counted.count(*Code)) == (0, 0, 0)
