"""Signals on their real way: event bus, rules, queues, functions, table; and what becomes of those that fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import processes
from emulator.process import Emulator
from environment import OWNERS_SCRIPT, LocalEnv

pytestmark = pytest.mark.takes_minutes


def known(env: LocalEnv, name: str) -> bool:
    return env.curl(f"/notebooks/{name}").status == 200


def is_heard(env: LocalEnv, name: str) -> None:
    """Wait until the stack knows of a notebook that has just been tagged."""
    env.create_notebook(name)
    processes.wait_until("it runs", lambda: env.state(name) == "InService")
    env.tag(name, ssh="ngrok")
    processes.wait_until("the tag is heard", lambda: known(env, name))


def test_events_of_tags_alone_are_enough() -> None:
    env = LocalEnv(Emulator("aws.tag", machines=False))
    try:
        env.start()
        env.deploy()
        env.move_in()
        is_heard(env, "heard-by-its-tag")
    finally:
        env.close()


def test_calls_in_the_trail_alone_are_enough(env: LocalEnv) -> None:
    with env.emulator.answering({"tag-events": "absent"}):
        is_heard(env, "heard-by-the-trail")


def test_a_shared_script_is_the_owners_again_when_the_last_request_goes(env: LocalEnv) -> None:
    env.create_lifecycle_config("shared", OWNERS_SCRIPT)
    for name in ("sharer-one", "sharer-two"):
        env.create_notebook(name, "shared")
        env.tag(name, ssh="ngrok")
    processes.wait_until("the set-up is in", lambda: len(env.on_start("shared")) > len(OWNERS_SCRIPT))
    processes.wait_until("both are known", lambda: all(known(env, f"sharer-{n}") for n in ("one", "two")))
    env.untag("sharer-one", "ssh")
    processes.wait_until("one is off", lambda: env.status("sharer-one") in ("off", "unknown-notebook"))
    assert len(env.on_start("shared")) > len(OWNERS_SCRIPT)
    env.untag("sharer-two", "ssh")
    processes.wait_until("the script is back", lambda: env.on_start("shared") == OWNERS_SCRIPT)


def test_two_notebooks_of_one_role_connect_each_to_its_own(env: LocalEnv) -> None:
    """Shared role, shared configuration: the names in the reports keep them apart."""
    names = ("twin-one", "twin-two")
    for name in names:
        env.create_notebook(name)
        processes.wait_until("it runs", partial(env.is_in, name, "InService"))
        env.leave_key(name)
        env.tag(name, ssh="ngrok")
        env.sagemaker.stop_notebook_instance(NotebookInstanceName=name)
    for name in names:
        processes.wait_until(f"{name} is stopped", partial(env.is_in, name, "Stopped"))
        processes.wait_until(f"{name} has the set-up", partial(_attached, env, name))
        processes.wait_until(f"{name} is stopped", partial(env.is_in, name, "Stopped"))
        env.sagemaker.start_notebook_instance(NotebookInstanceName=name)
    commands = set()
    for name in names:
        processes.wait_until(f"{name} connects", partial(_is_connected, env, name))
        commands.add(env.curl(f"/notebooks/{name}/ssh").body)
        env.save_ssh_config(name)
        assert env.ssh(name, "echo hello").stdout == "hello\n"
    assert len(commands) == 2


def _is_connected(env: LocalEnv, name: str) -> bool:
    return env.status(name) == "connected"


def _attached(env: LocalEnv, name: str) -> bool:
    told = env.sagemaker.describe_notebook_instance(NotebookInstanceName=name)
    return bool(told.get("NotebookInstanceLifecycleConfigName") == "better-sagemaker")


@pytest.fixture
def broken_reconciler(env: LocalEnv) -> Iterator[Any]:
    """The notebook reconciler may not look at SageMaker, and its queue gives up at once instead of after minutes."""
    iam, sqs = env.emulator.client("iam"), env.emulator.client("sqs")
    role = next(role["RoleName"] for role in iam.list_roles()["Roles"] if "ReconcileNotebookRole" in role["RoleName"])
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "sagemaker:*", "Resource": "*"}]}
    url = next(url for url in sqs.list_queues()["QueueUrls"] if "-NotebookQueue-" in url)
    before = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    iam.put_role_policy(RoleName=role, PolicyName="broken", PolicyDocument=json.dumps(deny))
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "0"})
    yield sqs
    iam.delete_role_policy(RoleName=role, PolicyName="broken")
    sqs.set_queue_attributes(QueueUrl=url, Attributes=before)


def test_a_signal_that_cannot_be_handled_ends_in_the_dead_letter_queue(env: LocalEnv, broken_reconciler: Any) -> None:
    dead = env.stack.outputs["NotebookDeadLetterQueue"]
    env.create_notebook("unlucky")
    env.tag("unlucky", ssh="ngrok")

    def lies_there() -> bool:
        told = broken_reconciler.get_queue_attributes(QueueUrl=dead, AttributeNames=["ApproximateNumberOfMessages"])
        return int(told["Attributes"]["ApproximateNumberOfMessages"]) > 0

    processes.wait_until("a dead letter", lies_there)
