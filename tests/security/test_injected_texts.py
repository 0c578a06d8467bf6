"""What strangers' texts become in mail, events and logs, which people read without having asked, and in the table.

Untrusted are the root user of a notebook (its reports), all who may tag one, and all who may put events on the bus.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from support.api_env import ApiEnv, api_env
from support.builders import HOST_KEY, NOW, RSA_KEY, a_body, a_record
from support.hostile import INJECTIONS, OPERATIVE
from support.notebook_env import notebook_env

from notebook_ssh.adapters import backups
from notebook_ssh.adapters.attributes import key
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.notifications import publish_status_change
from notebook_ssh.adapters.table import NOTEBOOK
from notebook_ssh.errors import Problem
from notebook_ssh.model.managed_block import LIMIT
from notebook_ssh.model.record import Network, Record, Route
from notebook_ssh.model.spec import Mode, parse_spec
from notebook_ssh.model.status import status_of
from notebook_ssh.planning.mails import plan_mail
from notebook_ssh.planning.observation import LifecycleConfig
from notebook_ssh.reports.parse import MAX_BODY_BYTES
from reconcile_notebook import handler as notebook_function

TEXTS = (*INJECTIONS, "https://evil.example/login", "www.evil.example", "a\x9b2Jb", "\\", "😀" * 500)
LARGEST_DETAIL = 8_192
"""Bytes of an event's detail: a small part of the 256 KB that an event may have (PutEvents)."""
LARGEST_ITEM = 400 * 1024
"""Bytes of an item, names of attributes included (DynamoDB Developer Guide, "Service, account, and table quotas")."""


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        yield env


def the_news(env: ApiEnv, record: Record) -> dict[str, Any]:
    """The event that tells of the record's status, as the bus delivers it."""
    publish_status_change("team-ssh", record.name, record.arn, "off", status_of(record, env.now, 300))
    (event,) = env.messages(env.events)
    return dict(event)


def reported(env: ApiEnv, text: str, sequence: int) -> Record:
    """The record after a report with `text` wherever a notebook may write one."""
    env.knows(a_record())
    body = {"sequence": sequence, "problem": {"code": "ngrok-x", "message": text}, "phase": "failed", "agent": text}
    assert env.report(body).status == 200
    record = env.table.record("demo")
    assert record is not None
    env.messages()
    return record


def strangers_records(env: ApiEnv) -> Iterator[Record]:
    """A record with each text, from a notebook's report and from the value of each tag that is read."""
    for number, text in enumerate(TEXTS):
        yield reported(env, text, number + 1)
        for tag in ("ssh", "ssh-users", "ssh-until", "ssh-ngrok-url"):
            yield a_record(spec=parse_spec({"ssh": "ngrok", tag: text}, "ssh"))


def the_told(env: ApiEnv) -> Iterator[dict[str, Any]]:
    """The news of each text."""
    for record in strangers_records(env):
        yield the_news(env, record)


def test_a_mail_holds_nothing_that_a_stranger_wrote(env: ApiEnv) -> None:
    """A name, and a code of the documented ones: no line, no link. And no subject."""
    sentence = r"notebook-ssh \(team-ssh\): demo needs attention: ([a-z0-9-]+)\. See: notebook-ssh doctor demo"
    plans = [
        plan_mail(record, status_of(record, env.now, 300), "team-ssh", env.now, changed=True)
        for record in strangers_records(env)
    ]
    mails = [plan.text for plan in plans if plan and plan.text]
    assert len(mails) > 3 * len(TEXTS)
    codes = {found[1] if (found := re.fullmatch(sentence, text)) else text for text in mails}
    assert codes <= {"agent-failed", "invalid-tag"}


def test_an_event_is_one_line_that_nothing_obeys_and_is_small(env: ApiEnv) -> None:
    for event in the_told(env):
        detail = event["detail"]
        assert not OPERATIVE.search(detail["message"])
        assert "\n" not in detail["message"]
        assert len(json.dumps(detail).encode()) <= LARGEST_DETAIL
        assert detail.keys() == {"stack", "notebook", "before", "status", "since", "code", "message"}
        assert (detail["stack"], detail["notebook"]) == ("team-ssh", "demo")


class Printed(logging.Handler):
    """The lines that the function prints."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(notebook_function.logger.registered_formatter.format(record))


def test_a_log_line_is_one_line_of_json_that_no_terminal_obeys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forged message's reason, and a forged event's words."""
    printed = Printed()
    notebook_function.logger.addHandler(printed)
    try:
        with notebook_env(monkeypatch) as env:
            env.lifecycle_config("team")
            env.notebook("demo", "team")
            for number, text in enumerate(TEXTS):
                state = {"NotebookInstanceName": "demo", "NotebookInstanceStatus": text}
                event = {"detail-type": "SageMaker Notebook Instance State Change", "detail": state}
                message = {"request": {"notebook": "demo"}, "reason": text}
                env.tag("demo", ssh="off" if number % 2 else "ngrok")
                env.messages.clear()
                env.send("", [(event if number % 2 else message, 0)])
                env.settle()
    finally:
        cast("Any", notebook_function.logger).removeHandler(printed)  # Powertools hands it on
    said = [str(json.loads(line).get("trigger")) for line in printed.lines]
    assert {re.sub(r"[^ -~]", "?", text[:20]) for text in TEXTS} <= {
        reason.removeprefix("state ")[:20] for reason in said
    }
    assert not [line for line in printed.lines if re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line)]


# ---- how large an item can get


def size(value: Any) -> int:
    """Bytes of a value in DynamoDB's notation, rounded up ("DynamoDB item sizes and formats")."""
    ((kind, held),) = value.items()
    match kind:
        case "S":
            return len(held.encode())
        case "N":
            return 21
        case "L":
            return 3 + sum(1 + size(each) for each in held)
        case "M":
            return 3 + sum(1 + len(name.encode()) + size(each) for name, each in held.items())
    return 1


def size_of_item(pk: str, sk: str) -> int:
    item = client("dynamodb").get_item(TableName="records", Key=key(pk, sk))["Item"]
    return sum(len(name.encode()) + size(value) for name, value in item.items())


def test_the_largest_record_is_a_tenth_of_what_an_item_may_be(env: ApiEnv) -> None:
    """Everything that a notebook, its tags and its network can say, as long as it is accepted."""
    wide = "😀" * 500
    problem = Problem("x" * 40, wide)
    users = " ".join(f"{number:x}" for number in range(256))[:256]
    record = a_record(
        name="n" * 63,
        spec=parse_spec({"ssh": "ngrok", "ssh-users": users, "ssh-ngrok-url": f"tcp://{'a.' * 120}io:65535"}, "ssh"),
        problem=problem,
        planned=("p" * 300,) * 12,
        network=Network("subnet-" + "0" * 17, tuple(f"sg-{number:017}" for number in range(5)), "eni-" + "0" * 17),
        routes={Mode.BASTION: Route(False, "10.0.0.1", NOW, problem)},
    )
    assert record.spec.modes == (Mode.NGROK,)
    env.knows(record)
    body = a_body(
        host=".".join(["h" * 60] * 4),
        host_keys=[HOST_KEY, RSA_KEY],
        keys={"own": 1, "central": 0, "rejected": [{"line": line, "reason": "😀" * 120} for line in range(1, 21)]},
        problem={"code": "agent-failed", "message": wide},
        agent="😀" * 32,
        boot="b" * 64,
    )
    text = json.dumps(body, ensure_ascii=False)
    assert 0.7 * MAX_BODY_BYTES < len(text.encode()) < MAX_BODY_BYTES
    said = env.report(text, name=record.name)
    assert said.status == 200, said
    assert MAX_BODY_BYTES < size_of_item(NOTEBOOK, record.name) < LARGEST_ITEM / 10


def test_each_copy_of_a_script_is_an_item_of_its_own(env: ApiEnv) -> None:
    for number in range(30):
        script = bytes([number]) * LIMIT
        backups.backup_script(env.table, LifecycleConfig("c" * 63, "arn", 0, None, script), "reason", NOW + number)
    partition = f"backup#{'c' * 63}"
    copies = client("dynamodb").query(
        TableName="records", KeyConditionExpression="pk = :pk", ExpressionAttributeValues={":pk": {"S": partition}}
    )["Items"]
    assert len(copies) == 30
    assert max(size_of_item(partition, each["sk"]["S"]) for each in copies) < LARGEST_ITEM / 20
