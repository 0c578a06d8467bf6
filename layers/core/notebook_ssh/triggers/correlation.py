"""The ids by which everything that comes of one signal is found in the logs (docs/operations.md, "Follow one change").

What a signal causes to be queued carries the signal's ids. A message of an older version of the stack carries none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

FIELD = "correlation_id"
"""Of a log line and of our own messages: ids separated by spaces, of one signal or of several that one look answers."""

SCRIPT_CACHE_SIZE = 10
"""Ids that are carried on: as many as the bastion's queue hands over at once."""

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def correlation_of(*candidates: object) -> str:
    """The first candidate that can be an id, whoever wrote it; empty when none can."""
    return next((text for text in candidates if isinstance(text, str) and _ID.fullmatch(text)), "")


def correlation_of_messages(messages: Iterable[Mapping[str, Any]]) -> str:
    """The ids of what the SQS messages tell: those they carry, else the id of the event in them, else their own."""
    ids = (each for message in messages for each in _ids(message))
    return " ".join(list(dict.fromkeys(ids))[:SCRIPT_CACHE_SIZE])


def _ids(message: Mapping[str, Any]) -> list[str]:
    try:
        body = json.loads(message["body"])
    except ValueError:
        body = None
    body = body if isinstance(body, Mapping) else {}
    carried = body.get(FIELD)
    ids = carried.split(" ", SCRIPT_CACHE_SIZE)[:SCRIPT_CACHE_SIZE] if isinstance(carried, str) else []
    if ids and all(map(_ID.fullmatch, ids)):
        return ids
    own = correlation_of(body.get("id"), message.get("messageId"))
    return [own] if own else []
