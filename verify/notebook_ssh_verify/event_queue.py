"""The run's own queue of events: rules of the lab's stack (lab.yaml) deliver into it what EventBridge gets from AWS."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from notebook_ssh_verify.account import Refusal
from notebook_ssh_verify.lab import Lab

OWN_EVENT = "Verification"
"""The detail-type of the event that the run sends itself."""


class Event(NamedTuple):
    """An event of EventBridge. kind: its detail-type."""

    source: str
    kind: str
    resources: tuple[str, ...]
    detail: dict[str, Any]


def await_event(lab: Lab, wanted: Callable[[Event], bool], limit_s: float | None = None) -> Event | None:
    """Return the first event that is wanted; None if none comes within `limit_s` seconds, the lab's limit by default.

    Others are dropped: an experiment waits only for what it has caused itself, and no other waits at that time.
    """

    def receive() -> Event | None:
        # Not by the account's calls, which are evidence: events about others' notebooks come here too.
        queue = lab.account.client("sqs")
        url = lab.outputs["EventQueue"]
        answer = queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        found = None
        for message in answer.get("Messages", []):
            queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            event = _event(message["Body"])
            found = found or (event if event and wanted(event) else None)
        return found

    event = lab.wait(receive, lab.event_limit_s if limit_s is None else limit_s)
    if event:
        lab.account.note(f"event {event.source} “{event.kind}”", json.dumps(event.detail, ensure_ascii=False))
    return event


def is_reached(lab: Lab) -> bool:
    """Return whether an event that the run sends itself arrives, so that the absence of another one means something."""
    entry = {"Source": lab.run.prefix, "DetailType": OWN_EVENT, "Detail": "{}"}
    if isinstance(lab.account.attempt("events", "put_events", Entries=[entry]), Refusal):
        return False
    return await_event(lab, lambda event: event.source == lab.run.prefix, limit_s=60) is not None


def _event(body: str) -> Event | None:
    with suppress(ValueError, KeyError, TypeError):
        told = json.loads(body)
        return Event(told["source"], told["detail-type"], tuple(told["resources"]), dict(told["detail"]))
    return None
