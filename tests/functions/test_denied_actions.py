"""AWS denies an action: it becomes a status that names the action, and no message fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.aws_clients import before_each_call
from support.builders import SETTINGS
from support.notebook_env import OWNERS, NotebookEnv, notebook_env

from notebook_ssh.adapters.clients import client
from notebook_ssh.model.checks import CheckState, run_checks
from notebook_ssh.model.status import Code, status_of

pytestmark = pytest.mark.slow  # each makes many calls


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch) as env:
        env.lifecycle_config("team")
        yield env


def deny(env: NotebookEnv, operation: str) -> None:
    """A service control policy denies `operation` from now on."""
    action = "sagemaker:" + "".join(word.capitalize() for word in operation.split("_"))

    def before(name: str, given: dict[str, Any]) -> None:
        if name == operation:
            message = f"User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: {action} on resource: x"
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, action)

    env.before_call = before


def allow(env: NotebookEnv) -> None:
    env.before_call = lambda name, given: None


def settle(env: NotebookEnv) -> None:
    """Every message is delivered, and none fails."""
    for _ in range(12):
        assert env.deliver()["batchItemFailures"] == []
        env.finish()


def sweep(env: NotebookEnv) -> int:
    env.now += 900
    found = env.sweep()["requests"]
    settle(env)
    return found


def with_a_configuration(env: NotebookEnv) -> None:
    env.notebook("box", "team", running=False, ssh="ngrok")


def without_one(env: NotebookEnv) -> None:
    env.notebook("box", running=False, ssh="ngrok")


def to_be_restarted(env: NotebookEnv) -> None:
    env.notebook("box", "team")
    env.settle()
    env.now += 2000
    env.tag("box", ssh="ngrok", ssh_restart="now")


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
    env: NotebookEnv, operation: str, situation: Any
) -> None:
    env.messages.clear()
    deny(env, operation)
    situation(env)
    settle(env)
    record = env.record("box")
    action = "sagemaker:" + "".join(word.capitalize() for word in operation.split("_"))
    assert record.problem is not None
    assert (record.problem.code, action in record.problem.message) == ("not-allowed", True)
    assert record.observed_hash
    assert sweep(env) >= 1, "nothing tries again"
    allow(env)
    for _ in range(3):
        sweep(env)
    assert env.record("box").problem is None
    assert "ssh-restart" not in env.tags("box")
    assert sweep(env) == 0


def test_a_denied_script_is_not_reported_as_installed(env: NotebookEnv) -> None:
    deny(env, "update_notebook_instance_lifecycle_config")
    with_a_configuration(env)
    settle(env)
    assert env.on_start("team") == OWNERS
    record = env.record("box")
    status = status_of(record, env.now, 300)
    assert (status.code, record.block_since) == (Code.ERROR, None)
    checks = {check.name: check for check in run_checks(record, env.now, SETTINGS).checks}
    assert checks["configuration"].state is CheckState.FAILED
    assert "sagemaker:UpdateNotebookInstanceLifecycleConfig" in checks["configuration"].reason


@pytest.mark.parametrize(
    "operation", ["describe_notebook_instance", "list_tags", "describe_notebook_instance_lifecycle_config"]
)
def test_a_denied_read_is_a_status_of_a_notebook_that_is_known_and_takes_nothing_away(
    env: NotebookEnv, operation: str
) -> None:
    with_a_configuration(env)
    env.settle()
    before = env.record("box")
    deny(env, operation)
    env.now += 100
    env.look("box")
    settle(env)
    record = env.record("box")
    assert record.problem is not None
    assert record.problem.code == "not-allowed"
    assert (record.spec, record.block_since, record.observed_at) == (
        before.spec,
        before.block_since,
        before.observed_at,
    )
    allow(env)
    sweep(env)
    assert env.record("box").problem is None
    assert env.has_block("team")


def test_a_denied_removal_of_the_block_fails_no_message_and_is_made_once_it_may(env: NotebookEnv) -> None:
    with_a_configuration(env)
    env.settle()
    deny(env, "update_notebook_instance_lifecycle_config")
    env.untag("box")
    env.send("", [({"request": {"lifecycle_config": "team"}, "reason": "the scenario"}, 0)])
    settle(env)
    sweep(env)
    assert env.has_block("team")
    allow(env)
    sweep(env)
    assert env.on_start("team") == OWNERS
    assert sweep(env) == 0


def test_a_denied_message_is_not_forgotten(env: NotebookEnv) -> None:
    """The bastion's queue may not be written to: the change is not recorded, and the message stays."""
    env.notebook("box", "team", ssh="bastion")

    def refused(operation: str, given: dict[str, Any]) -> None:
        message = "is not authorized to perform: sqs:sendmessage"
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "SendMessage")

    before_each_call(client("sqs"), refused)
    assert env.deliver()["batchItemFailures"]
    assert env.table.record("box") is None
