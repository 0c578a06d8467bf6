"""Waking a stopped notebook: once, and only one whose owner allows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.api_env import ApiEnv, api_env
from support.builders import NOW, a_record, a_report

from notebook_ssh.adapters.clients import client
from notebook_ssh.model.record import NotebookState, Record
from notebook_ssh.model.spec import Mode, NotebookSpec

MAY = NotebookSpec(modes=(Mode.NGROK,), wake=True)


def asleep(**parts: Any) -> Record:
    return a_record(**({"spec": MAY, "state": NotebookState.STOPPED, "started_at": None} | parts))


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        calls: list[str] = []
        monkeypatch.setattr(
            client("sagemaker"), "start_notebook_instance", lambda **given: calls.append(given["NotebookInstanceName"])
        )
        monkeypatch.setattr(env, "started", calls, raising=False)
        yield env


def started(env: ApiEnv) -> list[str]:
    return env.started  # type: ignore[attr-defined, no-any-return]


def test_a_stopped_notebook_is_started_once_however_many_ask(env: ApiEnv) -> None:
    env.knows(asleep(name="Demo"))
    first, second = env.start("Demo"), env.start("Demo")
    assert (first.status, first.json["started"], first.json["status"]) == (202, True, "stopped")
    assert (second.status, second.json["started"]) == (202, False)
    assert started(env) == ["Demo"]


def test_a_start_spells_the_name_as_sagemaker_does(env: ApiEnv) -> None:
    env.knows(asleep(name="Demo"))
    said = env.start("dEMO")
    assert (said.status, said.json["error"], said.json["name"]) == (409, "other-spelling", "Demo")
    assert started(env) == []


def test_a_start_that_aws_denies_is_named(env: ApiEnv) -> None:
    def denied(**given: Any) -> None:
        message = "User: x is not authorized to perform: sagemaker:StartNotebookInstance on resource: y"
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, "StartNotebookInstance")

    env.patch.setattr(client("sagemaker"), "start_notebook_instance", denied)
    env.knows(asleep())
    answer = env.start()
    assert (answer.status, answer.json["error"]) == (500, "not-allowed")
    assert "sagemaker:StartNotebookInstance" in answer.json["message"]
    assert "User: x" not in answer.json["message"]
    record = env.table.record("demo")
    assert record is not None
    assert record.wake_at is None, "the next request may try again"


def test_after_the_next_stop_it_may_be_started_again(env: ApiEnv) -> None:
    env.knows(asleep())
    env.start()
    env.now = NOW + 1000
    env.knows(asleep(state_since=NOW + 900, observed_at=NOW + 900))
    assert env.start().json["started"] is True
    assert started(env) == ["demo", "demo"]


def test_two_at_the_same_time_start_it_once(env: ApiEnv) -> None:
    """In two seconds, that is: in the same one SageMaker is asked twice, and starts it once."""
    env.knows(asleep())
    write = client("dynamodb").update_item

    def race(**given: Any) -> Any:
        env.patch.setattr(client("dynamodb"), "update_item", write)
        env.now += 1
        assert env.start().json["started"] is True
        return write(**given)

    env.patch.setattr(client("dynamodb"), "update_item", race)
    assert env.start().json["started"] is False
    assert started(env) == ["demo"]


def test_a_claim_whose_answer_was_lost_still_starts_it(env: ApiEnv) -> None:
    """botocore sends the claim again, and it meets itself."""
    env.knows(asleep())
    write = client("dynamodb").update_item

    def lost(**given: Any) -> Any:
        write(**given)
        return write(**given)

    env.patch.setattr(client("dynamodb"), "update_item", lost)
    assert env.start().json["started"] is True
    assert started(env) == ["demo"]


@pytest.mark.parametrize(
    ("record", "status", "error"),
    [
        (asleep(spec=NotebookSpec(modes=(Mode.NGROK,))), 403, "not-wakeable"),
        (asleep(spec=NotebookSpec()), 403, "not-wakeable"),
        (asleep(spec=replace(MAY, until=NOW)), 403, "not-wakeable"),
        (asleep(state=NotebookState.STOPPING), 409, "not-stopped"),
        (asleep(state=NotebookState.UPDATING), 409, "not-stopped"),
        (asleep(state=NotebookState.DELETING), 409, "not-stopped"),
        (asleep(name="another"), 404, "unknown-notebook"),
    ],
)
def test_no_other_is_touched(env: ApiEnv, record: Record, status: int, error: str) -> None:
    env.knows(record)
    said = env.start()
    assert (said.status, said.json["error"]) == (status, error)
    assert started(env) == []


@pytest.mark.parametrize("state", [NotebookState.IN_SERVICE, NotebookState.PENDING])
def test_a_running_one_is_left_running(env: ApiEnv, state: NotebookState) -> None:
    env.knows(a_record(spec=MAY, state=state, report=a_report()))
    said = env.start()
    assert (said.status, said.json["started"], said.json["status"]) == (202, False, "connected")
    assert started(env) == []


def refusing(code: str, message: str) -> Any:
    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": message}}, "StartNotebookInstance")

    return refuse


def test_one_that_was_started_concurrently_is_fine(env: ApiEnv) -> None:
    env.knows(asleep())
    message = (
        "Status (Pending) not in ([Stopped, Failed]). Unable to transition to (Pending) for Notebook Instance (arn)"
    )
    env.patch.setattr(client("sagemaker"), "start_notebook_instance", refusing("ValidationException", message))
    said = env.start()
    assert (said.status, said.json["started"]) == (202, False)


def test_a_start_that_was_throttled_can_be_asked_for_again(env: ApiEnv) -> None:
    env.knows(asleep())
    ask = client("sagemaker").start_notebook_instance
    env.patch.setattr(client("sagemaker"), "start_notebook_instance", refusing("ThrottlingException", "Rate exceeded"))
    assert env.start().status == 503
    env.patch.setattr(client("sagemaker"), "start_notebook_instance", ask)
    assert env.start().json["started"] is True
    assert started(env) == ["demo"]


def test_one_that_was_deleted_since_it_was_observed_is_unknown(env: ApiEnv) -> None:
    env.knows(asleep())
    env.patch.setattr(client("sagemaker"), "start_notebook_instance", refusing("ValidationException", "RecordNotFound"))
    said = env.start()
    assert (said.status, said.json["error"]) == (404, "unknown-notebook")
    assert "deleted" in said.json["message"]
