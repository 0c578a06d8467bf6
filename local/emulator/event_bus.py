"""Puts the events of SageMaker and of KMS on the account's bus, as AWS does by itself."""

from __future__ import annotations

import json
from typing import Any

from ministack import app
from ministack.core.responses import request_scope
from ministack.services import eventbridge, kms

from emulator import answers, events, sessions
from emulator.asgi import Answer, Application, Message, Receive, Send, access_key, header, read_body, unread
from emulator.place import ACCOUNT, REGION
from emulator.sagemaker import Happening


class EventBus:
    """tag_events: which events a change of tags causes at first, a value of `events.TagEvents`.

    Whether it causes one of `aws.tag` is the answer to `tag-events`, which may change.
    """

    def __init__(self, tag_events: str) -> None:
        chosen = events.TagEvents(tag_events)
        self._has_trail = chosen in (events.TagEvents.CLOUDTRAIL, events.TagEvents.BOTH)
        emitted = chosen in (events.TagEvents.TAG, events.TagEvents.BOTH)
        answers.give({"tag-events": "emitted" if emitted else "absent"})

    def on_happening(self, happening: Happening) -> None:
        """Put the event of a change in SageMaker, if it causes one."""
        entry = events.entry_of(happening)
        if entry:
            self._put(entry)

    def on_call(self, headers: dict[str, str], body: bytes) -> None:
        """Put CloudTrail's event of a request that changes something."""
        operation = headers.get("x-amz-target", "").partition(".")[2]
        if self._has_trail and not operation.startswith(("Describe", "List")):
            identity = sessions.user_identity(app.extract_access_key_id(headers))
            self._put(events.cloudtrail_entry(operation, json.loads(body), identity))

    def with_trail_of_keys(self, inner: Application) -> Application:
        """The ASGI application `inner`, with CloudTrail's event of each call in events.KEY_CALLS, also one that IAM refuses."""

        async def application(scope: Message, receive: Receive, send: Send) -> None:
            operation = _key_call(scope)
            if not self._has_trail or operation is None:
                await inner(scope, receive, send)
                return
            body, answer = await read_body(receive), Answer()
            await inner(scope, unread(body, receive), answer.heard_by(send))
            with request_scope(ACCOUNT, REGION):
                asked, identity = json.loads(body), sessions.user_identity(access_key(scope))
                key = kms._resolve_key(asked.get("KeyId"))
            self._put(events.key_entry(operation, key["Arn"] if key else None, identity, answer.error))

        return application

    def _put(self, entry: dict[str, Any]) -> None:
        """From the loop that serves requests, whichever thread this is."""

        def put() -> None:
            with request_scope(ACCOUNT, REGION):
                eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)

        app._MAIN_LOOP.call_soon_threadsafe(put)


def _key_call(scope: Message) -> str | None:
    """The operation of a request to KMS that CloudTrail's events tell of here."""
    service, _, operation = header(scope, "x-amz-target").partition(".")
    return operation if service == "TrentService" and operation in events.KEY_CALLS else None


ALL_CALLS = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
"""The state of a rule that takes calls that read, too (EventBridge API Reference, PutRule)."""


def deliver_calls_that_read() -> None:
    """Let CloudTrail's events of calls that read reach the rules that ask for them, and no others.

    ministack takes such a rule for a disabled one.
    """
    dispatch = eventbridge._dispatch_event

    def dispatch_by_state(event: dict[str, Any], view: Any = None) -> None:
        view = view or eventbridge._pattern_event_view(event)
        if not _is_of_a_read(event):
            dispatch(event, view)
        for key, rule in list(eventbridge._rules.items()):
            meant = rule.get("State") == ALL_CALLS and rule.get("EventBusName", "default") == event.get("EventBusName")
            if meant and eventbridge._matches_pattern_view(rule.get("EventPattern"), view, f"rule {key}"):
                for target in eventbridge._targets.get(key, []):
                    eventbridge._invoke_target(target, event, rule, view)

    eventbridge._dispatch_event = dispatch_by_state


def _is_of_a_read(event: dict[str, Any]) -> bool:
    is_call = event.get("DetailType") == events.CALL
    return is_call and json.loads(event.get("Detail") or "{}").get("readOnly") is True
