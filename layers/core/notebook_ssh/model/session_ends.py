"""Which open sessions a notebook ends, and why: decided here from the tags, and never by a notebook itself.

Access that is off for another reason (an invalid tag, a paused stack, a notebook without a record) ends no session: it may
be an error, and a session that is cut does not come back with the access.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import NotebookSpec


class EndReason(StrEnum):
    """Why all sessions of the kinds that the stack ends are over."""

    OFF = "off"
    UNTIL = "until"


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What no longer opens a session. users: of central keys; keys: fingerprints as sshd logs them.

    arns: of callers; one that ends with a slash stands for every session of a role.
    """

    serials: tuple[str, ...] = ()
    arns: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


def end_reason(record: Record, now: int) -> EndReason | None:
    """Return why the notebook's sessions are over at `now` (epoch seconds); None if they are not."""
    spec = record.spec
    if spec == NotebookSpec():
        return EndReason.OFF
    if spec.problem is None and spec.until is not None and now >= spec.until:
        return EndReason.UNTIL
    return None


def withdrawn_users(users: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """Return the users of the tag whose keys the stack has no more. known: all users with keys, from a whole list.

    A user whom the tag does not name is not among them: the tag may be misspelt.
    """
    return tuple(user for user in users if user not in known)
