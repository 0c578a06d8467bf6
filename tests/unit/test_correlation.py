"""Which ids a look goes by in the logs, and what no stranger can make of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.hostile import INJECTIONS

from notebook_ssh.triggers.correlation import FIELD, MAX_IDS, correlation_of, correlation_of_messages


def a_message(body: object, identifier: str = "message-1") -> dict[str, Any]:
    return {"messageId": identifier, "body": body if isinstance(body, str) else json.dumps(body)}


def test_a_message_goes_by_what_it_carries_else_by_its_event_else_by_its_own_id() -> None:
    assert correlation_of_messages([a_message({"request": {}, FIELD: "event-1", "id": "other"})]) == "event-1"
    assert correlation_of_messages([a_message({"id": "event-1", "detail-type": "x"})]) == "event-1"
    assert correlation_of_messages([a_message({"request": {"notebook": "box"}})]) == "message-1"
    assert correlation_of_messages([a_message("{")]) == "message-1"
    assert correlation_of_messages([{"body": "[]"}]) == ""


def test_one_reconcile_answers_every_message_once() -> None:
    messages = [a_message({"id": "a"}), a_message({FIELD: "b a"}), a_message({}, "c")]
    assert correlation_of_messages(messages) == "a b c"


def test_no_more_ids_are_carried_than_are_carried_on() -> None:
    many = [a_message({"id": f"event-{number}"}) for number in range(100)]
    assert correlation_of_messages(many).split(" ") == [f"event-{number}" for number in range(MAX_IDS)]
    carried = " ".join(f"event-{number}" for number in range(100))
    assert correlation_of_messages([a_message({FIELD: carried})]).count("event-") == MAX_IDS


@pytest.mark.parametrize("text", [*INJECTIONS, "", "a b", "x" * 65, "a\nb", 'a","level":"ERROR', None, 7, ["a"]])
def test_what_is_no_id_is_not_taken_for_one(text: object) -> None:
    assert correlation_of(text, "request-1") == "request-1"
    assert correlation_of(text) == ""
    assert correlation_of_messages([a_message({"id": text})]) == "message-1"
    if text != "a b":
        assert correlation_of_messages([a_message({FIELD: text})]) == "message-1"
