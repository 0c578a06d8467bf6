"""How many mails the stack has sent, in the item `coordination`, `mails`.

Its attributes: `since` (when the present period began, epoch seconds), `sent` (mails in it), and `digest_at` (when the
last digest was sent).
"""

from __future__ import annotations

from notebook_ssh.adapters.table import COORDINATION, Conflict, Increment, Table

MAILS = "mails"


def claim_mail(table: Table, now: int, *, limit: int, period: int) -> bool:
    """Count one more mail at `now` (epoch seconds). False when `limit` were counted in the present period.

    period: seconds that one lasts. It begins with its first mail.
    """
    for _ in range(2):  # again when another worker began the period
        within = table.update(
            COORDINATION,
            MAILS,
            set={"sent": Increment(1)},
            condition="#since > :ended AND #sent < :limit",
            values={"ended": now - period, "limit": limit},
        )
        if not isinstance(within, Conflict):
            return True
        if within.item and within.item.get("since", 0) > now - period:
            return False
        begun = table.update(
            COORDINATION,
            MAILS,
            set={"since": now, "sent": 1},
            condition="attribute_not_exists(#since) OR #since <= :ended",
            values={"ended": now - period},
        )
        if not isinstance(begun, Conflict):
            return True
    return False


def last_digest(table: Table) -> int:
    """Return when the last digest was sent (epoch seconds), 0 before the first."""
    item = table.item(COORDINATION, MAILS, consistent=True)
    return int(item.get("digest_at", 0)) if item else 0


def save_digest(table: Table, at: int) -> None:
    """Record when a digest was sent (epoch seconds)."""
    table.update(COORDINATION, MAILS, set={"digest_at": at})
