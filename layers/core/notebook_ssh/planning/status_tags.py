"""The tags in which a notebook shows its status, and whether its status has changed since it was published."""

from __future__ import annotations

from collections.abc import Mapping

from notebook_ssh.model.assessment import address_of, assess
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import NotebookSpec, status_keys
from notebook_ssh.model.status import Code, Status, status_from, status_key_of, status_of

STATUS_TAG_INTERVAL = 60
"""Seconds between two writes of one notebook's status tags, however often its status changes."""


def desired_status_tags(record: Record | None, now: int, sync_seconds: int, tag_key: str) -> dict[str, str]:
    """Return the desired tags: status and, while connected, address; none if SSH is off."""
    if record is None or record.spec == NotebookSpec():
        return {}
    status_tag, address_tag = status_keys(tag_key)
    status = status_of(record, now, sync_seconds, tag_key)
    failed = status.code is Code.ERROR and status.problem is not None
    shown = {status_tag: f"{status.code}: {status.problem.code}" if failed and status.problem else str(status.code)}
    address = address_of(record, now, sync_seconds)
    return shown | {address_tag: f"{address[0]}:{address[1]}"} if address else shown


def current_status_tags(tags: Mapping[str, str], tag_key: str) -> dict[str, str]:
    """Return the status tags among `tags`."""
    return {key: tags[key] for key in status_keys(tag_key) if key in tags}


def status_change(record: Record, now: int, sync_seconds: int, tag_key: str) -> Status | None:
    """Return the status if it differs from the one last published, else None. Before the first one, SSH was off."""
    found = assess(record, now, sync_seconds)
    return None if status_key_of(found) == (record.notified_status or Code.OFF) else status_from(found, tag_key)
