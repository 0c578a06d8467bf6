"""The end of a stack, through the real custom resource: everything is given back, and CloudFormation is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.aws_clients import before_each_call
from support.builders import a_lambda_context
from support.notebook_env import FALLBACK, OWNERS, NotebookEnv, notebook_env

from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.sagemaker import ScriptConflictError
from notebook_ssh.errors import NotFoundError, RetryableError
from notebook_ssh.model.managed_block import SHEBANG
from notebook_ssh.planning.script import EMPTY_SCRIPT
from uninstall import handler

pytestmark = pytest.mark.slow  # each makes many calls


class CloudFormation:
    """CloudFormation's side: its requests, and the responses that it gets."""

    def __init__(self, env: NotebookEnv, patch: pytest.MonkeyPatch) -> None:
        self.env = env
        self.answers: list[dict[str, Any]] = []
        patch.setattr("urllib.request.urlopen", self._heard)

    def _sleep(self, seconds: float) -> None:
        self.env.now += int(seconds) + 1

    def _heard(self, request: Any, timeout: int) -> Any:
        self.answers.append(json.loads(request.data) | {"url": request.full_url, "method": request.method})
        return nullcontext()

    def ask(self, request: str, seconds: int = 600) -> dict[str, Any]:
        deadline = self.env.now + seconds
        context = a_lambda_context(
            get_remaining_time_in_millis=lambda: (deadline - self.env.now) * 1000, log_stream_name="stream"
        )
        event = {
            "RequestType": request,
            "ResponseURL": "https://cloudformation.example/answer",
            "StackId": "stack-id",
            "RequestId": "request-id",
            "LogicalResourceId": "Cleanup",
        }
        handler.handle(
            event,
            context,
            clock=lambda: self.env.now,
            sleep=self._sleep,
            policy=lambda settings: self.env.policy(),
        )
        return self.answers[-1]


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch, STATUS_TAGS="true") as env:
        yield env


@pytest.fixture
def cloudformation(env: NotebookEnv, monkeypatch: pytest.MonkeyPatch) -> CloudFormation:
    return CloudFormation(env, monkeypatch)


def test_everything_is_as_it_was(env: NotebookEnv, cloudformation: CloudFormation) -> None:
    env.lifecycle_config("team", OWNERS, on_create=EMPTY_SCRIPT)
    env.lifecycle_config("empty", None, on_create=EMPTY_SCRIPT)
    env.notebook("shared-1", "team", ssh="ngrok")
    env.notebook("shared-2", "team", ssh="ngrok", Env="research")
    env.notebook("odd", "empty", ssh="ngrok")
    env.notebook("alone", running=False, ssh="ngrok")
    env.settle()
    assert env.attached_config("alone") == FALLBACK
    answer = cloudformation.ask("Delete")
    assert (answer["Status"], answer["Reason"]) == ("SUCCESS", "Everything is as it was. (log stream stream)")
    assert (answer["RequestId"], answer["StackId"], answer["method"]) == ("request-id", "stack-id", "PUT")
    assert env.scripts("team") == (EMPTY_SCRIPT, OWNERS)
    assert env.scripts("empty") == (EMPTY_SCRIPT, None)
    assert env.attached_config("alone") is None
    assert env.lifecycle_configs() == {"team", "empty"}
    assert env.tags("shared-2") == {"ssh": "ngrok", "Env": "research"}
    assert list(env.table.records()) == []
    assert list(env.table.items("lifecycle_config")) == []
    assert all(copy["expires"] > env.now for copy in env.table.items("backup#team"))


def test_afterwards_nothing_is_put_back(env: NotebookEnv, cloudformation: CloudFormation) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    cloudformation.ask("Delete")
    env.look("box")
    env.settle()
    assert env.on_start("team") == OWNERS
    assert env.table.record("box") is None
    cloudformation.ask("Update")
    env.look("box")
    env.settle()
    assert env.has_block("team")


def test_a_worker_under_way_gets_no_turn_any_more(env: NotebookEnv, cloudformation: CloudFormation) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    closing = [True]

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "list_tags" and closing:
            closing.clear()
            cloudformation.ask("Delete")  # after the batch began, and before its write

    env.before_call = before
    env.deliver()
    assert env.on_start("team") == OWNERS


def test_a_slot_that_a_worker_has_already_is_awaited(env: NotebookEnv, cloudformation: CloudFormation) -> None:
    """Its write would come after the teardown has looked, and be there for ever."""
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    reserved: list[bool] = []

    def before(name: str, given: dict[str, Any]) -> None:
        if reserved == [True]:
            reserved.append(False)
            cloudformation.ask("Delete")  # after the slot was reserved, and before the write
        elif not reserved and given.get("Key", {}).get("sk") == {"S": "sagemaker-writes"}:
            reserved.append(name == "update_item")

    before_each_call(client("dynamodb"), before)
    env.deliver()
    assert reserved == [True, False]
    assert env.on_start("team") == OWNERS


def test_a_running_notebook_keeps_a_script_that_does_nothing_and_the_answer_says_so(
    env: NotebookEnv, cloudformation: CloudFormation
) -> None:
    env.notebook("alone", running=False, ssh="ngrok")
    env.settle()
    env.start("alone")
    env.settle()
    answer = cloudformation.ask("Delete")
    assert answer["Status"] == "SUCCESS"
    assert "alone is InService and keeps the configuration better-sagemaker" in answer["Reason"]
    assert env.scripts(FALLBACK) == (EMPTY_SCRIPT, EMPTY_SCRIPT)


def test_a_record_of_a_newer_version_is_kept_and_named(env: NotebookEnv, cloudformation: CloudFormation) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.notebook("newer", "team", running=False, ssh="ngrok")
    env.settle()
    env.table.update("notebook", "newer", set={"spec": {"mode": "tailscale"}})
    answered = cloudformation.ask("Delete")
    assert answered["Status"] == "FAILED"
    assert "the record of newer cannot be read: its attribute spec.mode" in answered["Reason"]
    assert [item["sk"] for item in env.table.items("notebook")] == ["newer"]
    assert env.on_start("team") == OWNERS


def test_a_damaged_block_is_left_and_reported(env: NotebookEnv, cloudformation: CloudFormation) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    damaged = (env.on_start("team") or b"") + b"# <<< notebook-ssh stack=team-ssh <<<\n"
    env.edit("team", damaged)
    answer = cloudformation.ask("Delete")
    assert answer["Status"] == "SUCCESS"
    assert "team: The on-start script is left as it is" in answer["Reason"]
    assert env.on_start("team") == damaged


@pytest.mark.parametrize(
    "operation", ["describe_notebook_instance_lifecycle_config", "list_notebook_instances", "list_tags"]
)
def test_what_fails_for_now_is_tried_again(env: NotebookEnv, cloudformation: CloudFormation, operation: str) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    left = [3]

    def before(name: str, given: dict[str, Any]) -> None:
        if name == operation and left[0]:
            left[0] -= 1
            raise RetryableError("Rate exceeded")

    env.before_call = before
    assert cloudformation.ask("Delete")["Status"] == "SUCCESS"
    assert env.on_start("team") == OWNERS


def test_damage_that_is_found_at_the_second_reading_is_reported(
    env: NotebookEnv, cloudformation: CloudFormation
) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()
    damaged = (env.on_start("team") or b"") + b"# <<< notebook-ssh stack=team-ssh <<<\n"
    reads: list[str] = []

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "describe_notebook_instance_lifecycle_config":
            reads.append(name)
            if len(reads) == 2:
                env.before_call = lambda name, given: None
                env.edit("team", damaged)

    env.before_call = before
    assert "team: The on-start script is left as it is" in cloudformation.ask("Delete")["Reason"]
    assert env.on_start("team") == damaged


@pytest.mark.parametrize("operation", ["update_notebook_instance_lifecycle_config", "delete_tags"])
def test_what_is_deleted_concurrently_ends_nothing(
    env: NotebookEnv, cloudformation: CloudFormation, operation: str
) -> None:
    for name in ("team-1", "team-2"):
        env.lifecycle_config(name)
    env.notebook("box-1", "team-1", ssh="ngrok")
    env.notebook("box-2", "team-2", ssh="ngrok")
    env.settle()

    def before(name: str, given: dict[str, Any]) -> None:
        if name == operation:
            env.before_call = lambda name, given: None
            raise NotFoundError("RecordNotFound")

    env.before_call = before
    answer = cloudformation.ask("Delete")
    assert answer["Status"] == "SUCCESS", answer["Reason"]
    assert env.on_start("team-1") == env.on_start("team-2") == OWNERS


def test_what_is_denied_is_reported_once_and_the_rest_is_undone(
    env: NotebookEnv, cloudformation: CloudFormation
) -> None:
    for name in ("team-1", "team-2"):
        env.lifecycle_config(name)
    env.notebook("box-1", "team-1", ssh="ngrok")
    env.notebook("box-2", "team-2", ssh="ngrok")
    env.settle()
    tries: list[str] = []

    def before(name: str, given: dict[str, Any]) -> None:
        if given.get("NotebookInstanceLifecycleConfigName") == "team-1" and name.startswith("update"):
            tries.append(name)
            message = "is not authorized to perform: sagemaker:UpdateNotebookInstanceLifecycleConfig"
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, name)

    env.before_call = before
    answer = cloudformation.ask("Delete")
    assert answer["Status"] == "FAILED"
    assert "team-1: " in answer["Reason"]
    assert "sagemaker:UpdateNotebookInstanceLifecycleConfig" in answer["Reason"]
    assert len(tries) == 1
    assert env.on_start("team-2") == OWNERS


@pytest.mark.slow
def test_what_does_not_fit_the_time_is_logged_and_done_the_next_time(
    env: NotebookEnv, cloudformation: CloudFormation
) -> None:
    for number in range(30):
        env.lifecycle_config(f"team-{number}")
        env.notebook(f"box-{number}", f"team-{number}", ssh="ngrok")
    env.settle()
    answer = cloudformation.ask("Delete", seconds=30)
    assert answer["Status"] == "FAILED"
    assert "Delete the stack again to go on." in answer["Reason"] or len(answer["Reason"]) > 900
    blocks = [env.has_block(f"team-{number}") for number in range(30)]
    assert any(blocks)
    assert not all(blocks)
    assert cloudformation.ask("Delete")["Status"] == "SUCCESS"
    assert all(env.on_start(f"team-{number}") == OWNERS for number in range(30))


def test_an_owner_who_writes_concurrently_is_respected(env: NotebookEnv, cloudformation: CloudFormation) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.settle()

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "update_notebook_instance_lifecycle_config":
            env.before_call = lambda name, given: None
            env.edit("team", (env.on_start("team") or b"") + b"echo a new line\n")
            raise ScriptConflictError("team was changed")

    env.before_call = before
    assert cloudformation.ask("Delete")["Status"] == "SUCCESS"
    assert env.on_start("team") == OWNERS + b"echo a new line\n"


def test_a_script_that_the_service_will_not_clear_does_nothing_and_is_reported(
    env: NotebookEnv, cloudformation: CloudFormation
) -> None:
    env.lifecycle_config("empty", None, on_create=EMPTY_SCRIPT)
    env.notebook("box", "empty", ssh="ngrok")
    env.settle()

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "update_notebook_instance_lifecycle_config" and given["OnStart"] == []:
            raise ClientError({"Error": {"Code": "ValidationException", "Message": "at least 1"}}, name)

    env.before_call = before
    assert "it has one now that does nothing" in cloudformation.ask("Delete")["Reason"]
    assert env.on_start("empty") == SHEBANG


@pytest.mark.parametrize("request_type", ["Delete", "Update", "Create"])
def test_a_bug_is_answered_too(
    cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch, request_type: str
) -> None:
    monkeypatch.delenv("TABLE_NAME")
    answer = cloudformation.ask(request_type)
    assert answer["Status"] == "FAILED"
    assert "KeyError" in answer["Reason"]


@pytest.mark.parametrize("noun", ["bastion", "endpoint"])
def test_rules_of_ours_go_and_others_stay(env: NotebookEnv, cloudformation: CloudFormation, noun: str) -> None:
    ec2 = client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="notebooks", Description="n", VpcId=vpc)["GroupId"]
    for port, stack in ((22, "team-ssh"), (23, "other-ssh"), (24, "")):
        ec2.authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[
                {
                    "IpProtocol": "tcp",
                    "FromPort": port,
                    "ToPort": port,
                    "IpRanges": [{"CidrIp": "10.1.0.0/16", "Description": f"ssh through the {noun}, by stack {stack}"}],
                }
            ],
            TagSpecifications=[
                {"ResourceType": "security-group-rule", "Tags": [{"Key": "notebook-ssh:stack", "Value": stack}]}
            ]
            if stack
            else [],
        )
    assert cloudformation.ask("Delete")["Status"] == "SUCCESS"
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    assert sorted(rule["FromPort"] for rule in rules if not rule["IsEgress"]) == [23, 24]


def test_on_create_nothing_is_asked_of_aws(
    env: NotebookEnv, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function's role is seconds old then, and may be refused (IAM is eventually consistent)."""
    denied(monkeypatch, float("inf"), env)
    assert cloudformation.ask("Create")["Status"] == "SUCCESS"


@pytest.mark.parametrize("request_type", ["Update", "Delete"])
def test_a_role_that_is_refused_for_now_is_given_a_minute(
    env: NotebookEnv, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch, request_type: str
) -> None:
    denied(monkeypatch, env.now + 50, env)
    assert cloudformation.ask(request_type)["Status"] == "SUCCESS"


def test_a_role_that_is_refused_for_longer_is_reported(
    env: NotebookEnv, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = env.now
    denied(monkeypatch, float("inf"), env)
    answer = cloudformation.ask("Update")
    assert answer["Status"] == "FAILED"
    assert "AWS denies UpdateItem" in answer["Reason"]
    assert 60 <= env.now - began < 80


def denied(monkeypatch: pytest.MonkeyPatch, until: float, env: NotebookEnv) -> None:
    """Let every write of the table be refused until then."""
    update = client("dynamodb").update_item

    def refuse(**given: Any) -> Any:
        if env.now < until:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not authorized"}}, "UpdateItem")
        return update(**given)

    monkeypatch.setattr(client("dynamodb"), "update_item", refuse)
