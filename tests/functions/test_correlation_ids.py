"""One id leads through the logs: from an event through everything that is done and queued because of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from support.api_env import api_env
from support.builders import a_lambda_context, a_record, a_report, an_api_event
from support.hostile import INJECTIONS
from support.loglines import logged_by
from support.notebook_env import ROLE, NotebookEnv, notebook_env

from lookup_api import handler as lookup_api
from notebook_ssh.adapters.clients import client
from notebook_ssh.http_api.handling import log_keys
from notebook_ssh.model.spec import Mode
from notebook_ssh.triggers.correlation import FIELD
from reconcile_notebook import handler as notebook
from reconcile_rules import handler as bastion
from record_address import handler as record_address
from start_notebook import handler as start_notebook
from sweep import handler as sweep
from uninstall import handler as uninstall

EVENT = "00000000-0000-4000-8000-000000000001"
REQUEST = "8e2cf1c6-0000-4000-8000-000000000001"
"""The id of the request in builders.an_api_event."""
RUN = a_lambda_context(aws_request_id="run-1")


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch, BASTION_HOST="bastion.example.com") as env:
        yield env


def in_a_vpc_with_a_bastion(env: NotebookEnv, name: str, **tags: str) -> None:
    """The notebook `name` in a VPC, and the stack told of a bastion there."""
    ec2 = client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    groups = [
        ec2.create_security_group(GroupName=each, Description=each, VpcId=vpc)["GroupId"]
        for each in ("bastion", "notebooks")
    ]
    env.patch.setenv("BASTION_VPC", vpc)
    env.patch.setenv("BASTION_SECURITY_GROUP", groups[0])
    client("sagemaker").create_notebook_instance(
        NotebookInstanceName=name,
        InstanceType="ml.t3.medium",
        RoleArn=ROLE,
        SubnetId=subnet,
        SecurityGroupIds=groups[1:],
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )
    env.finish()


class Bastion:
    """The bastion's queue, and its function."""

    def __init__(self, env: NotebookEnv) -> None:
        self.env = env
        self.messages: list[str] = []
        env.patch.setattr(env, "request_rule_sync", self.tell)

    def tell(self, queue: str, reason: str, correlation_id: str) -> None:
        self.messages.append(json.dumps({"request": "bastion", FIELD: correlation_id}))

    def deliver(self) -> None:
        sent = {"attributes": {"SentTimestamp": str(self.env.now * 1000)}, "messageId": "message-9"}
        batch, self.messages = self.messages, []
        records = [{**sent, "body": body} for body in batch]
        bastion.handle({"Records": records}, RUN, clock=lambda: self.env.now + 0.5)


def test_a_tag_is_traced_through_both_reconcilers_to_its_status_event(
    env: NotebookEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = Bastion(env)
    in_a_vpc_with_a_bastion(env, "box")
    env.settle()
    env.deaf = True  # what SageMaker tells of our own writes are other events
    env.tag("box")
    event = {"detail-type": "Tag Change on Resource", "resources": [env.arn("box")], "detail": {}, "id": EVENT}
    env.tag("box", ssh="bastion")
    env.send("", [(event, 0)])

    with logged_by(monkeypatch, notebook.logger, bastion.logger) as lines:
        env.deliver()
        report = a_report(modes=(Mode.BASTION,), received_at=env.now, host=None, port=None)
        assert env.table.replace_report("box", env.record("box").role, report, None).written
        env.finish()
        routes.deliver()
        env.settle()

    told = [
        (line["message"], line.get("trigger")) for line in lines if line["message"] in ("reconciled", "authorize rule")
    ]
    assert told == [
        ("reconciled", "tags changed"),
        ("authorize rule", None),
        ("reconciled", None),
        ("reconciled", "status"),
    ]
    assert {line["correlation_id"] for line in lines} == {EVENT}
    assert {line["function_request_id"] for line in lines} == {"request", "run-1"}


def test_a_deferred_reconcile_continues_under_the_same_id(env: NotebookEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.notebook("box")
    env.settle()
    env.send("", [({"request": {"notebook": "box"}, FIELD: EVENT}, 0)])
    env.remaining = 0
    env.deliver()
    env.remaining = 100_000
    ((_, _, body),) = env.messages
    assert json.loads(body)[FIELD] == EVENT
    with logged_by(monkeypatch, notebook.logger) as lines:
        env.now += 60
        env.deliver()
    assert [(line["message"], line[FIELD]) for line in lines] == [("reconciled", EVENT)]


def test_a_message_without_news_is_found_by_its_id_too(env: NotebookEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.notebook("box")
    env.settle()
    sent = env.now - 1000
    env.messages = [(env.now, sent, json.dumps({"request": {"notebook": "box"}, FIELD: EVENT}))]
    with logged_by(monkeypatch, notebook.logger) as lines:
        env.deliver()
    assert [(line["message"], line["resource"], line[FIELD]) for line in lines] == [("already covered", "box", EVENT)]


def test_no_log_key_of_one_reconcile_is_left_for_the_next(env: NotebookEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.notebook("box", ssh="ngrok")
    with logged_by(monkeypatch, notebook.logger) as lines:
        env.deliver()
        notebook.logger.info("the next run")
    assert {"resource", "trigger", FIELD} & lines[0].keys() == {"resource", "trigger", FIELD}
    assert not {"resource", "trigger", FIELD} & lines[-1].keys()


def test_what_a_sweep_queues_goes_by_the_sweep(env: NotebookEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = Bastion(env)
    monkeypatch.setenv("BASTION_SECURITY_GROUP", "sg-0123456789abcdef0")
    monkeypatch.setenv("BASTION_VPC", "vpc-0123456789abcdef0")
    env.notebook("box", ssh="ngrok")
    for event, expected in (({"id": EVENT}, EVENT), ({}, "run-1")):
        env.messages.clear()
        with logged_by(monkeypatch, sweep.logger) as lines:
            env.sweep(event, RUN)
        logged = [line for line in lines if "_aws" not in line]
        assert {(line[FIELD], line["function_request_id"]) for line in logged} == {(expected, "run-1")}
        assert {json.loads(body)[FIELD] for _, _, body in env.messages} == {expected}
        assert json.loads(routes.messages.pop())[FIELD] == expected


def test_a_report_that_changes_the_status_is_traced_to_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    with api_env(monkeypatch) as api, logged_by(monkeypatch, record_address.logger) as lines:
        api.knows(a_record())
        assert api.report().status == 200
        (message,) = api.messages()
    assert message[FIELD] == REQUEST
    assert {(line["notebook"], line[FIELD], line["function_request_id"]) for line in lines} == {
        ("demo", REQUEST, "request-1")
    }


@pytest.mark.parametrize("function", [lookup_api, start_notebook, record_address])
def test_an_answer_that_failed_is_found_by_the_request_and_the_notebook(
    function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = {
        lookup_api: ("GET", "/notebooks/{name}/ssh"),
        start_notebook: ("POST", "/notebooks/{name}/start"),
        record_address: ("POST", "/notebooks/{name}/report"),
    }[function]
    # The lookup makes its logger when something fails; one that is there already can be read.
    made_before = {"log": lambda: record_address.logger} if function is lookup_api else {}
    with api_env(monkeypatch), logged_by(monkeypatch, record_address.logger) as lines:
        monkeypatch.delenv("TABLE_NAME")
        answer = function.handle(an_api_event(*route), RUN, **made_before)
    assert (answer["statusCode"], REQUEST in answer["body"]) == (500, True)
    (line,) = lines
    assert (line["notebook"], line[FIELD], line["function_request_id"]) == ("demo", REQUEST, "run-1")
    assert line["level"] == "ERROR"


@pytest.mark.parametrize("text", [*INJECTIONS, "a b"])
def test_a_caller_writes_nothing_into_the_log(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request's id is one that the caller may choose, and the name stands in the path."""
    event = an_api_event("GET", "/notebooks/{name}/ssh")
    event["requestContext"]["requestId"] = event["pathParameters"]["name"] = text
    assert log_keys(event, RUN) == {FIELD: "run-1", "function_request_id": "run-1"}


def test_what_the_end_of_the_stack_does_goes_by_the_request_of_cloudformation(
    env: NotebookEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: nullcontext())
    context = a_lambda_context(aws_request_id="run-1", get_remaining_time_in_millis=lambda: 0)
    with logged_by(monkeypatch, uninstall.logger) as lines:
        uninstall.handle(
            {
                "RequestType": "Create",
                "RequestId": EVENT,
                "ResponseURL": "https://cloudformation.example/answer",
                "StackId": "stack-id",
                "LogicalResourceId": "Cleanup",
            },
            context,
        )
    assert {(line[FIELD], line["function_request_id"]) for line in lines} == {(EVENT, "run-1")}
