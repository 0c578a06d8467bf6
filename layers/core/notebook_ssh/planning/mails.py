"""Decide which changes of status the admin is mailed, and write the mails.

A notebook, or a user who tags one, can change a status as often as they like: the mails about it are limited for each
notebook and for the stack, and what is left out is counted. No word of a mail is a notebook's or a tag's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from notebook_ssh.model.record import Mails, Record
from notebook_ssh.model.status import Code, Status, status_key

NOTEBOOK_INTERVAL = 3_600
"""Seconds between two mails about one notebook."""

STACK_LIMIT = 10
"""Mails about single notebooks in one period."""
STACK_PERIOD = 3_600
"""Seconds of a period, which begins with its first mail."""

DIGEST_INTERVAL = 86_400
"""Seconds between two digests."""
DIGEST_NAMES = 50
"""Notebooks that a digest names."""

MAILED = frozenset({Code.ERROR, Code.INVALID_TAG})
"""Statuses of which the admin is mailed."""


class MailPlan(NamedTuple):
    """What is due about one notebook."""

    # The text to mail if the stack's limit allows it, or None.
    text: str | None
    # What to save: after the mail was sent; when the stack's limit was reached; when nothing was sent.
    sent: Mails
    over_limit: Mails
    held: Mails


def plan_mail(record: Record, status: Status, stack: str, now: int, *, changed: bool) -> MailPlan | None:
    """Return what to do about the status of `record` at `now` (epoch seconds); None: nothing.

    changed: the status has changed since this was last asked.
    """
    before = record.mails or Mails()
    if status.code not in MAILED or not (changed or _waits(before)):
        return None
    held = before._replace(held=before.held + changed)
    text = None
    if not before.sent_at or now >= before.sent_at + NOTEBOOK_INTERVAL:
        text = _text(record.name, status, stack, held.held)
    elif not changed:
        return None
    return MailPlan(text, sent=Mails(sent_at=now), over_limit=held._replace(digest_at=now), held=held)


def is_mail_due(record: Record, status: Status, now: int) -> bool:
    """Return whether a change that was held can be mailed at `now`: its notebook's interval is over."""
    mails = record.mails
    due = mails is not None and _waits(mails) and now >= mails.sent_at + NOTEBOOK_INTERVAL
    return due and status.code in MAILED


def has_digest(records: Iterable[Record], last_digest: int) -> bool:
    """Return whether a change has been held for the digest since the last one (epoch seconds)."""
    return any(_in_digest(record, last_digest) for record in records)


def digest(records: Iterable[Record], stack: str, last_digest: int) -> str:
    """Return the mail about every notebook with a change that the stack's limit held back."""
    names = [record.name for record in records if _in_digest(record, last_digest)]
    more = f" and {len(names) - DIGEST_NAMES} more" if len(names) > DIGEST_NAMES else ""
    which = "1 notebook" if len(names) == 1 else f"{len(names)} notebooks"
    return (
        f"notebook-ssh ({stack}): besides those that were mailed, {which} needed attention: "
        f"{', '.join(names[:DIGEST_NAMES])}{more}. See: notebook-ssh list"
    )


def _waits(mails: Mails) -> bool:
    return mails.held > 0 and not mails.digest_at


def _in_digest(record: Record, last_digest: int) -> bool:
    return record.mails is not None and record.mails.digest_at > last_digest


def _text(name: str, status: Status, stack: str, changes: int) -> str:
    code = status.problem.code if status.problem else status_key(status)
    text = f"notebook-ssh ({stack}): {name} needs attention: {code}. See: notebook-ssh doctor {name}"
    return text if changes <= 1 else f"{text}. Changes since the last mail about it: {changes}"
