"""The end of a stack, through the real custom resource: everything is given back, and CloudFormation is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.builders import a_lambda_context
from support.notebook_world import FALLBACK, OWNERS, World, a_world

from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.sagemaker import ScriptConflictError
from notebook_ssh.errors import NotFoundError, RetryableError
from notebook_ssh.model.managed_block import SHEBANG
from notebook_ssh.planning.script import EMPTY_SCRIPT
from uninstall import handler

pytestmark = pytest.mark.slow  # each makes many calls


class Bench:
    """A world, and what CloudFormation hears."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.answers: list[dict[str, Any]] = []
        patch.setattr("urllib.request.urlopen", self._heard)

    def _sleep(self, seconds: float) -> None:
        self.world.now += int(seconds) + 1

    def _heard(self, request: Any, timeout: int) -> Any:
        self.answers.append(json.loads(request.data) | {"url": request.full_url, "method": request.method})
        return nullcontext()

    def ask(self, request: str, seconds: int = 600) -> dict[str, Any]:
        deadline = self.world.now + seconds
        context = a_lambda_context(
            get_remaining_time_in_millis=lambda: (deadline - self.world.now) * 1000, log_stream_name="stream"
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
            clock=lambda: self.world.now,
            sleep=self._sleep,
            policy=lambda settings: self.world.policy(),
        )
        return self.answers[-1]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with a_world(monkeypatch, STATUS_TAGS="true") as world:
        yield world


@pytest.fixture
def bench(world: World, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(world, monkeypatch)


def test_everything_is_as_it_was(world: World, bench: Bench) -> None:
    world.lifecycle_config("team", OWNERS, on_create=EMPTY_SCRIPT)
    world.lifecycle_config("empty", None, on_create=EMPTY_SCRIPT)
    world.notebook("shared-1", "team", ssh="ngrok")
    world.notebook("shared-2", "team", ssh="ngrok", Env="research")
    world.notebook("odd", "empty", ssh="ngrok")
    world.notebook("alone", running=False, ssh="ngrok")
    world.settle()
    assert world.attached_config("alone") == FALLBACK
    answer = bench.ask("Delete")
    assert (answer["Status"], answer["Reason"]) == ("SUCCESS", "Everything is as it was. (log stream stream)")
    assert (answer["RequestId"], answer["StackId"], answer["method"]) == ("request-id", "stack-id", "PUT")
    assert world.scripts("team") == (EMPTY_SCRIPT, OWNERS)
    assert world.scripts("empty") == (EMPTY_SCRIPT, None)
    assert world.attached_config("alone") is None
    assert world.lifecycle_configs() == {"team", "empty"}
    assert world.tags("shared-2") == {"ssh": "ngrok", "Env": "research"}
    assert list(world.table.records()) == []
    assert list(world.table.items("lifecycle_config")) == []
    assert all(copy["expires"] > world.now for copy in world.table.items("backup#team"))


def test_afterwards_nobody_puts_anything_back(world: World, bench: Bench) -> None:
    world.lifecycle_config("team")
    world.notebook("box", "team", ssh="ngrok")
    world.settle()
    bench.ask("Delete")
    world.look("box")
    world.settle()
    assert world.on_start("team") == OWNERS
    assert world.table.record("box") is None
    bench.ask("Update")
    world.look("box")
    world.settle()
    assert world.has_block("team")


def test_a_worker_under_way_gets_no_turn_any_more(world: World, bench: Bench) -> None:
    world.lifecycle_config("team")
    world.notebook("box", "team", ssh="ngrok")
    closing = [True]

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "list_tags" and closing:
            closing.clear()
            bench.ask("Delete")  # after the batch began, and before its write

    world.before_call = before
    world.deliver()
    assert world.on_start("team") == OWNERS


def test_a_running_notebook_keeps_a_script_that_does_nothing_and_the_answer_says_so(world: World, bench: Bench) -> None:
    world.notebook("alone", running=False, ssh="ngrok")
    world.settle()
    world.start("alone")
    world.settle()
    answer = bench.ask("Delete")
    assert answer["Status"] == "SUCCESS"
    assert "alone is InService and keeps the configuration better-sagemaker" in answer["Reason"]
    assert world.scripts(FALLBACK) == (EMPTY_SCRIPT, EMPTY_SCRIPT)


def test_a_record_of_a_newer_version_is_kept_and_named(world: World, bench: Bench) -> None:
    world.lifecycle_config("team")
    world.notebook("box", "team", ssh="ngrok")
    world.notebook("newer", "team", running=False, ssh="ngrok")
    world.settle()
    world.table.update("notebook", "newer", set={"spec": {"mode": "tailscale"}})
    answered = bench.ask("Delete")
    assert answered["Status"] == "FAILED"
    assert "the record of newer cannot be read: its attribute spec.mode" in answered["Reason"]
    assert [item["sk"] for item in world.table.items("notebook")] == ["newer"]
    assert world.on_start("team") == OWNERS


def test_a_damaged_block_is_left_and_told(world: World, bench: Bench) -> None:
    world.lifecycle_config("team")
    world.notebook("box", "team", ssh="ngrok")
    world.settle()
    damaged = (world.on_start("team") or b"") + b"# <<< notebook-ssh stack=team-ssh <<<\n"
    world.edit("team", damaged)
    answer = bench.ask("Delete")
    assert answer["Status"] == "SUCCESS"
    assert "team: The on-start script is left as it is" in answer["Reason"]
    assert world.on_start("team") == damaged


@pytest.mark.parametrize(
    "operation", ["describe_notebook_instance_lifecycle_config", "list_notebook_instances", "list_tags"]
)
def test_what_fails_for_now_is_tried_again(world: World, bench: Bench, operation: str) -> None:
    world.lifecycle_config("team")
    world.notebook("box", "team", ssh="ngrok")
    world.settle()
    left = [3]

    def before(name: str, given: dict[str, Any]) -> None:
        if name == operation and left[0]:
            left[0] -= 1
            raise RetryableError("Rate exceeded")

    world.before_call = before
    assert bench.ask("Delete")["Status"] == "SUCCESS"
    assert world.on_start("team") == OWNERS


def test_damage_that_is_found_at_the_second_reading_is_reported(world: World, bench: Bench) -> None:
    world.lifecycle_config("team")
    world.notebook("box", "team", ssh="ngrok")
    world.settle()
    damaged = (world.on_start("team") or b"") + b"# <<< notebook-ssh stack=team-ssh <<<\n"
    reads: list[str] = []

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "describe_notebook_instance_lifecycle_config":
            reads.append(name)
            if len(reads) == 2:
                world.before_call = lambda name, given: None
                world.edit("team", damaged)

    world.before_call = before
    assert "team: The on-start script is left as it is" in bench.ask("Delete")["Reason"]
    assert world.on_start("team") == damaged


@pytest.mark.parametrize("operation", ["update_notebook_instance_lifecycle_config", "delete_tags"])
def test_what_is_deleted_meanwhile_ends_nothing(world: World, bench: Bench, operation: str) -> None:
    for name in ("team-1", "team-2"):
        world.lifecycle_config(name)
    world.notebook("box-1", "team-1", ssh="ngrok")
    world.notebook("box-2", "team-2", ssh="ngrok")
    world.settle()

    def before(name: str, given: dict[str, Any]) -> None:
        if name == operation:
            world.before_call = lambda name, given: None
            raise NotFoundError("RecordNotFound")

    world.before_call = before
    answer = bench.ask("Delete")
    assert answer["Status"] == "SUCCESS", answer["Reason"]
    assert world.on_start("team-1") == world.on_start("team-2") == OWNERS


def test_what_is_denied_is_reported_once_and_the_rest_is_undone(world: World, bench: Bench) -> None:
    for name in ("team-1", "team-2"):
        world.lifecycle_config(name)
    world.notebook("box-1", "team-1", ssh="ngrok")
    world.notebook("box-2", "team-2", ssh="ngrok")
    world.settle()
    tries: list[str] = []

    def before(name: str, given: dict[str, Any]) -> None:
        if given.get("NotebookInstanceLifecycleConfigName") == "team-1" and name.startswith("update"):
            tries.append(name)
            message = "is not authorized to perform: sagemaker:UpdateNotebookInstanceLifecycleConfig"
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, name)

    world.before_call = before
    answer = bench.ask("Delete")
    assert answer["Status"] == "FAILED"
    assert "team-1: " in answer["Reason"]
    assert "sagemaker:UpdateNotebookInstanceLifecycleConfig" in answer["Reason"]
    assert len(tries) == 1
    assert world.on_start("team-2") == OWNERS


@pytest.mark.slow
def test_what_does_not_fit_the_time_is_told_and_done_the_next_time(world: World, bench: Bench) -> None:
    for number in range(30):
        world.lifecycle_config(f"team-{number}")
        world.notebook(f"box-{number}", f"team-{number}", ssh="ngrok")
    world.settle()
    answer = bench.ask("Delete", seconds=30)
    assert answer["Status"] == "FAILED"
    assert "Delete the stack again to go on." in answer["Reason"] or len(answer["Reason"]) > 900
    blocks = [world.has_block(f"team-{number}") for number in range(30)]
    assert any(blocks)
    assert not all(blocks)
    assert bench.ask("Delete")["Status"] == "SUCCESS"
    assert all(world.on_start(f"team-{number}") == OWNERS for number in range(30))


def test_an_owner_who_writes_meanwhile_is_heard(world: World, bench: Bench) -> None:
    world.lifecycle_config("team")
    world.notebook("box", "team", ssh="ngrok")
    world.settle()

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "update_notebook_instance_lifecycle_config":
            world.before_call = lambda name, given: None
            world.edit("team", (world.on_start("team") or b"") + b"echo a new line\n")
            raise ScriptConflictError("team was changed")

    world.before_call = before
    assert bench.ask("Delete")["Status"] == "SUCCESS"
    assert world.on_start("team") == OWNERS + b"echo a new line\n"


def test_a_script_that_the_service_will_not_clear_does_nothing_and_is_told(world: World, bench: Bench) -> None:
    world.lifecycle_config("empty", None, on_create=EMPTY_SCRIPT)
    world.notebook("box", "empty", ssh="ngrok")
    world.settle()

    def before(name: str, given: dict[str, Any]) -> None:
        if name == "update_notebook_instance_lifecycle_config" and given["OnStart"] == []:
            raise ClientError({"Error": {"Code": "ValidationException", "Message": "at least 1"}}, name)

    world.before_call = before
    assert "it has one now that does nothing" in bench.ask("Delete")["Reason"]
    assert world.on_start("empty") == SHEBANG


@pytest.mark.parametrize("request_type", ["Delete", "Update", "Create"])
def test_a_bug_is_answered_too(bench: Bench, monkeypatch: pytest.MonkeyPatch, request_type: str) -> None:
    monkeypatch.delenv("TABLE_NAME")
    answer = bench.ask(request_type)
    assert answer["Status"] == "FAILED"
    assert "KeyError" in answer["Reason"]


def test_rules_of_ours_go_and_others_stay(world: World, bench: Bench) -> None:
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
                    "IpRanges": [
                        {"CidrIp": "10.1.0.0/16", "Description": f"ssh through the bastion, by stack {stack}"}
                    ],
                }
            ],
            TagSpecifications=[
                {"ResourceType": "security-group-rule", "Tags": [{"Key": "notebook-ssh:stack", "Value": stack}]}
            ]
            if stack
            else [],
        )
    assert bench.ask("Delete")["Status"] == "SUCCESS"
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    assert sorted(rule["FromPort"] for rule in rules if not rule["IsEgress"]) == [23, 24]


def test_on_create_nothing_is_asked_of_aws(world: World, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function's role is seconds old then, and may be refused (IAM is eventually consistent)."""
    denied(monkeypatch, float("inf"), world)
    assert bench.ask("Create")["Status"] == "SUCCESS"


@pytest.mark.parametrize("request_type", ["Update", "Delete"])
def test_a_role_that_is_refused_for_now_is_given_a_minute(
    world: World, bench: Bench, monkeypatch: pytest.MonkeyPatch, request_type: str
) -> None:
    denied(monkeypatch, world.now + 50, world)
    assert bench.ask(request_type)["Status"] == "SUCCESS"


def test_a_role_that_is_refused_for_longer_is_told(world: World, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    began = world.now
    denied(monkeypatch, float("inf"), world)
    answer = bench.ask("Update")
    assert answer["Status"] == "FAILED"
    assert "AWS denies UpdateItem" in answer["Reason"]
    assert 60 <= world.now - began < 80


def denied(monkeypatch: pytest.MonkeyPatch, until: float, world: World) -> None:
    """Let every write of the table be refused until then."""
    update = client("dynamodb").update_item

    def refuse(**given: Any) -> Any:
        if world.now < until:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not authorized"}}, "UpdateItem")
        return update(**given)

    monkeypatch.setattr(client("dynamodb"), "update_item", refuse)
