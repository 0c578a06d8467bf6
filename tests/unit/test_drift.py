"""Whom the sweep picks out, from lists alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.builders import NOW, a_record, a_report

from notebook_ssh.errors import Problem
from notebook_ssh.model.record import NotebookState, Record
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.status import status_key, status_of
from notebook_ssh.planning.drift import Fleet, find_drift
from notebook_ssh.planning.facts import hash_of_lists
from notebook_ssh.planning.observation import LifecycleConfigRecord, LifecycleConfigSummary, NotebookSummary
from notebook_ssh.planning.status_tags import desired_status_tags
from notebook_ssh.triggers.requests import ReconcileLifecycleConfig, ReconcileNotebook

MARK, SYNC = "1.0.0:0123456789ab", 300
ARN = "arn:aws:sagemaker:us-east-1:123456789012:notebook-instance/demo"
LINE = NotebookSummary("Demo", ARN, NotebookState.IN_SERVICE, NOW - 500, "team")
TEAM = LifecycleConfigSummary("team", "arn", NOW - 5000)
KEPT = LifecycleConfigRecord("team", NOW - 5000, MARK, MARK, NOW - 5000)
TAGS = {"ssh": "ngrok"}


def a_known(line: NotebookSummary = LINE, tags: dict[str, str] = TAGS, spec: NotebookSpec | None = None) -> Record:
    seen = hash_of_lists(line, tags, "ssh", dry_run=False)
    record = a_record(name=line.name, spec=spec or NotebookSpec((Mode.NGROK,)), observed_hash=seen, report=a_report())
    return replace(record, notified_status=status_key(status_of(record, NOW, SYNC)))


def a_fleet(**parts: Any) -> Fleet:
    """One notebook, as it was when it was last looked at."""
    steady = Fleet((LINE,), (TEAM,), {ARN: TAGS}, (a_known(),), (KEPT,))
    return replace(steady, **parts)


USUAL: dict[str, Any] = {"dry_run": False, "status_tags": False, "sync_seconds": SYNC}


def looks(fleet: Fleet, now: int = NOW, mark: str = MARK, **more: object) -> list[tuple[str, str]]:
    found = find_drift(fleet, "ssh", mark, now, **(USUAL | more))
    return [(look.name, look.reason) for look in found]


def test_nothing_changed_and_nothing_is_reconciled() -> None:
    assert looks(a_fleet()) == []


def test_an_untagged_notebook_without_a_record_is_ignored() -> None:
    assert looks(Fleet((LINE._replace(lifecycle_config=None),), (TEAM,))) == []
    assert looks(Fleet((LINE,), (TEAM,), {ARN: {"ssh": "off"}})) == []


@pytest.mark.parametrize("value", ["ngrok", "bastion", "ngork"])
def test_a_tagged_notebook_without_a_record_is_reconciled(value: str) -> None:
    assert looks(a_fleet(records=(), tags={ARN: {"ssh": value}})) == [("Demo", "tagged, and not known yet")]


@pytest.mark.parametrize(
    "change",
    [
        {"state": NotebookState.STOPPED},
        {"state_since": NOW - 1},
        {"lifecycle_config": None},
        {"lifecycle_config": "other"},
        {"name": "DEMO"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_is_new_in_the_list_is_reconciled(change: dict[str, Any]) -> None:
    fleet = a_fleet(notebooks=(LINE._replace(**change),))
    assert ("Demo", "changed since it was reconciled") in [(name.title(), why) for name, why in looks(fleet)]


@pytest.mark.parametrize(
    "tags", [{}, {"ssh": "bastion"}, {"ssh": "ngrok", "ssh-users": "ana"}, {"ssh": "ngrok", "ssh-until": "soon"}]
)
def test_tags_that_changed_without_an_event_are_reconciled(tags: dict[str, str]) -> None:
    assert ("Demo", "changed since it was reconciled") in looks(a_fleet(tags={ARN: tags}))


def test_tags_of_others_and_our_own_change_nothing() -> None:
    tags = TAGS | {"Env": "research", "ssh-status": "connected"}
    assert looks(a_fleet(tags={ARN: tags})) == []


def test_a_reconcile_that_did_not_end_is_resumed() -> None:
    assert looks(a_fleet(records=(replace(a_known(), observed_hash=""),))) == [
        ("Demo", "the last reconciliation did not finish")
    ]


def test_the_end_of_a_dry_run_reconciles_the_whole_fleet() -> None:
    assert looks(a_fleet(), dry_run=True) == [("Demo", "changed since it was reconciled")]


def test_a_deleted_notebook_is_reconciled() -> None:
    assert ("Demo", "gone") in looks(a_fleet(notebooks=()))


def test_a_record_that_waits_for_its_end_is_left_alone_until_the_notebook_goes() -> None:
    off = a_fleet(
        records=(a_known(spec=NotebookSpec()),), tags={}, config_records=(), notebooks=(LINE._replace(state_since=NOW),)
    )
    assert looks(off) == []
    assert looks(replace(off, notebooks=())) == [("Demo", "gone")]
    assert looks(replace(off, tags={ARN: TAGS})) == [("Demo", "changed since it was reconciled")]


# ---- time ----------------------------------------------------------------------------------


def test_an_end_that_passed_is_reconciled_once() -> None:
    tags = TAGS | {"ssh-until": "2027-01-15T08:00Z"}  # NOW
    known = a_known(tags=tags, spec=NotebookSpec((Mode.NGROK,), until=NOW))
    fleet = a_fleet(tags={ARN: tags}, records=(known,))
    assert ("Demo", "its time is over") in looks(fleet, now=NOW + 100)
    looked = a_fleet(tags={ARN: tags}, records=(replace(known, observed_at=NOW + 50),), config_records=())
    assert looks(looked, now=NOW + 100) == []


def test_an_end_before_the_next_sweep_is_announced_for_its_very_second() -> None:
    tags = TAGS | {"ssh-until": "2027-01-15T08:10Z"}
    fleet = a_fleet(tags={ARN: tags}, records=(a_known(tags=tags, spec=NotebookSpec((Mode.NGROK,), until=NOW + 600)),))
    assert find_drift(fleet, "ssh", MARK, NOW, **USUAL) == (ReconcileNotebook("Demo", "its time ends", at=NOW + 600),)
    assert find_drift(fleet, "ssh", MARK, NOW - 301, **USUAL) == ()


# ---- configurations ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"lifecycle_configs": (TEAM._replace(modified=NOW),)}, "changed since it was reconciled"),
        ({"lifecycle_configs": ()}, "gone"),
        ({"config_records": (KEPT._replace(tried="0.9:0"),)}, "the stack has another block now"),
        ({"tags": {}}, "no notebook that uses it requests SSH"),
        ({"notebooks": (), "records": (), "config_records": (KEPT._replace(block=""),)}, "no notebook uses it"),
    ],
)
def test_a_configuration_that_drifted_is_reconciled(parts: dict[str, Any], why: str) -> None:
    assert ("team", why) in looks(a_fleet(**parts))


def test_a_configuration_that_cannot_take_the_block_is_not_tried_again_until_something_changes() -> None:
    refused = KEPT._replace(block="", block_since=None, problem=Problem("config-not-shell", "…"))
    said = replace(a_known(), block_since=None, problem=refused.problem, notified_status="connected: config-not-shell")
    assert looks(a_fleet(config_records=(refused,), records=(said,))) == []


@pytest.mark.parametrize("parts", [{"problem": Problem("config-too-large", "…")}, {"block_since": None}])
def test_a_user_of_a_configuration_that_another_users_reconcile_changed_is_reconciled(parts: dict[str, Any]) -> None:
    overtaken = replace(a_known(), **parts)
    assert looks(a_fleet(records=(overtaken,))) == [("Demo", "its configuration changed")]


def test_an_upgrade_reads_each_configuration_once_and_no_notebook() -> None:
    lines = tuple(LINE._replace(name=f"n{i}", arn=f"{ARN}{i}", lifecycle_config=f"c{i % 5}") for i in range(50))
    fleet = Fleet(
        lines,
        tuple(LifecycleConfigSummary(f"c{i}", "", 1) for i in range(5)),
        {line.arn: TAGS for line in lines},
        tuple(a_known(line) for line in lines),
        tuple(LifecycleConfigRecord(f"c{i}", 1, MARK, MARK, NOW - 5000) for i in range(5)),
    )
    found = find_drift(fleet, "ssh", "2.0.0:0123456789ab", NOW, **USUAL)
    assert found == tuple(ReconcileLifecycleConfig(f"c{i}", "the stack has another block now") for i in range(5))


# ---- what the console shows ----------------------------------------------------------------


def test_a_status_without_its_tags_is_reconciled() -> None:
    shown = {"ssh-status": "connected", "ssh-address": "0.tcp.ngrok.io:17887"}
    assert desired_status_tags(a_known(), NOW, SYNC, "ssh") == shown
    assert looks(a_fleet(tags={ARN: TAGS | shown}), status_tags=True) == []
    assert looks(a_fleet(), status_tags=True) == [("Demo", "status")]
    assert looks(a_fleet(tags={ARN: TAGS | shown}), now=NOW + 3000, status_tags=True) == [("Demo", "status")]


def test_a_status_that_comes_with_time_alone_is_found_by_the_sweep_until_its_event_is_sent() -> None:
    assert looks(a_fleet(), now=NOW + 3000) == [("Demo", "status")]
    silent = replace(a_known(), notified_status="stale: agent-silent")
    assert looks(a_fleet(records=(silent,)), now=NOW + 3000) == []
    assert looks(a_fleet(), now=NOW + 3000, dry_run=True) == [("Demo", "changed since it was reconciled")]


def test_nothing_is_shown_of_a_notebook_whose_ssh_is_off() -> None:
    assert desired_status_tags(None, NOW, SYNC, "ssh") == {}
    assert desired_status_tags(a_record(spec=NotebookSpec()), NOW, SYNC, "ssh") == {}


def test_an_error_is_shown_with_its_code() -> None:
    failed = a_record(problem=Problem("config-too-large", "…"))
    assert desired_status_tags(failed, NOW, SYNC, "ssh") == {"ssh-status": "error: config-too-large"}


@pytest.mark.parametrize(("dry_run", "expected"), [(False, [("Demo", "status")]), (True, [])])
def test_a_status_tag_that_is_left_is_found_in_the_record_and_in_a_dry_run_not_at_all(
    expected: list[tuple[str, str]], *, dry_run: bool
) -> None:
    """The list has the tags of no notebook without the mode's tag, whatever else it shows."""
    seen = hash_of_lists(LINE, {}, "ssh", dry_run=dry_run)
    left = replace(
        a_known(spec=NotebookSpec()), status_tags_left=True, observed_hash=seen, report=None, notified_status="off"
    )
    off = a_fleet(records=(left,), config_records=(), tags={})
    assert looks(off, status_tags=True, dry_run=dry_run) == expected
    assert (
        looks(replace(off, records=(replace(left, status_tags_left=False),)), status_tags=True, dry_run=dry_run) == []
    )
    shown = replace(off, tags={ARN: {"ssh-status": "stopped"}}, records=(replace(left, status_tags_left=False),))
    assert looks(shown, status_tags=True, dry_run=True) == []
