"""The sweep through its real handler: what it costs, and what it does about a whole account."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from math import ceil
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.aws_clients import answer_each, clients_made_by
from support.builders import NOW, a_lambda_context, a_record, a_report
from support.loglines import logged_by
from support.model_of_sagemaker import TERMS
from support.notebook_env import NotebookEnv, notebook_env

from notebook_ssh.adapters.attributes import to_attribute
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.codec import encode_config_record, encode_record, encode_report
from notebook_ssh.controllers import sweep as sweep_module
from notebook_ssh.controllers.sweep import SWEPT
from notebook_ssh.errors import RetryableError
from notebook_ssh.model.fleet_stats import fleet_stats
from notebook_ssh.model.record import NotebookState, Phase, Report
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.text import iso_time
from notebook_ssh.planning.drift import Fleet, find_drift
from notebook_ssh.planning.facts import hash_of_lists
from notebook_ssh.planning.observation import LifecycleConfigRecord, NotebookSummary
from sweep import handler

PAGE = 100


class Account:
    """Answers lists in pages of 100, counts requests, and knows no request for a single notebook."""

    def __init__(self, count: int, *, known: bool = True) -> None:
        self.lines = [
            NotebookSummary(f"box-{i}", f"arn:box-{i}", NotebookState.IN_SERVICE, NOW, f"team-{i // 10}")
            for i in range(count)
        ]
        self.known = known
        self.calls: Counter[str] = Counter()
        self.deployment: dict[str, Any] = {"block": {"S": TERMS.block_ref}, "since": {"N": "1"}}
        self.sent: list[dict[str, Any]] = []

    def __getattr__(self, operation: str) -> Any:
        raise AssertionError(f"the sweep asked for {operation}")

    def _page(self, operation: str, given: dict[str, Any], token: str, rows: list[Any]) -> tuple[list[Any], str]:
        self.calls[operation] += 1
        start = int(given.get(token) or 0)
        more = str(start + PAGE) if start + PAGE < len(rows) else ""
        return rows[start : start + PAGE], more

    def list_notebook_instances(self, **given: Any) -> dict[str, Any]:
        rows, more = self._page("notebooks", given, "NextToken", self.lines)
        return {
            "NotebookInstances": [
                {
                    "NotebookInstanceName": line.name,
                    "NotebookInstanceArn": line.arn,
                    "NotebookInstanceStatus": str(line.state),
                    "LastModifiedTime": datetime.fromtimestamp(line.state_since, UTC),
                    "NotebookInstanceLifecycleConfigName": line.lifecycle_config,
                }
                for line in rows
            ],
            "NextToken": more,
        }

    def list_notebook_instance_lifecycle_configs(self, **given: Any) -> dict[str, Any]:
        names = sorted({str(line.lifecycle_config) for line in self.lines})
        rows, more = self._page("configurations", given, "NextToken", names)
        modified = datetime.fromtimestamp(NOW, UTC)
        return {
            "NotebookInstanceLifecycleConfigs": [
                {
                    "NotebookInstanceLifecycleConfigName": name,
                    "NotebookInstanceLifecycleConfigArn": name,
                    "LastModifiedTime": modified,
                }
                for name in rows
            ],
            "NextToken": more,
        }

    def get_resources(self, **given: Any) -> dict[str, Any]:
        lines = self.lines if given["TagFilters"] == [{"Key": "ssh"}] else []
        rows, more = self._page("tags", given, "PaginationToken", lines)
        tags = [{"Key": "ssh", "Value": "ngrok"}]
        return {
            "ResourceTagMappingList": [{"ResourceARN": line.arn, "Tags": tags} for line in rows],
            "PaginationToken": more,
        }

    def get_item(self, **given: Any) -> dict[str, Any]:
        assert given["Key"] == {"pk": {"S": "coordination"}, "sk": {"S": "deployment"}}
        self.calls["deployment"] += 1
        return {"Item": self.deployment}

    def query(self, **given: Any) -> dict[str, Any]:
        partition = given["ExpressionAttributeValues"][":pk"]["S"]
        items = {"notebook": self.records, "lifecycle_config": self.config_record, "coordination": []}[partition]
        start = {"NextToken": given.get("ExclusiveStartKey", {}).get("pk", {}).get("S", "")}
        rows, more = self._page(partition, start, "NextToken", items)
        return {"Items": rows} | ({"LastEvaluatedKey": {"pk": {"S": more}}} if more else {})

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        if not self.known:
            return []
        seen = {line.name: hash_of_lists(line, {"ssh": "ngrok"}, "ssh", dry_run=False) for line in self.lines}
        records = [
            a_record(
                name=line.name,
                spec=NotebookSpec((Mode.NGROK,)),
                observed_hash=seen[line.name],
                notified_status="starting",
            )
            for line in self.lines
        ]
        return [{name: to_attribute(value) for name, value in encode_record(record).items()} for record in records]

    @cached_property
    def config_record(self) -> list[dict[str, Any]]:
        names = sorted({str(line.lifecycle_config) for line in self.lines}) if self.known else []
        entries = [
            LifecycleConfigRecord(name, NOW * 1000, TERMS.block_ref, TERMS.block_ref, NOW - 5000) for name in names
        ]
        return [
            {name: to_attribute(value) for name, value in encode_config_record(entry).items()}
            | {"sk": {"S": entry.name}}
            for entry in entries
        ]

    def send_message_batch(self, **given: Any) -> dict[str, Any]:
        self.calls["send"] += 1
        self.sent += given["Entries"]
        return {}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {
        "STACK_NAME": "team-ssh",
        "TABLE_NAME": "records",
        "AWS_REGION": "us-east-1",
        "NOTEBOOK_QUEUE": "notebooks",
        "RULE_QUEUE": "bastion.fifo",
        "STATUS_TAGS": "false",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def swept(account: Account) -> dict[str, int]:
    """One run of the sweep in this account."""
    with clients_made_by(lambda service: account):
        found: dict[str, int] = handler.handle({}, a_lambda_context(), clock=lambda: NOW, policy=lambda settings: TERMS)
        return found


@pytest.mark.parametrize("count", [1, 100, 101, 1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_in_the_steady_state_requests_grow_with_pages_and_nothing_is_queued(
    count: int, settings: pytest.MonkeyPatch
) -> None:
    account = Account(count)
    assert swept(account) == {"notebooks": count, "records": count, "requests": 0}
    pages, pages_of_configurations = ceil(count / PAGE), ceil(ceil(count / 10) / PAGE)
    assert account.calls == {
        "notebooks": pages,
        "tags": pages + 2,  # the key in other cases, which no notebook has
        "notebook": pages,  # DynamoDB's own pages hold about eight times as many
        "configurations": pages_of_configurations,
        "lifecycle_config": pages_of_configurations,
        "coordination": 1,
        "deployment": 1,
    }


def test_a_fleet_without_records_is_queued_by_tens(settings: pytest.MonkeyPatch) -> None:
    account = Account(101, known=False)
    assert swept(account)["requests"] == 101
    assert account.calls["send"] == 11
    assert {json.loads(entry["MessageBody"])["request"]["notebook"] for entry in account.sent} == {
        line.name for line in account.lines
    }


@pytest.mark.parametrize("broken", ["list_notebook_instances", "get_resources", "query"])
def test_half_a_list_is_no_news(broken: str, settings: pytest.MonkeyPatch) -> None:
    account = Account(250)
    whole = getattr(account, broken)

    def throttled(**given: Any) -> Any:
        if account.calls.total() and any(given.get(token) for token in ("NextToken", "PaginationToken")):
            raise RetryableError("Rate exceeded")
        if broken == "query" and given.get("ExclusiveStartKey"):
            raise RetryableError("Rate exceeded")
        return whole(**given)

    setattr(account, broken, throttled)
    with pytest.raises(RetryableError):
        swept(account)
    assert account.sent == []


def test_a_record_of_a_newer_version_is_left_out_and_stops_no_sweep(settings: pytest.MonkeyPatch) -> None:
    account = Account(5)
    account.records[2]["spec"] = to_attribute({"mode": "tailscale"})
    assert swept(account) == {"notebooks": 5, "records": 4, "requests": 0}
    assert not account.sent, "a reconciliation would fail as the sweep's reading did, time after time"


def test_each_state_that_this_version_does_not_know_is_logged_once_with_its_number(
    settings: pytest.MonkeyPatch,
) -> None:
    account = Account(6)
    known = account.list_notebook_instances

    def listed(**given: Any) -> Any:
        page = known(**given)
        states = ["Hibernating", "InService", "Hibernating", "PendingMaintenance", "Moving", "Stopped"]
        for line, state in zip(page["NotebookInstances"], states, strict=True):
            line["NotebookInstanceStatus"] = state
        return page

    settings.setattr(account, "list_notebook_instances", listed)
    with logged_by(settings, handler.logger) as lines:
        swept(account)
    logged = [(line["level"], line["state"], line["notebooks"]) for line in lines if "state" in line]
    assert logged == [("WARNING", "Hibernating", 2), ("WARNING", "Moving", 1)]


def test_each_use_within_the_hour_is_logged_for_the_dashboard(settings: pytest.MonkeyPatch) -> None:
    account = Account(4)
    for number, ago in enumerate([60, 7_200, None]):
        report = replace(a_report(), active_at=None if ago is None else NOW - ago)
        account.records[number]["report"] = to_attribute(encode_report(report))
    with logged_by(settings, handler.logger) as lines:
        swept(account)
    used = [(line["notebook"], line["last_used"]) for line in lines if line["message"] == "used over SSH"]
    assert used == [(account.lines[0].name, iso_time(NOW - 60))]


# ---- alone it would be enough ------------------------------------------------------------------


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch, BASTION_SECURITY_GROUP="sg-1", BASTION_HOST="b", BASTION_VPC="vpc-1") as env:
        env.deaf = True
        yield env


def sweep(env: NotebookEnv) -> int:
    env.now += 900
    looks = env.sweep()["requests"]
    env.settle()
    return looks


def test_without_a_single_event_everything_is_found(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("Shared-1", "team", ssh="ngrok")
    env.notebook("shared-2", "team")
    env.notebook("alone", ssh="bastion")
    assert sweep(env) == 2
    assert env.has_block("team")
    sweep(env)
    assert sweep(env) == 0

    env.stop("alone")
    env.finish()
    assert sweep(env) == 1
    assert env.attached_config("alone") == "better-sagemaker"
    while sweep(env):
        pass

    env.edit("team", b"#!/bin/bash\necho the block is gone\n")
    sweep(env)
    assert env.has_block("team")

    env.untag("Shared-1")
    env.untag("alone")
    while sweep(env):
        pass
    assert env.on_start("team") == b"#!/bin/bash\necho the block is gone\n"
    assert env.attached_config("alone") is None
    assert env.lifecycle_configs() == {"team"}


@pytest.mark.parametrize(
    ("endpoints", "paused", "message"),
    [
        ("0", "false", ""),
        ("3", "false", ""),
        ("2", "false", "every endpoint of the ngrok plan is in use"),
        ("1", "false", "an admin is needed"),
        ("1", "true", ""),
    ],
)
def test_more_tunnels_than_the_ngrok_plan_has_are_an_admins_matter(
    env: NotebookEnv, endpoints: str, paused: str, message: str
) -> None:
    env.patch.setenv("NGROK_ENDPOINTS", endpoints)
    env.lifecycle_config("team")
    for name, modes in (("first", "ngrok"), ("second", "eice ngrok"), ("third", "bastion")):
        env.notebook(name, "team", ssh=modes)
    sweep(env)
    env.patch.setenv("PAUSED", paused)
    with logged_by(env.patch, sweep_module.logger) as said:
        sweep(env)
    warnings = [line for line in said if line["message"] in (message, "an admin is needed")]
    assert [line["message"] for line in warnings] == [message] * bool(message)
    if endpoints == "1" and warnings:
        assert warnings[0]["reason"].startswith("2 running notebooks request ngrok, and the plan has 1 endpoints")


def test_a_block_whose_notebooks_are_all_gone_is_taken_out(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", running=False, ssh="ngrok")
    sweep(env)
    assert env.has_block("team")
    client("sagemaker").delete_notebook_instance(NotebookInstanceName="box")
    env.finish()
    sweep(env)
    assert not env.has_block("team")
    assert env.table.record("box") is None


def test_a_status_tag_that_could_not_be_removed_for_two_days_goes_later(env: NotebookEnv) -> None:
    env.patch.setenv("STATUS_TAGS", "true")
    env.lifecycle_config("team")
    env.notebook("box", "team", running=False, ssh="ngrok")
    sweep(env)
    assert "ssh-status" in env.tags("box")
    env.untag("box")
    refused = [True]

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "delete_tags" and refused:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DeleteTags")

    env.before_call = before
    sweep(env)
    assert "ssh-status" in env.tags("box")
    assert "expires" not in (env.table.item("notebook", "box") or {})
    env.now += 2 * 86_400
    refused.clear()
    sweep(env)
    assert "ssh-status" not in env.tags("box")
    assert "expires" in (env.table.item("notebook", "box") or {})
    assert sweep(env) == 0


def test_the_bastion_gets_one_message_for_a_sweep(env: NotebookEnv) -> None:
    env.notebook("one", ssh="bastion")
    env.notebook("two", ssh="bastion")
    sweep(env)
    env.bastion = 0
    sweep(env)
    assert env.bastion == 1


def test_the_bastion_gets_a_message_also_without_users_and_never_without_a_bastion(env: NotebookEnv) -> None:
    sweep(env)
    assert env.bastion == 1
    env.patch.setenv("BASTION_SECURITY_GROUP", "")
    sweep(env)
    assert env.bastion == 1


def test_an_endpoint_alone_is_reason_enough(env: NotebookEnv) -> None:
    env.patch.setenv("BASTION_SECURITY_GROUP", "")
    env.patch.setenv("ENDPOINT_ID", "eice-1")
    env.patch.setenv("ENDPOINT_VPC", "vpc-1")
    env.bastion = 0
    env.sweep()
    assert env.bastion == 1


def test_a_status_event_is_sent_once_per_change_and_not_once_per_sweep(env: NotebookEnv) -> None:
    told: list[tuple[str, str, str, str]] = []

    def put_events(given: dict[str, Any]) -> dict[str, Any]:
        detail = json.loads(given["Entries"][0]["Detail"])
        told.append((detail["notebook"], detail["before"], detail["status"], detail["code"] or ""))
        return {"FailedEntryCount": 0}

    def status_change() -> list[tuple[str, str, str, str]]:
        for _ in range(3):
            sweep(env)
        found, told[:] = list(told), []
        return found

    answer_each(client("events"), "PutEvents", put_events)
    env.lifecycle_config("large", b"#!/bin/bash\n" + b"#" * 12_270)
    env.notebook("box", "large", running=False, ssh="ngrok")
    env.notebook("odd", "large", running=False, ssh="ngork")
    assert sorted(status_change()) == [
        ("box", "off", "error", "config-too-large"),
        ("odd", "off", "invalid-tag", "invalid-tag"),
    ]
    env.edit("large", b"#!/bin/bash\n")
    env.tag("odd", ssh="off")
    assert sorted(status_change()) == [("box", "error", "stopped", ""), ("odd", "invalid-tag", "off", "")]
    env.tag("box", ssh_until=datetime.fromtimestamp(env.now + 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert status_change() == [("box", "stopped", "expired", "")]


def test_an_event_that_could_not_be_sent_is_sent_at_the_next_sweep(env: NotebookEnv) -> None:
    told: list[str] = []

    def put_events(given: dict[str, Any]) -> dict[str, Any]:
        told.append(json.loads(given["Entries"][0]["Detail"])["notebook"])
        if len(told) == 1:
            return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}]}
        return {"FailedEntryCount": 0}

    answer_each(client("events"), "PutEvents", put_events)
    env.notebook("box", running=False, ssh="ngork")
    for _ in range(3):
        sweep(env)
    assert told == ["box", "box"]
    assert env.record("box").notified_status == "invalid-tag: invalid-tag"


# ---- what is read of a record ------------------------------------------------------------------


class Read:
    """A part of a record that lets be read only what the sweep asks the table for."""

    def __init__(self, whole: Any, path: str = "") -> None:
        self.whole, self.path = whole, path

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.whole, name)
        path = f"{self.path}.{name}".lstrip(".")
        if callable(value) or path in SWEPT:
            return value
        if value is not None and any(swept.startswith(f"{path}.") for swept in SWEPT):
            return Read(value, path)
        if value is None and path == "report":
            return None
        raise AssertionError(f"the sweep reads {path}, and does not ask the table for it")


@pytest.mark.parametrize("report", [None, a_report(), a_report(received_at=NOW - 9000), a_report(phase=Phase.FAILED)])
@pytest.mark.parametrize(
    "spec",
    [
        NotebookSpec(),
        NotebookSpec((Mode.NGROK,)),
        NotebookSpec((Mode.BASTION,)),
        NotebookSpec((Mode.NGROK,), until=NOW - 1),
    ],
)
@pytest.mark.parametrize("state", list(NotebookState))
def test_nothing_else_of_a_record_matters(state: NotebookState, spec: NotebookSpec, report: Report | None) -> None:
    line = NotebookSummary("demo", "arn:demo", state, NOW, "team")
    seen = hash_of_lists(line, {"ssh": "ngrok"}, "ssh", dry_run=False)
    record: Any = Read(a_record(spec=spec, state=state, report=report, observed_hash=seen, notified_status="connected"))
    for tags in ({}, {"ssh": "ngrok"}):
        fleet = Fleet(
            notebooks=(line,),
            tags={"arn:demo": tags},
            records=(record,),
            config_records=(LifecycleConfigRecord("team"),),
        )
        find_drift(fleet, "ssh", "mark", NOW, dry_run=False, status_tags=True, sync_seconds=300)
    fleet_stats((record,), NOW, 300)
