"""AWS denies an action: it becomes a status that names the action, and no message fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.aws_clients import before_each_call
from support.builders import SETTINGS
from support.notebook_world import OWNERS, World, a_world

from notebook_ssh.adapters.clients import client
from notebook_ssh.model.checks import CheckState, run_checks
from notebook_ssh.model.status import Code, status_of

pytestmark = pytest.mark.slow  # each makes many calls


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with a_world(monkeypatch) as world:
        world.lifecycle_config("team")
        yield world


def deny(world: World, operation: str) -> None:
    """A service control policy denies `operation` from now on."""
    action = "sagemaker:" + "".join(word.capitalize() for word in operation.split("_"))

    def before(name: str, given: dict[str, Any]) -> None:
        if name == operation:
            message = f"User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: {action} on resource: x"
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, action)

    world.before_call = before


def allow(world: World) -> None:
    world.before_call = lambda name, given: None


def settle(world: World) -> None:
    """Every message is delivered, and none fails."""
    for _ in range(12):
        assert world.deliver()["batchItemFailures"] == []
        world.finish()


def sweep(world: World) -> int:
    world.now += 900
    found = world.sweep()["requests"]
    settle(world)
    return found


def with_a_configuration(world: World) -> None:
    world.notebook("box", "team", running=False, ssh="ngrok")


def without_one(world: World) -> None:
    world.notebook("box", running=False, ssh="ngrok")


def to_be_restarted(world: World) -> None:
    world.notebook("box", "team")
    world.settle()
    world.now += 2000
    world.tag("box", ssh="ngrok", ssh_restart="now")


CASES = pytest.mark.parametrize(
    ("operation", "situation"),
    [
        ("update_notebook_instance_lifecycle_config", with_a_configuration),
        ("create_notebook_instance_lifecycle_config", without_one),
        ("update_notebook_instance", without_one),
        ("stop_notebook_instance", to_be_restarted),
        ("start_notebook_instance", to_be_restarted),
        ("delete_tags", to_be_restarted),
    ],
)


@CASES
def test_a_denied_write_is_a_status_with_the_action_and_is_made_once_it_may(
    world: World, operation: str, situation: Any
) -> None:
    world.messages.clear()
    deny(world, operation)
    situation(world)
    settle(world)
    record = world.record("box")
    action = "sagemaker:" + "".join(word.capitalize() for word in operation.split("_"))
    assert record.problem is not None
    assert (record.problem.code, action in record.problem.message) == ("not-allowed", True)
    assert record.observed_hash
    assert sweep(world) >= 1, "nothing tries again"
    allow(world)
    for _ in range(3):
        sweep(world)
    assert world.record("box").problem is None
    assert "ssh-restart" not in world.tags("box")
    assert sweep(world) == 0


def test_a_denied_script_is_not_reported_as_installed(world: World) -> None:
    deny(world, "update_notebook_instance_lifecycle_config")
    with_a_configuration(world)
    settle(world)
    assert world.on_start("team") == OWNERS
    record = world.record("box")
    status = status_of(record, world.now, 300)
    assert (status.code, record.block_since) == (Code.ERROR, None)
    checks = {check.name: check for check in run_checks(record, world.now, SETTINGS).checks}
    assert checks["configuration"].state is CheckState.FAILED
    assert "sagemaker:UpdateNotebookInstanceLifecycleConfig" in checks["configuration"].reason


@pytest.mark.parametrize(
    "operation", ["describe_notebook_instance", "list_tags", "describe_notebook_instance_lifecycle_config"]
)
def test_a_denied_read_is_a_status_of_a_notebook_that_is_known_and_takes_nothing_away(
    world: World, operation: str
) -> None:
    with_a_configuration(world)
    world.settle()
    before = world.record("box")
    deny(world, operation)
    world.now += 100
    world.look("box")
    settle(world)
    record = world.record("box")
    assert record.problem is not None
    assert record.problem.code == "not-allowed"
    assert (record.spec, record.block_since, record.observed_at) == (
        before.spec,
        before.block_since,
        before.observed_at,
    )
    allow(world)
    sweep(world)
    assert world.record("box").problem is None
    assert world.has_block("team")


def test_a_denied_removal_of_the_block_fails_no_message_and_is_made_once_it_may(world: World) -> None:
    with_a_configuration(world)
    world.settle()
    deny(world, "update_notebook_instance_lifecycle_config")
    world.untag("box")
    world.send("", [({"request": {"lifecycle_config": "team"}, "reason": "the story"}, 0)])
    settle(world)
    sweep(world)
    assert world.has_block("team")
    allow(world)
    sweep(world)
    assert world.on_start("team") == OWNERS
    assert sweep(world) == 0


def test_a_denied_message_is_not_forgotten(world: World) -> None:
    """The bastion's queue may not be written to: the change is not recorded, and the message stays."""
    world.notebook("box", "team", ssh="bastion")

    def refused(operation: str, given: dict[str, Any]) -> None:
        message = "is not authorized to perform: sqs:sendmessage"
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "SendMessage")

    before_each_call(client("sqs"), refused)
    assert world.deliver()["batchItemFailures"]
    assert world.table.record("box") is None
