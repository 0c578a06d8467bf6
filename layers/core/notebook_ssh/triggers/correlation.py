"""The ids by which the effects of one event are found in the logs (docs/operations.md, "Follow one change").

Every message that an event causes carries the event's ids. A message of an older version of the stack carries none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from notebook_ssh.model.text import parse_json

FIELD = "correlation_id"
"""Key in log lines and in this stack's messages: ids separated by spaces, one for each event that a run handles."""

MAX_IDS = 10
"""Ids that a message carries: as many as the bastion's queue delivers in one batch."""

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def correlation_of(*candidates: object) -> str:
    """Return the first candidate that is a valid id, of any origin; empty if none is."""
    return next((text for text in candidates if isinstance(text, str) and _ID.fullmatch(text)), "")


def correlation_of_messages(messages: Iterable[Mapping[str, Any]]) -> str:
    """Return the ids of SQS messages: those they carry, else the id of the event in them, else their own."""
    ids = (each for message in messages for each in _ids(message))
    return " ".join(list(dict.fromkeys(ids))[:MAX_IDS])


def _ids(message: Mapping[str, Any]) -> list[str]:
    body = parse_json(message["body"])
    body = body if isinstance(body, Mapping) else {}
    carried = body.get(FIELD)
    ids = carried.split(" ", MAX_IDS)[:MAX_IDS] if isinstance(carried, str) else []
    if ids and all(map(_ID.fullmatch, ids)):
        return ids
    own = correlation_of(body.get("id"), message.get("messageId"))
    return [own] if own else []
