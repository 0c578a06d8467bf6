"""Puts SageMaker's events on the account's bus, as AWS does by itself."""

from __future__ import annotations

import json
from typing import Any

from ministack import app
from ministack.core.responses import request_scope
from ministack.services import eventbridge

from emulator import answers, events, sessions
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

    def _put(self, entry: dict[str, Any]) -> None:
        """From the loop that serves requests, whichever thread this is."""

        def put() -> None:
            with request_scope(ACCOUNT, REGION):
                eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)

        app._MAIN_LOOP.call_soon_threadsafe(put)
