"""The deployed stack against faults: poison, functions that are killed, services that say "later", clocks that are wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import processes
from environment import OWNERS_SCRIPT, LocalEnv

RECONCILER = "-ReconcileNotebook"


def queue_url(env: LocalEnv, name: str) -> str:
    """The address of the stack's queue whose name holds `name`."""
    urls: list[str] = env.emulator.client("sqs").list_queues()["QueueUrls"]
    return next(url for url in urls if f"-{name}-" in url)


@pytest.fixture
def impatient(env: LocalEnv) -> Iterator[str]:
    """The notebooks' queue, which gives a failed message out again after a second instead of after two minutes."""
    sqs, url = env.emulator.client("sqs"), queue_url(env, "NotebookQueue")
    before = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1"})
    yield url
    sqs.set_queue_attributes(QueueUrl=url, Attributes=before)


def reconcile_request(name: str) -> str:
    return json.dumps({"request": {"notebook": name}, "reason": "asked by hand"})


def known(env: LocalEnv, name: str) -> bool:
    return env.curl(f"/notebooks/{name}").status == 200


def holds_the_block(env: LocalEnv, configuration: str) -> bool:
    return b">>> notebook-ssh stack=" in env.on_start(configuration)


def clean(env: LocalEnv, name: str, configuration: str) -> None:
    """The user has enough, and the owner's script must be the owner's again."""
    env.untag(name, "ssh")
    processes.wait_until("the script is back", lambda: env.on_start(configuration) == OWNERS_SCRIPT)


# ---- a poison message


@pytest.fixture
def poison(env: LocalEnv) -> Iterator[Callable[[], None]]:
    """A notebook that the reconciler may not read the tags of: a guardrail denies it. Calling it mends that."""
    iam = env.emulator.client("iam")
    (role,) = (each["RoleName"] for each in iam.list_roles()["Roles"] if "ReconcileNotebookRole" in each["RoleName"])
    statement = {"Effect": "Deny", "Action": "sagemaker:ListTags", "Resource": env.arn("Poisoned")}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName=role, PolicyName="guardrail", PolicyDocument=policy)

    def mend() -> None:
        iam.delete_role_policy(RoleName=role, PolicyName="guardrail")

    yield mend
    if "guardrail" in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        mend()


def test_a_poison_message_harms_no_other_and_works_once_it_is_moved_back(
    env: LocalEnv, impatient: str, poison: Callable[[], None]
) -> None:
    sqs, functions = env.emulator.client("sqs"), env.emulator.client("lambda")
    dead = env.stack.outputs["NotebookDeadLetterQueue"]
    names = ("Poisoned", "other-one", "other-two")
    for name in names:
        env.create_notebook(name)
        env.emulator.client("sagemaker").add_tags(ResourceArn=env.arn(name), Tags=[{"Key": "ssh", "Value": "ngrok"}])
    (mapping,) = (
        each["UUID"]
        for each in functions.list_event_source_mappings()["EventSourceMappings"]
        if each["EventSourceArn"].endswith(impatient.rpartition("/")[2])
    )
    functions.update_event_source_mapping(UUID=mapping, Enabled=False)
    for name in names:  # while nobody fetches, so that one batch holds them all
        sqs.send_message(QueueUrl=impatient, MessageBody=reconcile_request(name))
    functions.update_event_source_mapping(UUID=mapping, Enabled=True)
    processes.wait_until("the others are known", lambda: known(env, names[1]) and known(env, names[2]))
    processes.wait_until("the dead letter", lambda: env.emulator.waiting(dead) > 0)
    processes.wait_until("the queue is empty", lambda: env.emulator.waiting(impatient) == 0)
    assert not known(env, "Poisoned")
    letters = sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10, VisibilityTimeout=0)["Messages"]
    assert not [each["Body"] for each in letters if "other-" in each["Body"]]

    poison()  # the cause is mended; then as docs/operations.md says
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sqs.start_message_move_task(SourceArn=arn)
    processes.wait_until("what was poisoned is known", lambda: known(env, "Poisoned"))
    processes.wait_until(
        "both queues are empty", lambda: env.emulator.waiting(impatient) + env.emulator.waiting(dead) == 0
    )


# ---- functions that are killed


@pytest.fixture
def short_turns(env: LocalEnv, impatient: str) -> Iterator[None]:
    """The reconciler has 15 seconds instead of two minutes, and so has whatever a killed one still holds."""
    functions = env.emulator.client("lambda")
    (name,) = (
        each["FunctionName"]
        for each in functions.list_functions()["Functions"]
        if RECONCILER + "-" in each["FunctionName"]
    )
    functions.update_function_configuration(FunctionName=name, Timeout=15)
    yield
    functions.update_function_configuration(FunctionName=name, Timeout=120)


def test_a_reconciler_that_is_killed_between_two_calls_leaves_nothing_half_done(
    env: LocalEnv, short_turns: None
) -> None:
    """Killed before and after the write of a script: SIGKILL to the function's process, as a crash would."""
    write, by = "SageMaker.UpdateNotebookInstanceLifecycleConfig", RECONCILER
    names = {"cut-before": "kill before", "cut-after": "kill after"}
    for name in names:
        env.create_lifecycle_config(name, OWNERS_SCRIPT)
        env.create_notebook(name, name)
    faults = [{"call": write, "by": by, "about": f'"{name}"', "effect": effect} for name, effect in names.items()]
    with env.emulator.faults(*faults):
        for name in names:
            env.tag(name, ssh="ngrok")
        processes.wait_until("both were met", lambda: env.emulator.faults_met() == [1, 1])
        for name in names:
            processes.wait_until(f"{name} is known", partial(known, env, name))
            processes.wait_until("the block is in", partial(holds_the_block, env, name))
    for name in names:
        assert set(backups(env, name)) == {OWNERS_SCRIPT}, "copied before the first write, and nothing else ever"
        assert env.on_start(name).count(b">>> notebook-ssh stack=") == 1
        clean(env, name, name)


def backups(env: LocalEnv, configuration: str) -> list[bytes]:
    """The copies of the configuration's script, read as docs/operations.md says."""
    items = env.emulator.client("dynamodb").query(
        TableName=env.stack.outputs["TableName"],
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"backup#{configuration}"}},
    )["Items"]
    return [base64.b64decode(item["content"]["S"]) for item in items if "content" in item]


# ---- services that say "later"


@pytest.mark.parametrize(
    ("call", "code"),
    [("DynamoDB.", "ProvisionedThroughputExceededException"), ("SageMaker.", "ThrottlingException")],
)
def test_a_service_that_throttles_for_a_while_only_costs_time(
    env: LocalEnv, impatient: str, call: str, code: str
) -> None:
    name = f"throttled-by-{call[:-1].lower()}"
    env.create_lifecycle_config(name, OWNERS_SCRIPT)
    env.create_notebook(name, name)
    processes.wait_until("it runs", lambda: env.state(name) == "InService")
    fault = {"call": call, "by": RECONCILER, "effect": "refuse", "code": code, "times": 10}
    with env.emulator.faults(fault):
        env.tag(name, ssh="ngrok")
        processes.wait_until("ten calls were refused", lambda: env.emulator.faults_met() == [10])
        processes.wait_until("it is known all the same", lambda: known(env, name))
        processes.wait_until("the block is in", lambda: holds_the_block(env, name))
    clean(env, name, name)


def test_callers_are_answered_503_while_the_table_is_throttled(env: LocalEnv) -> None:
    fault = {"call": "DynamoDB.", "by": "LookupApi", "effect": "refuse", "times": 3}
    with env.emulator.faults(fault | {"code": "ProvisionedThroughputExceededException"}):
        answer = env.curl("/notebooks/whatever")
    assert (answer.status, json.loads(answer.body)["error"]) == (503, "later")
    assert env.curl("/notebooks/whatever").status == 404
