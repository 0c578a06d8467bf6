"""Requests to reconcile one notebook or one lifecycle configuration, and the queue messages that carry them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from notebook_ssh.model.record import is_notebook_name
from notebook_ssh.triggers.correlation import FIELD

LONGEST_DELAY = 900
"""Seconds for which a message can be delayed (SQS, `DelaySeconds`)."""

SAVE_DELAY = 5
"""Seconds after its message within which a sender saves the record that the message is about, or sends another one."""

MAX_REASON = 100
"""Characters of a message's reason that are kept."""

_NOT_PRINTABLE = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class ReconcileNotebook:
    """Reconcile a notebook."""

    # As the event spells it; in an ARN it is in lower case, whatever the notebook's name is.
    name: str
    reason: str
    # Epoch seconds before which there is nothing to observe; 0: none.
    at: int = 0
    # An event reports that its tags changed.
    tags_changed: bool = False


@dataclass(frozen=True, slots=True)
class ReconcileLifecycleConfig:
    """Reconcile a lifecycle configuration."""

    # As the event spells it, like a notebook's.
    name: str
    reason: str
    # `LastModifiedTime` of the change that the event reports, in epoch milliseconds; 0: unknown.
    changed: int = 0


ReconcileRequest = ReconcileNotebook | ReconcileLifecycleConfig


def merge(requests: Sequence[ReconcileRequest]) -> ReconcileRequest:
    """Return one request in place of several for the same resource."""
    first = requests[0]
    if isinstance(first, ReconcileNotebook):
        return replace(
            first, tags_changed=any(isinstance(each, ReconcileNotebook) and each.tags_changed for each in requests)
        )
    changes = [request.changed for request in requests if isinstance(request, ReconcileLifecycleConfig)]
    return replace(first, changed=max(changes) if all(changes) else 0)


def delay_until(at: int, now: int) -> int:
    """Return the seconds to delay a message that is for `at`; what is farther away waits in a chain of messages.

    All but the last link are a whole LONGEST_DELAY before `at`: two chains for the same time are delivered together
    and become one.
    """
    ahead = max(0, at - now)
    return ahead if ahead <= LONGEST_DELAY else ahead % LONGEST_DELAY or LONGEST_DELAY


def to_message(request: ReconcileRequest, now: int, correlation_id: str) -> tuple[dict[str, object], int]:
    """Return the message that `from_message` reads as `request`, and the seconds to delay it.

    correlation_id: the ids of the events that caused it (triggers/correlation.py).
    """
    match request:
        case ReconcileNotebook(name, reason, at):
            message: dict[str, object] = {"request": {"notebook": name}, "reason": reason, FIELD: correlation_id}
            return message | ({"at": at} if at else {}), delay_until(at, now)
        case ReconcileLifecycleConfig(name, reason):
            return {"request": {"lifecycle_config": name}, "reason": reason, FIELD: correlation_id}, 0


def from_message(message: Mapping[Any, Any]) -> ReconcileRequest | None:
    """Return the request in a message of this stack, or None if it names neither notebook nor configuration."""
    resource, reason, at = message["request"], log_text(message.get("reason", ""), MAX_REASON), message.get("at", 0)
    match resource:
        case {"notebook": str(name)} if is_notebook_name(name):
            return ReconcileNotebook(name, reason, at if isinstance(at, int) else 0)
        case {"lifecycle_config": str(name)} if is_notebook_name(name):
            return ReconcileLifecycleConfig(name, reason)
    return None


def log_text(text: object, limit: int) -> str:
    """Return untrusted `text` as it may appear in a log: printable ASCII, at most `limit` characters."""
    return _NOT_PRINTABLE.sub("?", str(text)[:limit])
