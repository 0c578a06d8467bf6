"""Signals on their real way: event bus, rules, queues, functions, table; and what becomes of those that fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import processes
from world import OWNERS_SCRIPT, World

pytestmark = pytest.mark.takes_minutes


def known(world: World, name: str) -> bool:
    return world.curl(f"/notebooks/{name}").status == 200


@pytest.mark.parametrize("kind", ["aws.tag", "cloudtrail"])
def test_either_kind_of_tag_event_alone_is_enough(kind: str) -> None:
    world = World()
    world.emulator.tag_events = kind
    try:
        world.start()
        world.deploy()
        world.move_in()
        world.create_notebook("heard")
        processes.wait_until("it runs", lambda: world.state("heard") == "InService")
        world.tag("heard", ssh="ngrok")
        processes.wait_until(f"{kind} is heard", lambda: known(world, "heard"))
    finally:
        world.close()


def test_a_shared_script_is_the_owners_again_when_the_last_wish_goes(world: World) -> None:
    world.create_lifecycle_config("shared", OWNERS_SCRIPT)
    for name in ("sharer-one", "sharer-two"):
        world.create_notebook(name, "shared")
        world.tag(name, ssh="ngrok")
    processes.wait_until("the set-up is in", lambda: len(world.on_start("shared")) > len(OWNERS_SCRIPT))
    processes.wait_until("both are known", lambda: all(known(world, f"sharer-{n}") for n in ("one", "two")))
    world.untag("sharer-one", "ssh")
    processes.wait_until("one is off", lambda: world.status("sharer-one") in ("off", "unknown-notebook"))
    assert len(world.on_start("shared")) > len(OWNERS_SCRIPT)
    world.untag("sharer-two", "ssh")
    processes.wait_until("the script is back", lambda: world.on_start("shared") == OWNERS_SCRIPT)


def test_two_notebooks_of_one_role_connect_each_to_its_own(world: World) -> None:
    """Shared role, shared configuration: the names in the reports keep them apart."""
    names = ("twin-one", "twin-two")
    for name in names:
        world.create_notebook(name)
        processes.wait_until("it runs", partial(world.is_in, name, "InService"))
        world.leave_key(name)
        world.tag(name, ssh="ngrok")
        world.sagemaker.stop_notebook_instance(NotebookInstanceName=name)
    for name in names:
        processes.wait_until(f"{name} is stopped", partial(world.is_in, name, "Stopped"))
        processes.wait_until(f"{name} has the set-up", partial(_attached, world, name))
        processes.wait_until(f"{name} is stopped", partial(world.is_in, name, "Stopped"))
        world.sagemaker.start_notebook_instance(NotebookInstanceName=name)
    commands = set()
    for name in names:
        processes.wait_until(f"{name} connects", partial(_is_connected, world, name))
        commands.add(world.curl(f"/notebooks/{name}/ssh").body)
        world.save_ssh_config(name)
        assert world.ssh(name, "echo hello").stdout == "hello\n"
    assert len(commands) == 2


def _is_connected(world: World, name: str) -> bool:
    return world.status(name) == "connected"


def _attached(world: World, name: str) -> bool:
    told = world.sagemaker.describe_notebook_instance(NotebookInstanceName=name)
    return bool(told.get("NotebookInstanceLifecycleConfigName") == "better-sagemaker")


@pytest.fixture
def broken_reconciler(world: World) -> Iterator[Any]:
    """The notebook reconciler may not look at SageMaker, and its queue gives up at once instead of after minutes."""
    iam, sqs = world.emulator.client("iam"), world.emulator.client("sqs")
    role = next(role["RoleName"] for role in iam.list_roles()["Roles"] if "ReconcileNotebookRole" in role["RoleName"])
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "sagemaker:*", "Resource": "*"}]}
    url = next(url for url in sqs.list_queues()["QueueUrls"] if "-NotebookQueue-" in url)
    before = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    iam.put_role_policy(RoleName=role, PolicyName="broken", PolicyDocument=json.dumps(deny))
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "0"})
    yield sqs
    iam.delete_role_policy(RoleName=role, PolicyName="broken")
    sqs.set_queue_attributes(QueueUrl=url, Attributes=before)


def test_a_signal_that_cannot_be_handled_ends_in_the_dead_letter_queue(world: World, broken_reconciler: Any) -> None:
    dead = world.stack.outputs["NotebookDeadLetterQueue"]
    world.create_notebook("unlucky")
    world.tag("unlucky", ssh="ngrok")

    def lies_there() -> bool:
        told = broken_reconciler.get_queue_attributes(QueueUrl=dead, AttributeNames=["ApproximateNumberOfMessages"])
        return int(told["Attributes"]["ApproximateNumberOfMessages"]) > 0

    processes.wait_until("a dead letter", lies_there)
