"""Which event makes us look at what, over every stored event."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from notebook_ssh.triggers.events import Ignore, parse_event
from notebook_ssh.triggers.requests import (
    ReconcileLifecycleConfig,
    ReconcileNotebook,
    ReconcileRequest,
    merge,
    to_message,
)

EVENTS = Path(__file__).parents[2] / "events"
US = "notebook-ssh-ReconcileNotebook"
BOX, FROM_ARN = "Marias-Notebook", "marias-notebook"

NOTEBOOK, NOTEBOOK_BY_ARN = [(ReconcileNotebook, BOX)], [(ReconcileNotebook, FROM_ARN)]
NOTHING = [(Ignore, "")]

MEANING: dict[str, Sequence[tuple[type, str]]] = {
    "notebook-in-service": NOTEBOOK,
    "notebook-stopped": NOTEBOOK,
    "notebook-failed": NOTEBOOK,
    "notebook-untagged": NOTEBOOK,
    "configuration-changed": [(ReconcileLifecycleConfig, "gpu-setup")],
    "tag-set": NOTEBOOK_BY_ARN,
    "tag-removed": NOTEBOOK_BY_ARN,
    "tag-status-written": NOTHING,
    "tag-of-others": NOTHING,
    "tag-on-endpoint": NOTHING,
    "call-add-tags": NOTEBOOK_BY_ARN,
    "call-add-tags-by-user": NOTEBOOK_BY_ARN,
    "call-add-tags-to-endpoint": NOTHING,
    "call-delete-tags": NOTEBOOK_BY_ARN,
    "call-tag-resources": NOTEBOOK_BY_ARN,
    "call-untag-resources": NOTEBOOK_BY_ARN,
    "call-create-notebook-instance": NOTEBOOK,
    "call-update-notebook-instance": NOTEBOOK,
    "call-delete-notebook-instance": NOTEBOOK,
    "call-update-configuration": [(ReconcileLifecycleConfig, "gpu-setup")],
    "call-of-our-own": NOTHING,
    "schedule": NOTHING,
}


def stored(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def read(event: object) -> tuple[ReconcileRequest | Ignore, ...]:
    return parse_event(event, tag_key="ssh", caller=US)


def names(signals: tuple[ReconcileRequest | Ignore, ...]) -> list[tuple[type, str]]:
    return [(type(signal), getattr(signal, "name", "")) for signal in signals]


def test_every_stored_event_has_its_meaning() -> None:
    assert {path.stem: names(read(json.loads(path.read_text()))) for path in EVENTS.glob("*.json")} == MEANING


@pytest.mark.parametrize("status", ["Pending", "InService", "Stopping", "Stopped", "Failed", "Deleting", "Updating"])
def test_every_status_is_reconciled(status: str) -> None:
    event = stored("notebook-stopped")
    event["detail"]["NotebookInstanceStatus"] = status
    assert read(event) == (ReconcileNotebook(BOX, f"state {status}"),)


def test_name_arn_and_status_are_enough() -> None:
    event = stored("notebook-stopped")
    certain = ("NotebookInstanceArn", "NotebookInstanceName", "NotebookInstanceStatus")
    event["detail"] = {key: event["detail"][key] for key in certain}
    assert names(read(event)) == NOTEBOOK


def test_a_configurations_event_says_when_it_changed() -> None:
    assert read(stored("configuration-changed")) == (
        ReconcileLifecycleConfig("gpu-setup", "configuration changed", changed=1_779_823_277_348),
    )


@pytest.mark.parametrize("time", [None, "1779823277348", True, 1.779823277348e12, [], {}])
def test_a_time_of_another_shape_is_no_time(time: object) -> None:
    event = stored("configuration-changed")
    event["detail"]["LastModifiedTime"] = time
    assert read(event) == (ReconcileLifecycleConfig("gpu-setup", "configuration changed"),)


@pytest.mark.parametrize(("changes", "last"), [([5], 5), ([5, 9, 7], 9), ([5, 0, 7], 0), ([0], 0)])
def test_several_messages_of_a_configuration_are_one_at_its_last_change_if_all_have_a_time(
    changes: list[int], last: int
) -> None:
    looks = [ReconcileLifecycleConfig("Team", "an event", changed) for changed in changes]
    assert merge(looks) == ReconcileLifecycleConfig("Team", "an event", last)


def test_a_call_that_failed_is_no_news() -> None:
    event = stored("call-add-tags")
    event["detail"]["errorCode"] = "AccessDenied"
    assert names(read(event)) == NOTHING


def test_a_call_for_several_notebooks_is_news_about_each() -> None:
    event = stored("call-tag-resources")
    arn = event["detail"]["requestParameters"]["resourceARNList"][0]
    event["detail"]["requestParameters"]["resourceARNList"] = [arn, arn.replace("marias", "anas"), "arn:aws:s3:::x"]
    assert names(read(event)) == [(ReconcileNotebook, FROM_ARN), (ReconcileNotebook, "anas-notebook")]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("call-add-tags", {"tags": [{"key": "ssh-status", "value": "connected"}]}),
        ("call-add-tags", {"tags": [{"key": "Env", "value": "research"}]}),
        ("call-delete-tags", {"tagKeys": ["ssh-address"]}),
        ("call-tag-resources", {"tags": {"sshd": "yes"}}),
        ("call-untag-resources", {"tagKeys": ["Env"]}),
    ],
)
def test_calls_about_other_tags_are_no_news(name: str, parameters: dict[str, Any]) -> None:
    event = stored(name)
    event["detail"]["requestParameters"] |= parameters
    assert names(read(event)) == NOTHING


@pytest.mark.parametrize("name", ["call-add-tags", "call-delete-tags", "call-tag-resources", "call-untag-resources"])
def test_either_spelling_of_the_parameters_is_read(name: str) -> None:
    event = stored(name)
    given = event["detail"]["requestParameters"]
    event["detail"]["requestParameters"] = {key[:1].upper() + key[1:]: value for key, value in given.items()}
    assert names(read(event)) == NOTEBOOK_BY_ARN


@pytest.mark.parametrize(
    "look_at", [{"bucket": "x"}, {"notebook": "../x"}, {"notebook": ""}, [], None, "bastion", "fleet"]
)
def test_a_message_that_names_nothing_of_ours_is_ignored(look_at: object) -> None:
    assert names(read({"request": look_at, "reason": "a mistake"})) == NOTHING


def test_our_own_call_is_known_by_its_session() -> None:
    event = stored("call-of-our-own")
    event["detail"]["requestParameters"]["tags"] = [{"key": "ssh", "value": "off"}]
    assert names(read(event)) == NOTHING
    assert names(parse_event(event, tag_key="ssh", caller="another")) == NOTEBOOK_BY_ARN


def test_another_tag_key_is_another_stacks_business() -> None:
    assert names(parse_event(stored("tag-set"), tag_key="tunnel", caller=US)) == [(Ignore, "")]


@pytest.mark.parametrize(
    "change",
    [{"changed-tag-keys": None}, {"changed-tag-keys": "ssh"}, {"changed-tag-keys": []}],
    ids=["missing", "not a list", "empty"],
)
def test_without_the_changed_tags_the_notebook_is_reconciled(change: dict[str, Any]) -> None:
    event = stored("tag-of-others")
    event["detail"] |= change
    assert names(read(event)) == [(ReconcileNotebook, FROM_ARN)]


def test_a_state_event_without_a_name_is_read_from_its_arn() -> None:
    event = stored("notebook-stopped")
    del event["detail"]["NotebookInstanceName"]
    assert names(read(event)) == [(ReconcileNotebook, FROM_ARN)]


@pytest.mark.parametrize(
    "look",
    [
        ReconcileNotebook("Anas-Box", "status"),
        ReconcileNotebook("Anas-Box", "its time ends", at=1_900_000_000),
        ReconcileLifecycleConfig("Team", "gone"),
    ],
)
def test_messages_to_ourselves_come_back_as_they_were(look: ReconcileRequest) -> None:
    message, _ = to_message(look, now=1_800_000_000, correlation_id="event-1")
    assert read(json.loads(json.dumps(message))) == (look,)


def test_a_message_is_held_back_until_there_is_something_to_see() -> None:
    assert to_message(ReconcileNotebook("box", "its time ends", at=160), 100, "event-1")[1] == 60
    assert to_message(ReconcileNotebook("box", "its time ends", at=90), 100, "event-1")[1] == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from(sorted(MEANING)), st.data())
def test_no_event_is_an_error(anything: object, name: str, data: st.DataObject) -> None:
    """Any field of any event may be missing or be something else."""
    assert read(anything)
    event = stored(name)
    field = data.draw(st.sampled_from(sorted(event)))
    event[field] = anything
    assert read(event)
    event = stored(name)
    if isinstance(event.get("detail"), dict) and event["detail"]:
        event["detail"][data.draw(st.sampled_from(sorted(event["detail"])))] = anything
        assert read(event)
