"""Whether the API starts a stopped notebook for a user who connects to it."""

from __future__ import annotations

from enum import StrEnum

from notebook_ssh.model.record import NotebookState, Record

WAKE_AGAIN_SECONDS = 300
"""Seconds without a change of state after which a requested start counts as lost."""


class Wake(StrEnum):
    """What to do for a user who connects to a notebook that may be stopped."""

    START = "start"
    NOT_NEEDED = "not-needed"
    NOT_STOPPED = "not-stopped"
    NOT_ALLOWED = "not-allowed"


def wake(record: Record, now: int) -> Wake:
    """Return whether to start the notebook of `record`. A notebook that is not stopped is never touched."""
    if not record.spec.wake or not record.spec.effective_modes(now):
        return Wake.NOT_ALLOWED
    if record.state not in (NotebookState.STOPPED, NotebookState.FAILED):
        running = record.state in (NotebookState.PENDING, NotebookState.IN_SERVICE)
        return Wake.NOT_NEEDED if running else Wake.NOT_STOPPED
    return Wake.START if may_wake_again(record.wake_at, record.state_since, now) else Wake.NOT_NEEDED


def may_wake_again(wake_at: int | None, stopped_since: int, now: int) -> bool:
    """Return whether another start may be requested: one for each stop, or if the last had no effect for long."""
    return wake_at is None or wake_at < stopped_since or now - wake_at > WAKE_AGAIN_SECONDS
