"""One message, record, rule or clock that is wrong stops nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.aws_clients import answer_each, before_each_call
from support.builders import NOW, a_record
from support.notebook_env import OWNERS, NotebookEnv, notebook_env, user_client

from notebook_ssh.adapters import sagemaker
from notebook_ssh.adapters.attributes import from_attribute
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.codec import UnreadableRecordError
from notebook_ssh.adapters.lease import Leases
from notebook_ssh.adapters.table import Table
from notebook_ssh.adapters.write_slots import WriteSlots
from notebook_ssh.controllers import requests
from notebook_ssh.errors import NotFoundError, RetryableError
from notebook_ssh.planning.routes import covered_by_last_sync
from notebook_ssh.reports.tokens import InvalidSecretError, parse_secret
from notebook_ssh.triggers.correlation import correlation_of_messages

DAY_MS = 86_400_000
DEEP = '{"request": ' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch) as env:
        yield env


# ---- messages ----------------------------------------------------------------------------------


def test_deeply_nested_json_is_an_invalid_message_like_any_other(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("box", "team", ssh="ngrok")
    env.messages.insert(0, (env.now, env.now, DEEP))
    assert env.deliver()["batchItemFailures"] == []
    assert env.has_block("team")


def test_deeply_nested_json_has_its_message_s_id() -> None:
    """The bastion's handler reads nothing else of its messages."""
    assert correlation_of_messages([{"messageId": "message-1", "body": DEEP}]) == "message-1"


def test_a_secret_of_deeply_nested_json_is_no_token() -> None:
    with pytest.raises(InvalidSecretError):
        parse_secret(DEEP, "v1")


def test_a_request_that_cannot_be_queued_again_is_delivered_again_alone(env: NotebookEnv) -> None:
    """Another worker has the lease of one configuration, and SQS is throttled."""
    for name in ("one", "two"):
        env.lifecycle_config(name)
        env.notebook(f"box-{name}", name, ssh="ngrok")
    env.settle()
    for name in ("one", "two"):
        env.untag(f"box-{name}")
    env.messages.clear()

    def throttled(operation: str, given: dict[str, Any]) -> None:
        if operation == "send_message_batch" and any("box-one" in entry["MessageBody"] for entry in given["Entries"]):
            raise RetryableError("SendMessageBatch: throttled")

    env.look("box-one")
    env.look("box-two")
    before_each_call(client("sqs"), throttled)
    other = Leases(env.table, lambda: 60_000, lambda: env.now * 1000)
    with other.lease("configuration/one"):
        assert env.deliver()["batchItemFailures"] == [{"itemIdentifier": "0"}]
    assert (env.has_block("one"), env.has_block("two")) == (True, False)


# ---- times that are far ahead ------------------------------------------------------------------


def test_a_write_slot_far_ahead_counts_as_free(env: NotebookEnv) -> None:
    now = env.now * 1000
    slots = WriteSlots(env.table, lambda: 120_000, lambda: now, lambda seconds: None)
    env.table.update("coordination", "sagemaker-writes", set={"next": now + DAY_MS})
    assert slots.reserve() == now
    assert slots.reserve() > now


def test_a_lease_far_ahead_counts_as_free(env: NotebookEnv) -> None:
    now = env.now * 1000
    env.table.update("coordination", "lease/notebook/box", set={"until": now + DAY_MS, "holder": "x"})
    with Leases(env.table, lambda: 120_000, lambda: now).lease("notebook/box"):
        pass


def test_a_record_from_the_future_covers_no_message(env: NotebookEnv) -> None:
    env.notebook("box", ssh="ngrok")
    env.settle()
    env.table.update("notebook", "box", set={"observed_at": env.now + 86_400})
    requests.forget()
    env.calls.clear()
    env.look("box")
    env.deliver()
    assert env.calls["describe_notebook_instance"] == 1


@pytest.mark.parametrize(("ahead", "covered"), [(0, True), (86_400, False)])
def test_a_sync_from_the_future_covers_no_message(ahead: int, *, covered: bool) -> None:
    assert covered_by_last_sync([(NOW - 100) * 1000], NOW + ahead, NOW + 1) is covered


# ---- names -------------------------------------------------------------------------------------


def test_names_that_no_notebook_has_cost_one_list_a_minute_together(env: NotebookEnv) -> None:
    env.notebook("Anas-Box")
    env.messages.clear()
    env.calls.clear()
    for number in range(30):
        env.look(f"no-{number}")
    env.deliver()
    assert env.calls["list_notebook_instances"] == 2, "by part of the first name, and all"
    env.calls.clear()
    sagemaker.forget()
    for number in range(30):
        with pytest.raises(NotFoundError):
            sagemaker.find_lifecycle_config(f"no-{number}", env.now)
    assert env.calls["list_notebook_instance_lifecycle_configs"] == 2


def test_a_notebook_is_found_by_its_name_in_lower_case_where_the_service_compares_case(env: NotebookEnv) -> None:
    """UNCONFIRMED(name-case) whether the filter does: here it finds nothing in another case."""
    user = user_client("sagemaker")

    def exact(given: dict[str, Any]) -> dict[str, Any]:
        lines = user.list_notebook_instances()["NotebookInstances"]
        return {"NotebookInstances": [x for x in lines if given.get("NameContains", "") in x["NotebookInstanceName"]]}

    env.notebook("Anas-Box")
    sagemaker.forget()
    answer_each(client("sagemaker"), "ListNotebookInstances", exact)
    assert sagemaker.find_notebook("anas-box", env.now).name == "Anas-Box"


# ---- records -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1.5", "1E+3"])
def test_a_number_that_is_not_whole_makes_its_record_unreadable_and_no_other(env: NotebookEnv, value: str) -> None:
    env.table.save_observed(a_record(name="good"), None)
    env.table.save_observed(a_record(name="half"), None)
    client("dynamodb").update_item(
        TableName="records",
        Key={"pk": {"S": "notebook"}, "sk": {"S": "half"}},
        UpdateExpression="SET observed_at = :at",
        ExpressionAttributeValues={":at": {"N": value}},
    )
    unreadable: list[UnreadableRecordError] = []
    assert [record.name for record in Table("records").records(on_unreadable=unreadable.append)] == ["good"]
    assert [error.record for error in unreadable] == ["half"]
    assert from_attribute({"N": "-7"}) == -7


def test_a_record_that_cannot_be_read_holds_up_no_other_of_its_batch(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("half", "team", ssh="ngrok")
    env.notebook("good", "team", ssh="ngrok")
    env.settle()
    env.table.update("notebook", "half", set={"spec": {"mode": "tailscale"}})
    env.untag("good")
    env.look("half")
    answer = env.deliver()
    assert len(answer["batchItemFailures"]) == 1
    assert env.on_start("team") != OWNERS, "the unreadable one still requests SSH"
