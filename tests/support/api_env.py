"""The API as its callers meet it: the real handlers behind API Gateway's events, on moto."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from moto import mock_aws
from support.builders import NOW, a_body, a_lambda_context, an_api_event
from support.faster_moto import make_moto_faster

from lookup_api import handler as lookup_api
from notebook_ssh.adapters import secrets
from notebook_ssh.adapters.attributes import key, to_attribute
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.codec import encode_report
from notebook_ssh.adapters.table import NOTEBOOK, Table
from notebook_ssh.controllers import lookup
from notebook_ssh.model.record import Record, Report
from record_address import handler as record_address
from start_notebook import handler as start_notebook

make_moto_faster()

REPORT, START = "/notebooks/{name}/report", "/notebooks/{name}/start"
SERVICES = ("dynamodb", "secretsmanager", "ssm", "sqs", "events", "sagemaker")
CONTEXT = a_lambda_context(aws_request_id="request-1")


@dataclass
class Said:
    """An answer: as it came, and as text or JSON."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class ApiEnv:
    """now: epoch seconds, by everyone's clock. calls: requests to AWS so far, by operation."""

    patch: pytest.MonkeyPatch
    queue: str
    events: str
    now: int = NOW
    calls: Counter[str] = field(default_factory=Counter)
    table: Table = field(default_factory=lambda: Table("records"))

    # ---- what there is

    def knows(self, record: Record) -> Record:
        """Put `record` into the table, each part as its writer does."""
        self.table.save_observed(record, self.table.record(record.name))
        for mode, route in record.routes.items():
            self.table.save_route(record.name, mode, route)
        if record.report:
            client("dynamodb").update_item(
                TableName="records",
                Key=key(NOTEBOOK, record.name.lower()),
                UpdateExpression="SET #report = :report",
                ExpressionAttributeNames={"#report": "report"},
                ExpressionAttributeValues={":report": to_attribute(encode_report(record.report))},
            )
        return record

    def token(self, text: str) -> str:
        """Put `text` into the stack's secret. Answers its version."""
        return client("secretsmanager").put_secret_value(SecretId="ngrok-token", SecretString=text)["VersionId"]

    def central_key(self, user: str, text: str) -> None:
        client("ssm").put_parameter(Name=f"/keys/{user}", Value=text, Type="String", Overwrite=True)

    def report_of(self, name: str) -> Report | None:
        record = self.table.record(name)
        return record.report if record else None

    def messages(self, queue: str | None = None) -> list[dict[str, Any]]:
        answer = client("sqs").receive_message(QueueUrl=queue or self.queue, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            client("sqs").delete_message(QueueUrl=queue or self.queue, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in answer.get("Messages", [])]

    # ---- what callers do

    def clock(self) -> float:
        return self.now

    def get(self, resource: str, name: str = "demo", **parts: Any) -> Said:
        return self._said(lookup_api.handle(an_api_event("GET", resource, name, **parts), CONTEXT, clock=self.clock))

    def report(self, body: Any = None, name: str = "demo", **parts: Any) -> Said:
        """Send `body`, or the usual report with what it says otherwise."""
        text = body if isinstance(body, str) else json.dumps(a_body(**(body or {})))
        return self._said(
            record_address.handle(
                an_api_event("POST", REPORT, name, **{"body": text, **parts}), CONTEXT, clock=self.clock
            )
        )

    def start(self, name: str = "demo") -> Said:
        return self._said(start_notebook.handle(an_api_event("POST", START, name), CONTEXT, clock=self.clock))

    def since(self) -> Counter[str]:
        """The requests to AWS since the last time this was asked."""
        calls = Counter(self.calls)
        self.calls.clear()
        return calls

    @staticmethod
    def _said(answer: dict[str, Any]) -> Said:
        return Said(answer["statusCode"], answer["headers"], answer["body"])


@contextmanager
def api_env(patch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "STACK_NAME": "team-ssh",
        "TABLE_NAME": "records",
        "SYNC_SECONDS": "300",
        "NGROK_SECRET": "ngrok-token",
        "KEYS_PATH": "/keys",
        "BASTION_HOST": "bastion.example.com",
        "BASTION_USER": "jumper",
        "BASTION_SECURITY_GROUP": "sg-0123456789abcdef0",
        "BASTION_VPC": "vpc-0123456789abcdef0",
        "POWERTOOLS_SERVICE_NAME": "team-ssh",
    }.items():
        patch.setenv(name, value)
    secrets.forget()
    lookup.forget()
    with mock_aws():
        client("dynamodb").create_table(
            TableName="records",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        )
        client("secretsmanager").create_secret(Name="ngrok-token")
        queues = [client("sqs").create_queue(QueueName=name) for name in ("notebooks", "events")]
        queue, events = (each["QueueUrl"] for each in queues)
        patch.setenv("NOTEBOOK_QUEUE", queue)
        client("events").put_rule(Name="news", EventPattern=json.dumps({"source": ["notebook-ssh"]}))
        client("events").put_targets(
            Rule="news", Targets=[{"Id": "1", "Arn": "arn:aws:sqs:us-east-1:123456789012:events"}]
        )
        env = ApiEnv(patch, queue, events)

        def count(model: Any, **_: Any) -> None:
            env.calls.update([model.name])

        # Clients are costly to make and stay for the next test; what counts their calls does not.
        for service in SERVICES:
            client(service).meta.events.register("before-call", count)  # type: ignore[call-overload]
        yield env
        for service in SERVICES:
            client(service).meta.events.unregister("before-call", count)  # type: ignore[call-overload]
    secrets.forget()
