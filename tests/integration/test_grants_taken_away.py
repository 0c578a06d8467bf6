"""Statements of the functions' policies are taken away from the deployed stack, one at a time, and given back.

Somebody's guardrail does this in real accounts. It must be told, as a dead letter, a status or an answer; it must harm no
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

import processes
from notebook_ssh.model.managed_block import remove_block
from world import OWNERS_SCRIPT, STACK, Answer, World

FALLBACK = "better-sagemaker"
DEAD_LETTERS = ("NotebookDeadLetterQueue", "BastionDeadLetterQueue")


@dataclass
class Scene:
    """What people do with the notebook `name`."""

    world: World
    name: str

    def prepare(self) -> None:
        """Before the statement is taken away."""
        self.world.create_lifecycle_config(self.name, OWNERS_SCRIPT)
        self.create(self.name)

    def create(self, configuration: str | None) -> None:
        self.world.create_notebook(self.name, configuration)
        wait("it runs", lambda: self.world.state(self.name) == "InService")
        self.world.leave_key(self.name)

    def play(self) -> None:
        """What is wished."""
        self.wish("ngrok")

    def wish(self, mode: str) -> None:
        self.world.tag(self.name, ssh=mode, ssh_restart="now", ssh_users="nobody")

    def again(self) -> None:
        """What people do once more when the statement is back."""

    def ask(self) -> Answer:
        """What the API answers to them."""
        return self.world.curl(f"/notebooks/{self.name}")

    def is_done(self) -> bool:
        return self.world.status(self.name) == "connected"

    def leave(self) -> None:
        """The user has enough."""
        self.world.untag(self.name, "ssh")
        wait("the script is back", lambda: self.world.on_start(self.name) == OWNERS_SCRIPT)


class WithoutConfiguration(Scene):
    def prepare(self) -> None:
        self.create(None)

    def leave(self) -> None:
        self.world.untag(self.name, "ssh")
        wait("it runs", lambda: self.world.state(self.name) == "InService")
        self.world.sagemaker.stop_notebook_instance(NotebookInstanceName=self.name)
        wait("our configuration is gone", lambda: FALLBACK not in configurations(self.world))


class ThroughTheBastion(Scene):
    def play(self) -> None:
        self.wish("bastion")

    def is_done(self) -> bool:
        return super().is_done() and bool(self.world.bastion_rules())

    def leave(self) -> None:
        super().leave()
        wait("the rule is gone", lambda: not self.world.bastion_rules())


class Leaving(Scene):
    def prepare(self) -> None:
        super().prepare()
        super().play()
        wait("it is connected", super().is_done)

    def play(self) -> None:
        self.world.untag(self.name, "ssh")

    def is_done(self) -> bool:
        return self.world.on_start(self.name) == OWNERS_SCRIPT


class Waking(Leaving):
    def prepare(self) -> None:
        super().prepare()
        self.world.tag(self.name, ssh_wake="yes")
        self.world.sagemaker.stop_notebook_instance(NotebookInstanceName=self.name)
        wait("it is stopped", lambda: self.world.status(self.name) == "stopped")

    def play(self) -> None:
        self.ask()

    again = play

    def ask(self) -> Answer:
        return self.world.curl(f"/notebooks/{self.name}/start", method="POST")

    def is_done(self) -> bool:
        return Scene.is_done(self)


class Sweeping(Scene):
    """The sweep finds whatever no event told of."""

    def play(self) -> None:
        functions = self.world.emulator.client("lambda")
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
        """Nothing was wished."""


LETTER, BASTIONS_LETTER, LOGGED, FAILED = "NotebookDeadLetterQueue", "BastionDeadLetterQueue", "log", "HTTP 500"

STATEMENTS: dict[tuple[str, str], tuple[type[Scene], str]] = {
    ("ReconcileNotebook", "Table"): (Scene, LETTER),
    ("ReconcileNotebook", "Forget"): (Leaving, LOGGED),
    ("ReconcileNotebook", "Notebooks"): (Scene, LETTER),
    ("ReconcileNotebook", "StatusTags"): (Scene, LETTER),
    ("ReconcileNotebook", "RemoveOwnTags"): (Scene, LETTER),
    ("ReconcileNotebook", "LifecycleConfigs"): (Scene, LETTER),
    ("ReconcileNotebook", "DefaultConfig"): (WithoutConfiguration, LETTER),
    ("ReconcileNotebook", "Lists"): (Scene, LETTER),
    ("ReconcileNotebook", "SendMessages"): (ThroughTheBastion, LETTER),
    ("ReconcileNotebook", "StatusEvents"): (Scene, LOGGED),
    ("ReconcileBastion", "Table"): (ThroughTheBastion, BASTIONS_LETTER),
    ("ReconcileBastion", "Look"): (ThroughTheBastion, BASTIONS_LETTER),
    ("ReconcileBastion", "Groups"): (ThroughTheBastion, LOGGED),
    ("ReconcileBastion", "NewRules"): (ThroughTheBastion, LOGGED),
    ("ReconcileBastion", "NewRulesAreTagged"): (ThroughTheBastion, LOGGED),
    ("Sweep", "Table"): (Sweeping, LOGGED),
    ("Sweep", "Lists"): (Sweeping, LOGGED),
    ("Sweep", "Queue"): (Sweeping, LOGGED),
    ("RecordAddress", "Table"): (Scene, LOGGED),
    ("RecordAddress", "Token"): (Scene, LOGGED),
    ("RecordAddress", "CentralKeys"): (Scene, LOGGED),
    ("RecordAddress", "SendMessages"): (Scene, LOGGED),
    ("LookupApi", "Table"): (Scene, FAILED),
    ("StartNotebook", "Table"): (Waking, FAILED),
    ("StartNotebook", "Notebooks"): (Waking, FAILED),
}
"""The statements that the functions' own calls need, the scene that needs each, and what tells that it is denied.

Without those of `Uninstall`, since no stack ends here; DefaultConfigIsTagged, which the emulator does not ask for;
and StatusChanged of ReconcileBastion: a change of status that is not told by it is told by the sweep.
"""

HANDFUL = [("ReconcileNotebook", "LifecycleConfigs"), ("Sweep", "Lists"), ("LookupApi", "Table")]
CHOSEN = list(STATEMENTS) if os.environ.get("ALL_GRANTS") else HANDFUL


def wait(what: str, condition: Callable[[], bool]) -> None:
    processes.wait_until(what, condition)


def configurations(world: World) -> list[str]:
    listed = world.sagemaker.list_notebook_instance_lifecycle_configs(MaxResults=100)
    return [each["NotebookInstanceLifecycleConfigName"] for each in listed["NotebookInstanceLifecycleConfigs"]]


@pytest.fixture(scope="module")
def account() -> Iterator[World]:
    """An account of its own. Its queues give a failed message out again after a second instead of after two minutes."""
    world = World()
    try:
        world.start()
        world.deploy()
        world.move_in()
        sqs = world.emulator.client("sqs")
        for url in sqs.list_queues()["QueueUrls"]:
            sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1"})
        yield world
    finally:
        world.close()


def role_of(world: World, function: str) -> dict[str, Any]:
    """The role of a function, as IAM describes it."""
    roles = world.emulator.client("iam").list_roles()["Roles"]
    (role,) = (each for each in roles if f"-{function}Role-" in each["RoleName"])
    return dict(role)


@contextmanager
def without(world: World, function: str, sid: str) -> Iterator[None]:
    """Deny what the statement `sid` of the function's role grants."""
    iam, role = world.emulator.client("iam"), role_of(world, function)["RoleName"]
    document: Any = iam.get_role_policy(RoleName=role, PolicyName="work")["PolicyDocument"]
    (granted,) = (each for each in document["Statement"] if each["Sid"] == sid)
    denied = {"Effect": "Deny", "Action": granted["Action"], "Resource": granted["Resource"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    iam.put_role_policy(RoleName=role, PolicyName="guardrail", PolicyDocument=policy)
    try:
        yield
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="guardrail")


class Watch:
    """What tells of a denial since it was made."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.world = scene, scene.world
        self.since = int(time.time() * 1000)
        self.before = {letters: self.letters(letters) for letters in DEAD_LETTERS}

    def letters(self, queue: str) -> int:
        return self.world.emulator.waiting(self.world.stack.outputs[queue])

    def seen(self) -> set[str]:
        found = {letters for letters, before in self.before.items() if self.letters(letters) > before}
        found.add(f"HTTP {self.scene.ask().status}")
        if any(denied in line for line in self.logged() for denied in ("not authorized", "UnauthorizedOperation")):
            found.add(LOGGED)
        return found

    def logged(self) -> Iterator[str]:
        """What the functions have logged, as people read it."""
        logs = self.world.emulator.client("logs")
        for group in logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]:
            events = logs.filter_log_events(logGroupName=group["logGroupName"], startTime=self.since)["events"]
            yield from (event["message"] for event in events)


def move_dead_letters_back(world: World) -> None:
    """As docs/operations.md says."""
    sqs = world.emulator.client("sqs")
    for letters in DEAD_LETTERS:
        attributes = sqs.get_queue_attributes(QueueUrl=world.stack.outputs[letters], AttributeNames=["QueueArn"])
        sqs.start_message_move_task(SourceArn=attributes["Attributes"]["QueueArn"])


@pytest.mark.parametrize(("function", "sid"), CHOSEN)
def test_a_statement_that_is_taken_away_is_told_and_harms_nobody(account: World, function: str, sid: str) -> None:
    play, told = STATEMENTS[function, sid]
    scene = play(account, f"without-{function}-{sid}".lower())
    scene.prepare()
    watch = Watch(scene)
    with without(account, function, sid):
        scene.play()
        wait(f"told by {told}", lambda: told in watch.seen())
        for name in configurations(account):
            script = account.on_start(name)
            assert name == FALLBACK or remove_block(script, STACK) == OWNERS_SCRIPT
    move_dead_letters_back(account)
    scene.again()
    wait("what was asked for is done", scene.is_done)
    scene.leave()


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
    account: World, function: str, operation: str, more: dict[str, Any]
) -> None:
    """As the deployed role, which nobody but its function may assume on AWS."""
    call = getattr(as_role(account, function), operation)
    table = account.stack.outputs["TableName"]
    call(TableName=table, Key=A_NOTEBOOK, **more)
    with pytest.raises(ClientError, match="AccessDenied"):
        call(TableName=table, Key=A_BACK_UP, **more)


def test_a_function_queries_its_own_keys_alone(account: World) -> None:
    question = {"TableName": account.stack.outputs["TableName"], "KeyConditionExpression": "pk = :pk"}
    for function, own, others in (
        ("Sweep", "coordination", "backup#team"),
        ("LookupApi", "notebook", "backup#team"),
    ):
        table = as_role(account, function)
        table.query(**question, ExpressionAttributeValues={":pk": {"S": own}})
        with pytest.raises(ClientError, match="AccessDenied"):
            table.query(**question, ExpressionAttributeValues={":pk": {"S": others}})


def as_role(world: World, function: str) -> Any:
    """DynamoDB as a function calls it."""
    return world.emulator.client("dynamodb", world.session_of(role_of(world, function)["Arn"], "somebody"))
