"""What is recorded of the block that the stack has now, in the item `coordination`, `deployment`.

Its attributes: `block` (the block's reference), `since` (epoch seconds), `workers` (fingerprints of the workers that the
table has, the latest last), which sweeps write, and `next_upgrade` (epoch milliseconds), which every upgrade of a script
reserves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from notebook_ssh.adapters.table import COORDINATION, Conflict, Table
from notebook_ssh.planning.observation import Deployment

DEPLOYMENT = "deployment"


def decode(item: Mapping[str, Any] | None) -> Deployment:
    """Return the deployment in an item of plain values; None: there is none yet."""
    item = item or {}
    return Deployment(
        block=item.get("block", ""),
        since=item.get("since", 0),
        workers=tuple(item.get("workers", ())),
        next_upgrade=item.get("next_upgrade", 0),
    )


def read(table: Table) -> Deployment:
    """Return what is recorded."""
    return decode(table.item(COORDINATION, DEPLOYMENT, consistent=True))


def save(table: Table, deployment: Deployment, before: Deployment) -> bool:
    """Record the block that the stack has now. False when another sweep has recorded one since `before` was read."""
    outcome = table.update(
        COORDINATION,
        DEPLOYMENT,
        set={"block": deployment.block, "since": deployment.since, "workers": list(deployment.workers)},
        condition="#block = :before" if before.block else "attribute_not_exists(#block)",
        values={"before": before.block} if before.block else {},
    )
    return not isinstance(outcome, Conflict)


def reserve_upgrade(table: Table, now: int, interval: int) -> int | None:
    """Reserve the time from `now` on, for `interval` (both in milliseconds; `now` since the epoch), for one upgrade.

    Returns None, or, with nothing reserved, the time from which on it is free.
    """
    outcome = table.update(
        COORDINATION,
        DEPLOYMENT,
        set={"next_upgrade": now + interval},
        # The last alternative: one that is farther ahead than any upgrade could have set it counts as free.
        condition="attribute_not_exists(#next_upgrade) OR #next_upgrade <= :now OR #next_upgrade > :farthest",
        values={"now": now, "farthest": now + 2 * interval},
    )
    return int((outcome.item or {}).get("next_upgrade", now)) if isinstance(outcome, Conflict) else None
