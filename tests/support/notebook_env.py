"""A small account for scenarios: notebooks that take their time, the events they cause, and the real handlers.

Nothing happens by itself: the clock stands until a scenario moves it, and messages wait until `settle`.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from types import MappingProxyType
from typing import Any, cast

import boto3
import pytest
from moto import mock_aws
from support.aws_clients import answer_each, before_each_call, forget_clients, forget_listeners
from support.builders import a_lambda_context
from support.faster_moto import make_moto_faster

from emulator import sagemaker
from notebook_ssh.adapters import sagemaker as adapter
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.table import Table
from notebook_ssh.controllers import requests
from notebook_ssh.model.managed_block import Block, fingerprint
from notebook_ssh.model.record import Record
from notebook_ssh.planning.observation import BlockPolicy
from notebook_ssh.triggers.correlation import FIELD
from reconcile_notebook import handler
from sweep import handler as sweep_function

make_moto_faster()

ACCOUNT, REGION, STACK = "123456789012", "us-east-1", "team-ssh"
FUNCTION = "team-ssh-ReconcileNotebook"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/service/notebook-role"
FALLBACK = "better-sagemaker"
OWNERS = b"#!/bin/bash\nset -e\necho the owner was here\nexit 0\n"


@cache
def user_client(service: str) -> Any:
    """A client of a user's own: what it does is not counted, and no test makes it fail."""
    make = cast("Any", boto3.client)  # typed by the services' names
    return make(service, region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing")


def a_block(version: str = "1.0.0", stack: str = STACK) -> Block:
    body = f": the block of {version}\n".encode()
    return Block(stack=stack, version=version, id=fingerprint(body), body=body)


@dataclass
class NotebookEnv:
    """now: epoch seconds. messages: what waits in the notebook queue, as (time from which on, body).

    calls: SageMaker requests so far, by operation. bastion: how often the rules reconciler was told.
    remaining: milliseconds that each invocation has.
    """

    patch: pytest.MonkeyPatch
    now: int = field(default_factory=lambda: int(datetime.now(UTC).timestamp()) + 60)
    fraction: float = 0.0
    moments: int = 0
    block: Block = field(default_factory=a_block)
    messages: list[tuple[int, int, str]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    bastion: int = 0
    remaining: int = 100_000
    deaf: bool = False
    upgrade_after: int = 86_400
    table: Table = field(default_factory=lambda: Table("records"))
    before_call: Callable[[str, dict[str, Any]], None] = lambda operation, given: None

    def clock(self) -> float:
        """Epoch seconds, for the functions."""
        return self.now + self.fraction

    def sleep(self, seconds: float) -> None:
        """As the functions sleep: the clock moves on."""
        whole, self.fraction = divmod(self.fraction + seconds, 1)
        self.now += int(whole)

    # ---- what people do

    def notebook(self, name: str, lifecycle_config: str | None = None, *, running: bool = True, **tags: str) -> str:
        configured: dict[str, Any] = {"LifecycleConfigName": lifecycle_config} if lifecycle_config else {}
        answer = user_client("sagemaker").create_notebook_instance(
            NotebookInstanceName=name,
            InstanceType="ml.t3.medium",
            RoleArn=ROLE,
            **configured,
            Tags=[{"Key": key.replace("_", "-"), "Value": value} for key, value in tags.items()],
        )
        self.finish()
        if not running:
            self.stop(name)
            self.finish()
        return str(answer["NotebookInstanceArn"])

    def lifecycle_config(self, name: str, on_start: bytes | None = OWNERS, on_create: bytes | None = None) -> None:
        hooks: dict[str, Any] = {
            key: [{"Content": base64.b64encode(script).decode()}]
            for key, script in (("OnStart", on_start), ("OnCreate", on_create))
            if script is not None
        }
        user_client("sagemaker").create_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName=name, **hooks
        )

    def edit(self, lifecycle_config: str, on_start: bytes) -> None:
        on_create = self.scripts(lifecycle_config)[0]
        hooks: dict[str, Any] = (
            {"OnCreate": [{"Content": base64.b64encode(on_create).decode()}]} if on_create is not None else {}
        )
        user_client("sagemaker").update_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName=lifecycle_config,
            OnStart=[{"Content": base64.b64encode(on_start).decode()}],
            **hooks,
        )

    def tag(self, name: str, **tags: str) -> None:
        user_client("sagemaker").add_tags(
            ResourceArn=self.arn(name),
            Tags=[{"Key": key.replace("_", "-"), "Value": value} for key, value in tags.items()],
        )

    def untag(self, name: str, *keys: str) -> None:
        user_client("sagemaker").delete_tags(ResourceArn=self.arn(name), TagKeys=list(keys or ("ssh",)))

    def stop(self, name: str) -> None:
        user_client("sagemaker").stop_notebook_instance(NotebookInstanceName=name)

    def start(self, name: str) -> None:
        user_client("sagemaker").start_notebook_instance(NotebookInstanceName=name)

    def attach(self, name: str, lifecycle_config: str) -> None:
        user_client("sagemaker").update_notebook_instance(
            NotebookInstanceName=name, LifecycleConfigName=lifecycle_config
        )

    # ---- what time does

    def moment(self) -> datetime:
        """Now, as the service notes it: a millisecond later each time, for no two changes are made in the same one."""
        self.moments += 1
        now = datetime.fromtimestamp(self.now, UTC) + timedelta(milliseconds=self.moments % 999 + 1)
        return now.replace(tzinfo=None)

    def finish(self, seconds: int = 30) -> None:
        """Every status moves on."""
        self.now += seconds
        sagemaker.finish_transitions(ACCOUNT, REGION)

    def settle(self, rounds: int = 20, *, finish: bool = True) -> None:
        """Deliver messages and move statuses on until nothing is left to happen."""
        for _ in range(rounds):
            self.deliver()
            if finish:
                self.finish()
            if not self.due():
                return
        raise AssertionError(f"it does not settle: {self.messages}")

    def due(self) -> list[tuple[int, int, str]]:
        return [message for message in self.messages if message[0] <= self.now]

    def deliver(self, *, receives: int = 1) -> dict[str, Any]:
        """One batch of what is due; what fails goes back."""
        batch = self.due()[:100]
        self.messages = [message for message in self.messages if message not in batch]
        self.now += 1
        records = [
            {
                "messageId": str(number),
                "body": body,
                "attributes": {"SentTimestamp": str(sent * 1000), "ApproximateReceiveCount": str(receives)},
            }
            for number, (_, sent, body) in enumerate(batch)
        ]
        answer: dict[str, Any] = handler.handle(
            {"Records": records},
            self.context(),
            clock=self.clock,
            sleep=self.sleep,
            policy=lambda settings: self.policy(),
        )
        for failure in answer["batchItemFailures"]:
            self.messages.append(batch[int(failure["itemIdentifier"])])
        return answer

    def sweep(self, event: Mapping[str, Any] = MappingProxyType({}), context: Any = None) -> dict[str, int]:
        """One run of the sweep; what it queues waits."""
        found: dict[str, int] = sweep_function.handle(
            event, context or a_lambda_context(), clock=self.clock, policy=lambda settings: self.policy()
        )
        return found

    def context(self) -> Any:
        deadline = self.now * 1000 + self.remaining
        return a_lambda_context(function_name=FUNCTION, get_remaining_time_in_millis=lambda: deadline - self.now * 1000)

    def look(self, name: str) -> None:
        self.send("", [({"request": {"notebook": name}, "reason": "the scenario"}, 0)])

    # ---- what is to be seen

    def arn(self, name: str) -> str:
        return str(
            user_client("sagemaker").describe_notebook_instance(NotebookInstanceName=name)["NotebookInstanceArn"]
        )

    def describe(self, name: str) -> dict[str, Any]:
        return dict(user_client("sagemaker").describe_notebook_instance(NotebookInstanceName=name))

    def status(self, name: str) -> str:
        return str(self.describe(name)["NotebookInstanceStatus"])

    def attached_config(self, name: str) -> str | None:
        return self.describe(name).get("NotebookInstanceLifecycleConfigName")

    def tags(self, name: str) -> dict[str, str]:
        tags = user_client("sagemaker").list_tags(ResourceArn=self.arn(name))["Tags"]
        return {tag["Key"]: tag["Value"] for tag in tags}

    def scripts(self, lifecycle_config: str) -> tuple[bytes | None, bytes | None]:
        found = adapter.describe_lifecycle_config(lifecycle_config)
        return found.on_create, found.on_start

    def on_start(self, lifecycle_config: str) -> bytes | None:
        return self.scripts(lifecycle_config)[1]

    def has_block(self, lifecycle_config: str) -> bool:
        return b"notebook-ssh stack=" in (self.on_start(lifecycle_config) or b"")

    def lifecycle_configs(self) -> set[str]:
        return {line.name for line in adapter.list_lifecycle_configs()}

    def record(self, name: str) -> Record:
        record = self.table.record(name)
        assert record is not None
        return record

    def tagged(self, key: str) -> Iterator[tuple[str, dict[str, str]]]:
        """As the tagging API answers."""
        for page in user_client("sagemaker").get_paginator("list_notebook_instances").paginate():
            for line in page["NotebookInstances"]:
                tags = self.tags(line["NotebookInstanceName"])
                if key in tags:
                    yield line["NotebookInstanceArn"], tags

    def policy(self) -> BlockPolicy:
        return BlockPolicy("ssh", FALLBACK, self.block, self.upgrade_after)

    # ---- how it is held together

    def send(self, queue: str, messages: Any) -> int:
        count = 0
        for message, delay in messages:
            self.messages.append((self.now + delay, self.now, json.dumps(message)))
            count += 1
        return count

    def hear(self, happening: Any) -> None:
        if not self.deaf:
            self.messages.append((self.now, self.now, json.dumps(_event(happening), default=str)))

    def request_rule_sync(self, queue: str, reason: str, correlation_id: str) -> None:
        self.bastion += 1

    def bind(self) -> None:
        """Answer for the services that moto does not have in this account's time, and note what SageMaker is asked."""
        before_each_call(client("sagemaker"), self._asked)
        answer_each(client("sqs"), "SendMessageBatch", self._sent)
        answer_each(client("sqs"), "SendMessage", self._resync_requested)
        answer_each(client("resourcegroupstaggingapi"), "GetResources", self._tagged)

    def _asked(self, operation: str, given: dict[str, Any]) -> None:
        self.calls[operation] += 1
        self.before_call(operation, given)

    def _sent(self, given: dict[str, Any]) -> dict[str, Any]:
        entries = given["Entries"]
        self.send(given["QueueUrl"], [(json.loads(each["MessageBody"]), each["DelaySeconds"]) for each in entries])
        return {}

    def _resync_requested(self, given: dict[str, Any]) -> dict[str, Any]:
        message = json.loads(given["MessageBody"])
        self.request_rule_sync(given["QueueUrl"], message["reason"], message[FIELD])
        return {}

    def _tagged(self, given: dict[str, Any]) -> dict[str, Any]:
        """All on one page."""
        (wanted,) = given["TagFilters"]
        found = [
            {"ResourceARN": arn, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            for arn, tags in self.tagged(wanted["Key"])
        ]
        return {"ResourceTagMappingList": found, "PaginationToken": ""}


_envs: list[NotebookEnv] = []
_heard: list[bool] = []


def _hear(happening: Any) -> None:
    if _envs:
        _envs[-1].hear(happening)


def _event(happening: Any) -> dict[str, Any]:
    match happening:
        case sagemaker.StatusChanged(notebook=notebook):
            return {
                "detail-type": "SageMaker Notebook Instance State Change",
                "resources": [notebook["NotebookInstanceArn"]],
                "detail": dict(notebook),
            }
        case sagemaker.TagsChanged(arn=arn, changed=changed, tags=tags):
            return {
                "detail-type": "Tag Change on Resource",
                "resources": [arn],
                "detail": {"changed-tag-keys": list(changed), "tags": dict(tags), "version": 3.0},
            }
        case sagemaker.ConfigurationChanged(name=name, arn=arn, modified=modified):
            return {
                "detail-type": "SageMaker Notebook Lifecycle Config State Change",
                "resources": [arn],
                "detail": {
                    "NotebookInstanceLifecycleConfigName": name,
                    "LastModifiedTime": round(modified.replace(tzinfo=UTC).timestamp() * 1000),
                },
            }
    raise AssertionError(happening)


@contextmanager
def notebook_env(patch: pytest.MonkeyPatch, **environment: str) -> Iterator[NotebookEnv]:
    """An empty account with the stack's table, and the handlers bound to it."""
    settings = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "STACK_NAME": STACK,
        "TABLE_NAME": "records",
        "NOTEBOOK_QUEUE": "notebooks",
        "RULE_QUEUE": "bastion.fifo",
        "STATUS_TAGS": "false",
        "POWERTOOLS_SERVICE_NAME": STACK,
    }
    for key, value in (settings | environment).items():
        patch.setenv(key, value)
    patch.delenv("AWS_ENDPOINT_URL", raising=False)
    sagemaker.extend_moto()
    if not _heard:
        sagemaker.subscribe(_hear)
        _heard.append(True)
        forget_clients()
    with mock_aws():
        client("dynamodb").create_table(
            TableName="records",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        )
        env = NotebookEnv(patch)
        _envs.append(env)
        patch.setattr(sagemaker, "utcnow", env.moment)
        requests.forget()
        env.bind()
        try:
            yield env
        finally:
            _envs.remove(env)
            forget_listeners()
