"""Scenarios of a tag and a script, through the real handler."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.aws_clients import before_each_call, change_each_answer
from support.notebook_env import FALLBACK, OWNERS, NotebookEnv, a_block, notebook_env

from notebook_ssh.adapters import backups, sagemaker
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.codec import RECONCILER_FIELDS
from notebook_ssh.adapters.lease import Leases
from notebook_ssh.controllers.block_policy import load_policy
from notebook_ssh.errors import InvalidStateError, Problem, RetryableError
from notebook_ssh.model.checks import run_checks
from notebook_ssh.model.record import Mails, Network, NotebookState, Record, Restart, RestartStep
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.status import status_key, status_of
from notebook_ssh.planning.observation import LifecycleConfigRecord
from notebook_ssh.planning.script import EMPTY_SCRIPT
from notebook_ssh.settings import read_settings


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch) as env:
        yield env


def test_a_tag_puts_the_block_in_and_its_absence_takes_it_out(env: NotebookEnv) -> None:
    env.lifecycle_config("team", OWNERS, on_create=b"#!/bin/sh\necho once\n")
    env.notebook("Anas-Box", "team")
    env.settle()
    assert env.on_start("team") == OWNERS

    env.tag("Anas-Box", ssh="ngrok")
    env.settle()
    assert env.has_block("team")
    record = env.record("anas-box")
    assert (record.name, record.spec.modes, record.lifecycle_config) == ("Anas-Box", (Mode.NGROK,), "team")
    assert record.block_since is not None

    env.untag("Anas-Box")
    env.settle()
    assert env.scripts("team") == (b"#!/bin/sh\necho once\n", OWNERS)
    assert env.record("anas-box").spec.modes == ()


def test_a_notebook_without_configuration_gets_one_when_it_stops_and_loses_it_when_it_stops_again(
    env: NotebookEnv,
) -> None:
    env.notebook("box", ssh="ngrok")
    env.settle()
    assert env.attached_config("box") is None
    assert FALLBACK not in env.lifecycle_configs()

    env.stop("box")
    env.settle()
    assert env.attached_config("box") == FALLBACK
    assert env.record("box").attached_config == FALLBACK
    assert env.status("box") == "Stopped"

    env.start("box")
    env.untag("box")
    env.settle()
    assert env.attached_config("box") == FALLBACK
    assert not env.has_block(FALLBACK)

    env.stop("box")
    env.settle()
    assert env.attached_config("box") is None
    assert FALLBACK not in env.lifecycle_configs()


def test_the_block_comes_from_the_agents_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Path(__file__).parents[2] / "layers" / "notebook_agent"
    for name, value in {
        "STACK_NAME": "team-ssh",
        "TABLE_NAME": "records",
        "AWS_REGION": "eu-west-1",
        "API_URL": "https://abc.execute-api.eu-west-1.amazonaws.com/v1",
        "NOTEBOOK_AGENT": str(layer),
    }.items():
        monkeypatch.setenv(name, value)
    policy = load_policy(read_settings())
    assert (policy.tag_key, policy.default_config) == ("ssh", "better-sagemaker")
    assert b"https://abc.execute-api.eu-west-1.amazonaws.com/v1" in policy.block.text()


# ---- what a look costs -------------------------------------------------------------------------


def test_a_reconcile_with_nothing_to_do_costs_three_reads(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    env.calls.clear()
    env.look("box")
    env.settle()
    assert env.calls == {
        "describe_notebook_instance": 1,
        "list_tags": 1,
        "describe_notebook_instance_lifecycle_config": 1,
    }


def test_a_burst_is_reconciled_once_and_messages_older_than_the_last_read_are_skipped(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    for number in range(20):
        env.notebook(f"box-{number}", "team", ssh="ngrok")
    env.settle()
    env.calls.clear()
    env.messages.clear()
    for number in range(1_000):
        env.look(f"Box-{number % 20}" if number % 2 else f"box-{number % 20}")
    sent = list(env.messages)
    env.settle(finish=False)
    assert env.calls["describe_notebook_instance"] <= 2 * 20
    env.calls.clear()
    env.messages += sent  # delivered once more, late
    env.settle(finish=False)
    assert not env.calls


def test_a_message_that_failed_is_reconciled_however_old_it_is(env: NotebookEnv) -> None:
    env.notebook("box", ssh="ngrok")
    env.settle()
    env.look("box")
    env.now += 100
    env.settle()
    env.calls.clear()
    env.messages.append((env.now, env.now - 1000, '{"request": {"notebook": "box"}}'))
    env.deliver(receives=2)
    assert env.calls["describe_notebook_instance"] == 1


def test_our_own_writes_cause_no_loop(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle(rounds=4)
    writes = env.calls["update_notebook_instance_lifecycle_config"]
    assert writes == 1


# ---- failures ----------------------------------------------------------------------------------


def failing(env: NotebookEnv, operation: str, error: Exception, times: int = 1) -> None:
    """The next calls of `operation` fail."""
    left = [times]

    def before(name: str, given: dict[str, Any]) -> None:
        if name == operation and left[0]:
            left[0] -= 1
            raise error

    env.before_call = before


@pytest.mark.parametrize(
    "operation",
    [
        "describe_notebook_instance",
        "list_tags",
        "describe_notebook_instance_lifecycle_config",
        "list_notebook_instances",
        "update_notebook_instance_lifecycle_config",
    ],
)
def test_a_failed_call_fails_its_message_alone_and_takes_nothing_away(env: NotebookEnv, operation: str) -> None:
    env.lifecycle_config("team")
    env.lifecycle_config("other")
    env.notebook("box", "team", ssh="ngrok")
    env.notebook("another", "other", ssh="ngrok")
    env.settle()
    env.untag("box")
    failing(env, operation, RetryableError("Rate exceeded"))
    env.look("another")
    answer = env.deliver()
    assert len(answer["batchItemFailures"]) == 1
    assert env.has_block("team")
    assert env.table.record("another") is not None
    env.settle()
    assert env.on_start("team") == OWNERS


def test_an_unforeseen_error_fails_its_message_alone(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("bad", "team", ssh="ngrok")
    env.notebook("good", "team", ssh="ngrok")
    env.messages.clear()
    failing(env, "describe_notebook_instance", KeyError("surprise"))
    env.look("bad")
    env.look("good")
    assert env.deliver()["batchItemFailures"] == [{"itemIdentifier": "0"}]
    assert env.record("good").observed_hash


def test_an_owner_who_writes_while_we_do_is_not_overwritten(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team")
    env.settle()
    env.tag("box", ssh="ngrok")
    theirs = b"#!/bin/bash\necho written at the very moment\n"
    reads: list[str] = []

    def before(name: str, given: dict[str, Any]) -> None:
        # One read for the plan, and the last one right before the write.
        if name == "describe_notebook_instance_lifecycle_config":
            reads.append(name)
            if len(reads) == 2:
                env.before_call = lambda name, given: None
                env.edit("team", theirs)

    env.before_call = before
    assert env.deliver()["batchItemFailures"] == []
    assert env.on_start("team") == theirs
    env.settle()
    assert env.has_block("team")
    env.untag("box")
    env.settle()
    assert env.on_start("team") == theirs


def test_a_write_that_did_not_last_is_noticed(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    theirs = b"#!/bin/bash\necho a moment after\n"
    written: list[str] = []

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "update_notebook_instance_lifecycle_config":
            written.append(name)
        elif name == "describe_notebook_instance_lifecycle_config" and len(written) == 1:
            env.before_call = lambda name, given: None
            env.edit("team", theirs)

    env.before_call = before
    assert env.deliver()["batchItemFailures"]
    env.settle()
    assert env.has_block("team")
    assert b"a moment after" in (env.on_start("team") or b"")


@pytest.mark.parametrize("answer", ["clears", "refuses", "ignores"])
def test_a_script_that_was_absent_is_absent_again_or_does_nothing(env: NotebookEnv, answer: str) -> None:
    env.lifecycle_config("team", None, on_create=EMPTY_SCRIPT)
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    assert env.has_block("team")

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "update_notebook_instance_lifecycle_config" and given["OnStart"] == []:
            if answer == "refuses":
                raise ClientError({"Error": {"Code": "ValidationException", "Message": "at least 1"}}, name)
            if answer == "ignores":
                on_start = env.on_start("team") or b""
                given["OnStart"] = [{"Content": base64.b64encode(on_start).decode()}]

    env.before_call = before
    env.untag("box")
    env.settle()
    assert env.scripts("team") == (EMPTY_SCRIPT, None if answer == "clears" else b"#!/bin/sh\n")


def test_a_status_that_does_not_allow_the_call_is_waited_out(env: NotebookEnv) -> None:
    env.notebook("box", running=False)
    env.settle()
    env.tag("box", ssh="ngrok")
    failing(env, "update_notebook_instance", InvalidStateError("Unable to transition to (Updating)"))
    assert env.deliver()["batchItemFailures"] == []
    assert env.attached_config("box") is None
    env.now += 60
    env.settle()
    assert env.attached_config("box") == FALLBACK


def test_an_attachment_whose_answer_was_lost_is_known_as_ours(env: NotebookEnv) -> None:
    env.notebook("box", running=False)
    env.settle()
    env.tag("box", ssh="ngrok")

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "update_notebook_instance":
            env.before_call = lambda name, given: None
            env.attach("box", FALLBACK)
            raise RetryableError("no answer from AWS")

    env.before_call = before
    assert env.deliver()["batchItemFailures"]
    env.settle()
    assert env.record("box").attached_config == FALLBACK
    env.untag("box")
    env.settle()
    assert env.attached_config("box") is None
    assert FALLBACK not in env.lifecycle_configs()


# ---- write slots and leases ---------------------------------------------------------------------


@pytest.mark.slow
def test_writes_are_a_second_apart_and_what_does_not_fit_waits_in_the_queue(env: NotebookEnv) -> None:
    for number in range(12):
        env.lifecycle_config(f"team-{number}")
        env.notebook(f"box-{number}", f"team-{number}", ssh="ngrok")
    env.messages.clear()
    writes: list[int] = []

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "update_notebook_instance_lifecycle_config":
            writes.append(env.now)

    env.before_call = before
    for number in range(12):
        env.look(f"box-{number}")
    env.remaining = 15_000
    assert env.deliver()["batchItemFailures"] == []
    assert 3 <= len(writes) <= 6
    assert env.messages
    for _ in range(30):
        env.now += 3
        if env.due():
            env.deliver()
    assert len(writes) == 12
    assert min(later - earlier for earlier, later in pairwise(writes)) >= 1
    assert all(env.has_block(f"team-{number}") for number in range(12))


def test_a_configuration_that_another_worker_holds_is_left_to_it(env: NotebookEnv) -> None:
    """Before its block is removed. To install one takes no lease."""
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    other = Leases(env.table, lambda: 60_000, lambda: env.now * 1000)
    with other.lease("configuration/team"):
        env.settle(finish=False)
        assert env.has_block("team")
        env.untag("box")
        assert env.deliver()["batchItemFailures"] == []
        assert env.has_block("team")
        assert env.messages
    env.now += 10
    env.settle()
    assert env.on_start("team") == OWNERS


def test_a_worker_that_was_killed_blocks_for_no_longer_than_it_could_have_run(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    env.untag("box")
    killed = Leases(env.table, lambda: 60_000, lambda: env.now * 1000)
    never_let_go = killed.lease("configuration/team")
    never_let_go.__enter__()
    env.deliver()
    assert env.has_block("team")
    env.now += 61
    env.settle()
    assert env.on_start("team") == OWNERS


# ---- time --------------------------------------------------------------------------------------


def test_access_ends_at_its_time_and_the_rules_are_reconciled(env: NotebookEnv) -> None:
    until = env.now + 500
    env.lifecycle_config("team")
    env.notebook(
        "box", "team", ssh="bastion", ssh_until=datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    env.settle()
    assert env.has_block("team")
    env.bastion = 0
    env.now = until - 30
    env.settle(finish=False)
    assert env.bastion == 0
    env.now = until
    env.settle(finish=False)
    assert env.now <= until + 60
    assert env.bastion == 1
    assert env.on_start("team") == OWNERS


# ---- the bastion -------------------------------------------------------------------------------


def test_the_bastion_gets_a_message_for_what_its_rules_depend_on_alone(env: NotebookEnv) -> None:
    env.notebook("box", ssh="ngrok")
    env.settle()
    assert env.bastion == 0
    env.tag("box", ssh="bastion")
    env.settle()
    assert env.bastion == 1
    env.tag("box", ssh_users="ana")
    env.settle()
    assert env.bastion == 1
    env.stop("box")
    env.settle()
    assert env.bastion > 1
    told = env.bastion
    env.untag("box")
    env.settle()
    assert env.bastion == told + 1


# ---- restart -----------------------------------------------------------------------------------


def test_an_opted_in_restart_happens_once(env: NotebookEnv) -> None:
    env.notebook("box")
    env.settle()
    env.calls.clear()
    env.now += 2000
    env.tag("box", ssh="ngrok", ssh_restart="now")
    env.settle()
    assert env.status("box") == "InService"
    assert env.attached_config("box") == FALLBACK
    assert env.tags("box") == {"ssh": "ngrok"}
    assert (env.calls["stop_notebook_instance"], env.calls["start_notebook_instance"]) == (1, 1)


# ---- upgrade, dry run --------------------------------------------------------------------------


def test_a_new_version_of_the_stack_rewrites_the_block(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    since = env.record("box").block_since
    env.block = a_block("1.1.0")
    env.look("box")
    env.settle()
    assert b"the block of 1.1.0" in (env.on_start("team") or b"")
    assert env.record("box").block_since == since


def test_a_dry_run_writes_nothing_outside_the_table_and_lists_what_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    with notebook_env(monkeypatch, DRY_RUN="true", STATUS_TAGS="true") as env:
        env.lifecycle_config("team")
        env.notebook("box", "team", ssh="ngrok")
        env.notebook("alone", running=False, ssh="ngrok", ssh_restart="now")
        env.settle()
        assert not {name for name in env.calls if not name.startswith(("describe", "list"))}
        assert env.on_start("team") == OWNERS
        assert [sentence.partition(":")[0] for sentence in env.record("box").planned] == [
            "keep the back-ups of team",
            "back up the on-start script of team",
            "write the on-start script of team (50 bytes to 242)",
        ]
        assert any("attach better-sagemaker to alone: " in sentence for sentence in env.record("alone").planned)
        assert env.record("box").block_since is None


# ---- back-ups ----------------------------------------------------------------------------------


def backups_of(env: NotebookEnv, lifecycle_config: str) -> list[dict[str, Any]]:
    return list(env.table.items(f"backup#{lifecycle_config}"))


def test_every_version_that_we_changed_is_kept_and_ends_90_days_after_the_last_tag(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    (first,) = backups_of(env, "team")
    assert base64.b64decode(first["content"]) == OWNERS
    assert first["reason"] == "a notebook that uses this configuration requests SSH"
    assert first["at"].startswith("20")
    assert "expires" not in first

    env.edit("team", b"#!/bin/bash\necho another\n")
    env.settle()
    env.untag("box")
    env.settle()
    config_record = backups_of(env, "team")
    assert OWNERS in [base64.b64decode(copy["content"]) for copy in config_record]
    assert b"#!/bin/bash\necho another\n" in [base64.b64decode(copy["content"]) for copy in config_record]
    assert all(89 * 86_400 < copy["expires"] - env.now <= 90 * 86_400 for copy in config_record)

    env.tag("box", ssh="ngrok")
    env.settle()
    assert not any("expires" in copy for copy in backups_of(env, "team"))


def test_copies_of_the_default_configuration_s_script_are_kept_when_it_is_used_again(env: NotebookEnv) -> None:
    env.notebook("box", running=False, ssh="ngrok")
    env.notebook("other", running=False)
    env.settle()
    env.attach("other", FALLBACK)
    env.settle()
    env.edit(FALLBACK, b"#!/bin/bash\necho first\n")
    env.settle()
    env.untag("box")
    env.settle()
    env.edit(FALLBACK, b"#!/bin/bash\necho second\n")
    env.settle()
    assert any("expires" in copy for copy in backups_of(env, FALLBACK))
    env.tag("other", ssh="ngrok")
    env.settle()
    assert env.has_block(FALLBACK)
    assert not any("expires" in copy for copy in backups_of(env, FALLBACK))


def test_copies_are_kept_although_the_first_attempt_to_keep_them_failed(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    env.untag("box")
    env.settle()
    fail_once_to_update_a_copy()
    env.tag("box", ssh="ngrok")
    assert env.deliver()["batchItemFailures"]
    env.settle()
    assert env.has_block("team")
    assert not any("expires" in copy for copy in backups_of(env, "team"))


def test_the_end_of_copies_is_set_once(env: NotebookEnv) -> None:
    """A long list that is ended in several attempts, each at another time, would never end."""
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    for at in (1_000, 2_000):
        backups.set_backup_expiry(env.table, "team", at)
        assert [copy["expires"] for copy in backups_of(env, "team")] == [1_000]


def test_copies_end_also_when_both_writes_were_interrupted(env: NotebookEnv) -> None:
    """Killed after the block was written, and killed again after it was removed: neither is recorded."""
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    backups.save_config_record(env.table, LifecycleConfigRecord("team"))
    env.untag("box")
    fail_once_to_update_a_copy()
    assert env.deliver()["batchItemFailures"]
    env.settle()
    assert env.on_start("team") == OWNERS
    assert all("expires" in copy for copy in backups_of(env, "team"))


def fail_once_to_update_a_copy() -> None:
    """The first update of a copy of a script, to set or remove its end, is throttled."""
    failures = [1]

    def throttled(operation: str, given: dict[str, Any]) -> None:
        if operation == "update_item" and given["Key"]["pk"]["S"].startswith("backup#") and failures:
            failures.clear()
            raise RetryableError("throttled")

    before_each_call(client("dynamodb"), throttled)


def test_an_absent_script_is_kept_as_absent(env: NotebookEnv) -> None:
    env.lifecycle_config("team", None, on_create=EMPTY_SCRIPT)
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    assert [copy["content"] for copy in backups_of(env, "team")] == [None]


# ---- what the console shows --------------------------------------------------------------------


def test_the_status_is_shown_as_tags_and_goes_with_the_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    with notebook_env(monkeypatch, STATUS_TAGS="true") as env:
        env.lifecycle_config("team")
        env.notebook("box", "team", running=False, ssh="ngrok", Env="research")
        env.settle()
        assert env.tags("box") == {"ssh": "ngrok", "Env": "research", "ssh-status": "stopped"}
        env.start("box")
        env.now += 120
        env.settle()
        assert env.tags("box")["ssh-status"] == "starting"
        env.untag("box")
        env.settle()
        assert env.tags("box") == {"Env": "research"}


def test_a_block_that_is_about_to_be_written_is_not_reported_as_installed(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    seen: list[int | None] = []

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "update_notebook_instance_lifecycle_config":
            seen.append(env.record("box").block_since)

    env.before_call = before
    env.settle()
    assert seen == [None]
    assert env.record("box").block_since is not None


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException", "ValidationException"])
def test_a_status_tag_that_is_refused_fails_nothing_and_is_written_once_it_may(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    with notebook_env(monkeypatch, STATUS_TAGS="true") as env:
        env.lifecycle_config("team")
        env.notebook("box", "team", running=False, ssh="ngrok")
        failing(env, "add_tags", ClientError({"Error": {"Code": code, "Message": "no"}}, "AddTags"), times=1)
        assert env.deliver()["batchItemFailures"] == []
        record = env.record("box")
        assert (record.observed_hash != "", record.notified_status) == (True, "stopped")
        env.now += 100
        env.look("box")
        env.settle()
        assert env.tags("box")["ssh-status"] == "stopped"


def test_a_status_tag_that_a_slow_worker_writes_too_late_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker reconciles the untagged notebook between the saving of its record and the writing of its tags."""
    with notebook_env(monkeypatch, STATUS_TAGS="true") as env:
        env.lifecycle_config("team")
        env.notebook("box", "team", running=False, ssh="ngrok")

        def before(name: str, given: dict[str, Any]) -> None:
            if name == "add_tags":
                env.before_call = lambda name, given: None
                env.untag("box")
                env.settle(finish=False)
                assert env.record("box").spec == NotebookSpec()

        env.before_call = before
        env.deliver()
        assert "ssh-status" in env.tags("box")
        env.now += 5
        env.settle()
        assert "ssh-status" not in env.tags("box")


def test_a_status_that_flaps_is_written_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    with notebook_env(monkeypatch, STATUS_TAGS="true") as env:
        env.lifecycle_config("team", b"#!/usr/bin/python3\n")
        env.notebook("box", "team", ssh="ngrok")
        env.settle()
        env.now += 200
        env.settle()
        env.calls.clear()
        begin = env.now
        for number in range(20):
            env.tag("box", ssh="ngrok" if number % 2 else "ngork")
            env.settle(finish=False)
        assert env.now - begin < 60
        assert env.calls["add_tags"] <= 1
        env.now += 61
        env.settle(finish=False)
        assert env.tags("box")["ssh-status"] == "error: config-not-shell"


# ---- deletion ----------------------------------------------------------------------------------


OTHERS_WRITE = ("routes", "report", "wake_at")


def test_every_part_of_a_record_is_kept_and_read_back(env: NotebookEnv) -> None:
    assert {part.name for part in fields(Record)} == {*RECONCILER_FIELDS, *OTHERS_WRITE}
    whole = Record(
        "Box",
        arn="arn",
        created_at=8,
        role="role",
        spec=NotebookSpec((Mode.NGROK,), "tcp://a.b:1", ("ana",), 5, True, True, Problem("a", "b")),
        state=NotebookState.FAILED,
        state_since=1,
        lifecycle_config="team",
        block_since=2,
        network=Network("subnet", ("sg",), "eni"),
        unsupported_platform="notebook-al2-v3",
        failure="OnStart failed",
        mails=Mails(1, 2, 3),
        problem=Problem("c", "d"),
        observed_hash="seen",
        observed_at=3,
        started_at=4,
        attached_config="team",
        attached_hash="0123",
        restart=Restart(RestartStep.START, 5, 4),
        planned=("a", "b"),
        status_tags_at=6,
        status_tags_left=True,
        notified_status="error: config-too-large",
        spec_changed_at=7,
        first_connected=True,
    )
    assert not [
        part.name
        for part in fields(Record)
        if getattr(whole, part.name) in ("", None, 0, ()) and part.name not in OTHERS_WRITE
    ]
    env.table.save_observed(whole, None)
    assert env.table.record("box") == whole


def test_a_deleted_notebook_is_forgotten(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("Box", "team", running=False, ssh="ngrok")
    env.settle()
    client("sagemaker").delete_notebook_instance(NotebookInstanceName="Box")
    env.settle()
    env.look("box")
    env.settle()
    assert env.table.record("Box") is None
    assert env.on_start("team") == OWNERS
    assert list(env.table.items("lifecycle_config")) == []


def test_the_record_of_an_untagged_notebook_says_off_for_a_day(env: NotebookEnv) -> None:
    env.notebook("box", ssh="ngrok")
    env.settle()
    env.untag("box")
    env.settle()
    item = env.table.item("notebook", "box")
    assert item is not None
    assert 0 < item["expires"] - env.now <= 86_400
    env.tag("box", ssh="ngrok")
    env.settle()
    assert "expires" not in (env.table.item("notebook", "box") or {})


def answering(**changes: Any) -> Callable[[], None]:
    """Let SageMaker answer with `changes` about the notebook `box`; returns what ends that."""

    def change(answer: dict[str, Any]) -> None:
        for line in (answer, *answer.get("NotebookInstances", ())):
            if line.get("NotebookInstanceName") == "box":
                line |= changes

    return change_each_answer(client("sagemaker"), change)


def test_an_unknown_sagemaker_status_fails_nothing_and_is_left_alone(env: NotebookEnv) -> None:
    """Nothing is attached, stopped or started in it, and the others of a list are read on."""
    assert not NotebookState("Resuming").is_known
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.notebook("other")
    env.settle()
    answering(NotebookInstanceStatus="Resuming")
    env.calls.clear()
    assert {line.name: line.state for line in sagemaker.list_notebooks()}["box"] == "Resuming"
    env.untag("box")
    env.settle()
    assert env.on_start("team") == OWNERS
    assert not {"start_notebook_instance", "stop_notebook_instance"} & env.calls.keys()


LONG = "arn:aws:sagemaker:us-east-1:123456789012:notebook-instance"
FAILURES = {
    f"Notebook Instance Lifecycle Config '{LONG}-lifecycle-config/team' for Notebook Instance '{LONG}/box' took longer "
    "than 5 minutes. Please check your CloudWatch logs.": "Notebook Instance Lifecycle Config 'team' for Notebook "
    "Instance 'box' took longer than 5 minutes. Please check your CloudWatch logs.",
    "\n  OnStart failed:\x1b[31m\tline 3: pip: command not found\u202e\nand more": "OnStart failed: [31m line 3: pip: command not found",
    "x" * 2000: "x" * 299 + "…",
    "curl -H Authorization:Bearer\u00a0abcDEF123ghiJKL456mnoPQR failed": "curl -H Authorization:Bearer … failed",
    "export API_TOKEN=hunter2 failed": "export API_TOKEN=… failed",
    "no https://me:" + "secret@example.com/x": "no https://…@example.com/x",
    "the key AKIA" + "IOSFODNN7EXAMPLE is not valid": "the key … is not valid",
}
"""What SageMaker returns as FailureReason, and what of it is shown."""


@pytest.mark.parametrize(("reason", "shown"), FAILURES.items(), ids=range(len(FAILURES)))
def test_a_start_that_failed_shows_the_first_line_of_its_reason(env: NotebookEnv, reason: str, shown: str) -> None:
    """One line, printable, bounded, and without what looks like a secret: a script's last words may be in it."""
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    later = datetime.fromtimestamp(env.now + 1, UTC)
    end = answering(NotebookInstanceStatus="Failed", LastModifiedTime=later, FailureReason=reason)
    env.look("box")
    env.settle()
    status = status_of(env.record("box"), env.now, 300)
    assert status_key(status) == "error: notebook-failed"
    assert shown in status.message
    diagnosis = run_checks(env.record("box"), env.now, read_settings())
    assert shown in next(check.reason for check in diagnosis.checks if check.name == "restart")
    end()
    env.now += 60
    env.look("box")
    env.settle()
    assert shown not in status_of(env.record("box"), env.now, 300).message


@pytest.mark.parametrize("word", ["PendingMaintenance", "InMaintenance", "Resuming"])
def test_a_run_goes_on_through_a_state_that_does_not_say(env: NotebookEnv, word: str) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    began = env.record("box").started_at
    assert began
    for state in (word, "InService"):
        later = datetime.fromtimestamp(env.now + 1, UTC)
        end = answering(NotebookInstanceStatus=state, LastModifiedTime=later)
        env.look("box")
        env.settle()
        assert (str(env.record("box").state), env.record("box").started_at) == (state, began)
        end()
        env.now += 60


@pytest.mark.parametrize(
    ("platform", "status"),
    [
        ("notebook-al2-v3", "error: platform-unsupported"),
        ("notebook-al2023-v1", "pending-restart"),
        ("notebook-al2023-v2", "pending-restart"),
        ("notebook-al2027-v1", "pending-restart"),
    ],
)
def test_an_unsupported_platform_is_reported_and_never_stopped(env: NotebookEnv, platform: str, status: str) -> None:
    """AWS does not start it again."""
    env.lifecycle_config("team")
    answering(PlatformIdentifier=platform)
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    assert status_key(status_of(env.record("box"), env.now, 300)) == status
    supported = status == "pending-restart"
    env.tag("box", ssh_restart="now")
    env.calls.clear()
    env.settle()
    assert bool(env.calls["stop_notebook_instance"]) is supported
    assert "ssh-restart" not in env.tags("box")
