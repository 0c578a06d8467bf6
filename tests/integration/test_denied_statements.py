"""Statements of the functions' policies are taken away from the deployed stack, one at a time, and given back.

A guardrail does this in real accounts. It must show, as a dead letter, a status or an answer; it must harm no
owner's script; and once it is given back, what was asked for must come true. `make iam-check` tries all statements.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.stack import WITH_EVERYTHING, Stack

import processes
from environment import OWNERS_SCRIPT, STACK, Answer, LocalEnv
from notebook_ssh.model.managed_block import remove_block

FALLBACK = "better-sagemaker"
DEAD_LETTERS = ("NotebookDeadLetterQueue", "RuleDeadLetterQueue")


@dataclass
class Scenario:
    """What people do with the notebook `name`."""

    env: LocalEnv
    name: str

    def prepare(self) -> None:
        """Before the statement is taken away."""
        self.env.create_lifecycle_config(self.name, OWNERS_SCRIPT)
        self.create(self.name)

    def create(self, configuration: str | None) -> None:
        self.env.create_notebook(self.name, configuration)
        wait("it runs", lambda: self.env.state(self.name) == "InService")
        self.env.leave_key(self.name)

    def play(self) -> None:
        """Request a mode."""
        self.request("ngrok")

    def request(self, mode: str) -> None:
        self.env.tag(self.name, ssh=mode, ssh_restart="now", ssh_users="nobody")

    def again(self) -> None:
        """What people do once more when the statement is back."""

    def ask(self) -> Answer:
        """What the API answers to them."""
        return self.env.curl(f"/notebooks/{self.name}")

    def is_done(self) -> bool:
        return self.env.status(self.name) == "connected"

    def leave(self) -> None:
        """The user has enough."""
        self.env.untag(self.name, "ssh")
        wait("the script is back", lambda: self.env.on_start(self.name) == OWNERS_SCRIPT)

    def stop(self) -> None:
        """Stop the notebook, whose agent would take part of the machine from the scenarios that follow."""
        self.env.untag(self.name, "ssh")
        if self.env.state(self.name) == "InService":
            self.env.sagemaker.stop_notebook_instance(NotebookInstanceName=self.name)
            wait("it is stopped", lambda: self.env.state(self.name) == "Stopped")


class WithoutConfiguration(Scenario):
    def prepare(self) -> None:
        self.create(None)

    def leave(self) -> None:
        self.env.untag(self.name, "ssh")
        wait("it runs", lambda: self.env.state(self.name) == "InService")
        self.env.sagemaker.stop_notebook_instance(NotebookInstanceName=self.name)
        wait("our configuration is gone", lambda: FALLBACK not in configurations(self.env))


class ThroughTheBastion(Scenario):
    def play(self) -> None:
        self.request("bastion")

    def is_done(self) -> bool:
        return super().is_done() and bool(self.env.ingress_rules())

    def leave(self) -> None:
        super().leave()
        wait("the rule is gone", lambda: not self.env.ingress_rules())


class Leaving(Scenario):
    def prepare(self) -> None:
        super().prepare()
        super().play()
        wait("it is connected", super().is_done)

    def play(self) -> None:
        self.env.untag(self.name, "ssh")

    def is_done(self) -> bool:
        return self.env.on_start(self.name) == OWNERS_SCRIPT


class Waking(Leaving):
    def prepare(self) -> None:
        super().prepare()
        self.env.tag(self.name, ssh_wake="yes")
        self.env.sagemaker.stop_notebook_instance(NotebookInstanceName=self.name)
        wait(
            "it has stopped", lambda: self.env.is_in(self.name, "Stopped")
        )  # `stopped` is said of one that is stopping
        wait("the stack knows", lambda: self.env.status(self.name) == "stopped")

    def play(self) -> None:
        self.ask()

    again = play

    def ask(self) -> Answer:
        return self.env.curl(f"/notebooks/{self.name}/start", method="POST")

    def is_done(self) -> bool:
        return Scenario.is_done(self)


class Sweeping(Scenario):
    """The sweep finds whatever no event told of."""

    def play(self) -> None:
        functions = self.env.emulator.client("lambda")
        (name,) = (
            each["FunctionName"]
            for each in functions.list_functions()["Functions"]
            if "-Sweep-" in each["FunctionName"]
        )
        self.failed = "FunctionError" in functions.invoke(FunctionName=name, Payload=b"{}")

    again = play

    def is_done(self) -> bool:
        return not self.failed

    def leave(self) -> None:
        """Nothing was requested."""


LETTER, BASTIONS_LETTER, LOGGED, FAILED = "NotebookDeadLetterQueue", "RuleDeadLetterQueue", "log", "HTTP 500"
ERROR = "error"  # the notebook's status

STATEMENTS: dict[tuple[str, str], tuple[type[Scenario], str]] = {
    ("ReconcileNotebook", "Table"): (Scenario, LETTER),
    ("ReconcileNotebook", "DeleteRecords"): (Leaving, LOGGED),
    ("ReconcileNotebook", "Notebooks"): (Scenario, LETTER),
    ("ReconcileNotebook", "StatusTags"): (Scenario, LOGGED),
    ("ReconcileNotebook", "RemoveOwnTags"): (Leaving, LOGGED),
    ("ReconcileNotebook", "LifecycleConfigs"): (Scenario, LETTER),
    ("ReconcileNotebook", "DefaultConfig"): (WithoutConfiguration, ERROR),
    ("ReconcileNotebook", "Lists"): (Scenario, LETTER),
    ("ReconcileNotebook", "SendMessages"): (ThroughTheBastion, LETTER),
    ("ReconcileNotebook", "StatusEvents"): (Scenario, LOGGED),
    ("ReconcileRules", "Table"): (ThroughTheBastion, BASTIONS_LETTER),
    ("ReconcileRules", "DescribeNetwork"): (ThroughTheBastion, BASTIONS_LETTER),
    ("ReconcileRules", "Groups"): (ThroughTheBastion, LOGGED),
    ("ReconcileRules", "NewRules"): (ThroughTheBastion, LOGGED),
    ("ReconcileRules", "NewRulesAreTagged"): (ThroughTheBastion, LOGGED),
    ("Sweep", "Table"): (Sweeping, LOGGED),
    ("Sweep", "Lists"): (Sweeping, LOGGED),
    ("Sweep", "Queue"): (Sweeping, LOGGED),
    ("RecordAddress", "Table"): (Scenario, LOGGED),
    ("RecordAddress", "Token"): (Scenario, LOGGED),
    ("RecordAddress", "CentralKeys"): (Scenario, LOGGED),
    ("RecordAddress", "SendMessages"): (Scenario, LOGGED),
    ("LookupApi", "Table"): (Scenario, FAILED),
    ("StartNotebook", "Table"): (Waking, FAILED),
    ("StartNotebook", "Notebooks"): (Waking, FAILED),
}
"""The statements that the functions' own calls need, the scenario that needs each, and the sign of its denial."""

NOT_PLAYED = {
    ("ReconcileNotebook", "DefaultConfigIsTagged"): "the emulator does not ask for it",
    ("ReconcileNotebook", "Mails"): "no mail is due in these scenarios",
    ("ReconcileRules", "StatusChanged"): "the sweep sends the event of a status that it did not",
    ("Sweep", "Coordination"): "a sweep without it goes on, and the next one repeats what it did",
    ("Sweep", "Workers"): "written once for each release",
    ("Sweep", "Digest"): "sent once a day",
    ("RecordAddress", "Workers"): "read by agents of an earlier release alone",
    ("IssueCertificate", "Table"): "certificates are off in this stack",
    ("IssueCertificate", "Revocations"): "certificates are off in this stack",
    ("IssueCertificate", "AccessLog"): "certificates are off in this stack",
    ("RecordAddress", "AccessLog"): "the access log is off in this stack",
    ("AccessApi", "Table"): "the access log is off in this stack",
}
"""The others, but for logs, queues that invoke, and `Uninstall`: no stack ends here."""

HANDFUL = [("ReconcileNotebook", "LifecycleConfigs"), ("Sweep", "Lists"), ("LookupApi", "Table")]
CHOSEN = list(STATEMENTS) if os.environ.get("ALL_GRANTS") else HANDFUL


def wait(what: str, condition: Callable[[], bool]) -> None:
    processes.wait_until(what, condition)


def configurations(env: LocalEnv) -> list[str]:
    listed = env.sagemaker.list_notebook_instance_lifecycle_configs(MaxResults=100)
    return [each["NotebookInstanceLifecycleConfigName"] for each in listed["NotebookInstanceLifecycleConfigs"]]


@pytest.fixture(scope="module")
def account() -> Iterator[LocalEnv]:
    """An account of its own. Its queues give a failed message out again after a second instead of after two minutes."""
    env = LocalEnv()
    try:
        env.start()
        env.deploy()
        env.move_in()
        sqs = env.emulator.client("sqs")
        for url in sqs.list_queues()["QueueUrls"]:
            sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1"})
        yield env
    finally:
        env.close()


def role_of(env: LocalEnv, function: str) -> dict[str, Any]:
    """The role of a function, as IAM describes it."""
    roles = env.emulator.client("iam").list_roles()["Roles"]
    (role,) = (each for each in roles if f"-{function}Role-" in each["RoleName"])
    return dict(role)


@contextmanager
def without(env: LocalEnv, function: str, sid: str) -> Iterator[None]:
    """Deny what the statement `sid` of the function's role grants."""
    iam, role = env.emulator.client("iam"), role_of(env, function)["RoleName"]
    document: Any = iam.get_role_policy(RoleName=role, PolicyName="work")["PolicyDocument"]
    (granted,) = (each for each in document["Statement"] if each["Sid"] == sid)
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**granted, "Effect": "Deny"}]})
    iam.put_role_policy(RoleName=role, PolicyName="guardrail", PolicyDocument=policy)
    try:
        yield
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="guardrail")


DENIED = ("AWS denies", "not authorized", "UnauthorizedOperation")
"""What a line of the log has that names a denial: the stack's own words, and AWS's."""


class Watch:
    """The signs of a denial since it was made."""

    def __init__(self, scenario: Scenario, function: str) -> None:
        self.scenario, self.env, self.function = scenario, scenario.env, function
        self.since = int(time.time() * 1000)
        self.before = {letters: self.letters(letters) for letters in DEAD_LETTERS}

    def letters(self, queue: str) -> int:
        return self.env.emulator.waiting(self.env.stack.outputs[queue])

    def signs(self) -> set[str]:
        found = {letters for letters, before in self.before.items() if self.letters(letters) > before}
        found.add(f"HTTP {self.scenario.ask().status}")
        found.add(self.env.status(self.scenario.name))
        if any(denied in line for line in self.logged() for denied in DENIED):
            found.add(LOGGED)
        return found

    def logged(self) -> Iterator[str]:
        """What the function has logged, as people read it."""
        group = self.env.emulator.client("cloudformation").describe_stack_resource(
            StackName=STACK, LogicalResourceId=f"{self.function}Log"
        )["StackResourceDetail"]["PhysicalResourceId"]
        events = self.env.emulator.client("logs").filter_log_events(logGroupName=group, startTime=self.since)["events"]
        yield from (event["message"] for event in events)


def move_dead_letters_back(env: LocalEnv) -> None:
    """As docs/operations.md says."""
    sqs = env.emulator.client("sqs")
    for letters in DEAD_LETTERS:
        attributes = sqs.get_queue_attributes(QueueUrl=env.stack.outputs[letters], AttributeNames=["QueueArn"])
        sqs.start_message_move_task(SourceArn=attributes["Attributes"]["QueueArn"])


def test_each_statement_of_the_template_is_denied_or_has_a_reason() -> None:
    stack = Stack(**WITH_EVERYTHING)
    given = {
        (role.removesuffix("Role"), statement["Sid"])
        for role, properties in stack.of_type("AWS::IAM::Role").items()
        for policy in properties["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "Sid" in statement  # without: the role of the sweep's schedule
    }
    played_elsewhere = {each for each in given if each[0] == "Uninstall" or each[1] in ("Log", "Consume")}
    assert given - played_elsewhere == STATEMENTS.keys() | NOT_PLAYED.keys()


@pytest.mark.parametrize(("function", "sid"), CHOSEN)
def test_a_denied_statement_is_reported_and_harms_no_script(account: LocalEnv, function: str, sid: str) -> None:
    play, sign = STATEMENTS[function, sid]
    scenario = play(account, f"without-{function}-{sid}".lower())
    scenario.prepare()
    watch = Watch(scenario, function)
    try:
        with without(account, function, sid):
            scenario.play()
            wait(f"there is {sign}", lambda: sign in watch.signs())
            for name in configurations(account):
                script = account.on_start(name)
                assert name == FALLBACK or remove_block(script, STACK) == OWNERS_SCRIPT
        move_dead_letters_back(account)
        scenario.again()
        wait("what was requested is done", scenario.is_done)
        scenario.leave()
    finally:
        scenario.stop()


A_BACK_UP = {"pk": {"S": "backup#team"}, "sk": {"S": "1"}}
A_NOTEBOOK = {"pk": {"S": "notebook"}, "sk": {"S": "nobodys"}}


@pytest.mark.parametrize(
    ("function", "operation", "more"),
    [
        ("LookupApi", "get_item", {}),
        (
            "RecordAddress",
            "update_item",
            {"UpdateExpression": "SET a = :a", "ExpressionAttributeValues": {":a": {"S": "b"}}},
        ),
        ("ReconcileNotebook", "delete_item", {}),
        ("Uninstall", "delete_item", {}),
    ],
)
def test_a_function_reaches_its_own_keys_of_the_table_alone(
    account: LocalEnv, function: str, operation: str, more: dict[str, Any]
) -> None:
    """As the deployed role, which nobody but its function may assume on AWS."""
    call = getattr(as_role(account, function), operation)
    table = account.stack.outputs["TableName"]
    call(TableName=table, Key=A_NOTEBOOK, **more)
    with pytest.raises(ClientError, match="AccessDenied"):
        call(TableName=table, Key=A_BACK_UP, **more)


def test_a_function_queries_its_own_keys_alone(account: LocalEnv) -> None:
    question = {"TableName": account.stack.outputs["TableName"], "KeyConditionExpression": "pk = :pk"}
    for function, own, others in (
        ("Sweep", "coordination", "backup#team"),
        ("LookupApi", "notebook", "backup#team"),
    ):
        table = as_role(account, function)
        table.query(**question, ExpressionAttributeValues={":pk": {"S": own}})
        with pytest.raises(ClientError, match="AccessDenied"):
            table.query(**question, ExpressionAttributeValues={":pk": {"S": others}})


def as_role(env: LocalEnv, function: str) -> Any:
    """DynamoDB as a function calls it."""
    return env.emulator.client("dynamodb", env.session_of(role_of(env, function)["Arn"], "another"))
