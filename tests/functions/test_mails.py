"""Mails to the admin about notebooks: how many, of whose making, and with which words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from moto.events.models import EventPattern
from moto.sns.models import sns_backends
from support.aws_clients import listen
from support.builders import a_body, a_lambda_context, an_api_event
from support.notebook_env import ACCOUNT, REGION, NotebookEnv, notebook_env
from support.stack import Stack

from notebook_ssh.adapters import secrets
from notebook_ssh.adapters.clients import client
from record_address import handler as record_address

pytestmark = pytest.mark.slow  # each makes many calls

HOUR = 3600
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms"
ROLE = f"arn:aws:sts::{ACCOUNT}:assumed-role/notebook-role/SageMaker"


class Account:
    """An account whose notebooks report, with the mails that its admin gets."""

    def __init__(self, env: NotebookEnv) -> None:
        self.env = env
        self.sequence = 0
        self.by_the_bus: list[str] = []

    def notebooks(self, count: int) -> list[str]:
        self.env.lifecycle_config("team")
        names = [f"box-{number}" for number in range(count)]
        for name in names:
            self.env.notebook(name, "team", ssh="ngrok")
        self.env.settle()
        return names

    def report(self, name: str, code: str | None) -> None:
        """A notebook that reports a problem, or with None that all is well."""
        self.sequence += 1
        failed = {"phase": "failed", "problem": {"code": code, "message": "x"}, "host": None, "port": None}
        body = a_body(
            boot="boot", booted_at=self.env.now - 60, sequence=self.sequence, **(failed if code is not None else {})
        )
        event = an_api_event("POST", "/notebooks/{name}/report", name, body=json.dumps(body))
        event["requestContext"]["identity"]["userArn"] = ROLE
        answer = record_address.handle(event, a_lambda_context(aws_request_id="request"), clock=self.env.clock)
        assert answer["statusCode"] == 200, answer

    def sweep(self) -> None:
        self.env.sweep(context=a_lambda_context(aws_request_id="sweep"))
        self.env.settle(finish=False)

    def mails(self) -> list[str]:
        """What the topic was sent: by the stack itself, or by a rule of the bus."""
        topic = sns_backends[ACCOUNT][REGION].topics[TOPIC]
        return [sent[1] for sent in topic.sent_notifications] + self.by_the_bus


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with notebook_env(monkeypatch, ALARM_TOPIC=TOPIC, NGROK_SECRET="ngrok-token") as env:
        account = Account(env)
        client("sns").create_topic(Name="alarms")
        client("secretsmanager").create_secret(Name="ngrok-token")
        secrets.forget()
        rules = [
            EventPattern(None, rule["EventPattern"])
            for rule in Stack().of_type("AWS::Events::Rule").values()
            if any("AlarmTopic" in str(target["Arn"]) for target in rule["Targets"])
        ]

        def tell(params: Any, **_: Any) -> None:
            for entry in params["Entries"]:
                detail = json.loads(entry["Detail"]) | {"stack": "notebook-ssh"}
                event = {"source": entry["Source"], "detail-type": entry["DetailType"], "detail": detail}
                account.by_the_bus += [json.dumps(detail) for rule in rules if rule.matches_event(event)]  # type: ignore[arg-type]

        listen(client("events"), "provide-client-params.eventbridge.PutEvents", tell)
        yield account


def test_notebooks_that_flip_cause_ten_mails_an_hour_and_one_digest_a_day(account: Account) -> None:
    names = account.notebooks(12)
    begin = account.env.now
    for flip in range(6):  # two hours
        account.env.now = begin + flip * HOUR // 3
        for name in names:
            account.report(name, ("ngrok-failed", "ngrok-ended")[flip % 2])
        account.env.settle(finish=False)
        account.sweep()
    assert len(account.mails()) == 10 + 10 + 1


def test_a_word_of_a_notebooks_own_is_in_no_mail(account: Account) -> None:
    (name,) = account.notebooks(1)
    account.report(name, "send-money-to-evil")
    account.env.settle(finish=False)
    record = account.env.record(name)
    assert record.report
    assert record.report.problem
    assert record.report.problem.code == "agent-failed"
    (mail,) = account.mails()
    assert "evil" not in mail


def test_no_event_of_the_bus_becomes_a_mail() -> None:
    stack = Stack()
    assert not [
        name
        for name, rule in stack.of_type("AWS::Events::Rule").items()
        if any("AlarmTopic" in str(target["Arn"]) for target in rule["Targets"])
    ]
    (policy,) = stack.of_type("AWS::SNS::TopicPolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "111122223333"}}
