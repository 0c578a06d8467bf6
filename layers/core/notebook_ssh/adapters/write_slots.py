"""Write slots: all workers together make at most one SageMaker write a second.

SageMaker allows one control-plane write a second for an account and region, and this quota cannot be raised (docs:
"Amazon SageMaker endpoints and quotas"). Every write therefore reserves a slot in the table first, and waits for it.

The item `coordination`, `sagemaker-writes` has the attributes `next` (the next free slot, in milliseconds since the
epoch) and `tearing_down` (true while the stack is being deleted).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from notebook_ssh.adapters import deployments
from notebook_ssh.adapters.table import COORDINATION, LONGEST_INVOCATION_S, Conflict, Increment, Table
from notebook_ssh.errors import RetryableError
from notebook_ssh.planning.upgrade import UPGRADE_INTERVAL_S

WRITE_SLOT = "sagemaker-writes"

MIN_INTERVAL_MS = 1_080
"""Milliseconds between two slots: the second, and a margin for a first write that comes late in its slot."""

SLOT_TOLERANCE_MS = 150
"""Milliseconds for which a slot is valid, the check before the write included. A later write is too close to the next."""

LONGEST_INVOCATION_MS = LONGEST_INVOCATION_S * 1000
"""Milliseconds that the farthest slot is ahead."""

SHUTDOWN_MARGIN_MS = 10_000
"""Milliseconds kept free at the end of an invocation, to finish a write, verify it and save the record."""

WRITE_MS = 5_000
"""Milliseconds after its slot in which a write has ended, and what it leads to is recorded."""

TEARDOWN_RETRY_S = 900
"""Seconds after which to retry while the stack is being deleted: the longest delay of the queue."""


class SlotUnavailableError(RetryableError):
    """No write slot is free within the invocation's time."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(f"{reason}; retry in {retry_after} s")
        self.retry_after = retry_after
        """Seconds after which to retry."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class WriteSlots:
    """The write slots of one invocation."""

    table: Table
    remaining: Callable[[], int]
    """Returns the milliseconds left of the invocation (`get_remaining_time_in_millis` of the Lambda context)."""
    clock: Callable[[], int]
    """Returns milliseconds since the epoch."""
    sleep: Callable[[float], None]
    """Sleeps for some seconds."""
    is_teardown: bool = False
    """Whether this is the invocation that deletes the stack: it alone gets slots during the teardown."""

    def begin_teardown(self) -> None:
        """Give slots to the stack's teardown only."""
        self.table.update(COORDINATION, WRITE_SLOT, set={"tearing_down": True})

    def wait_for_others(self) -> None:
        """Wait until the writes have ended whose slots other invocations had before `begin_teardown`.

        What they write would otherwise come after the teardown has looked, and stay. Not at all when there are none.
        """
        item = self.table.item(COORDINATION, WRITE_SLOT, consistent=True) or {}
        last = int(item.get("next", 0)) - MIN_INTERVAL_MS
        if last <= self.clock() + LONGEST_INVOCATION_MS:
            self.wait_until(last + WRITE_MS)

    def cancel_teardown(self) -> None:
        """Give slots to all invocations again."""
        self.table.update(COORDINATION, WRITE_SLOT, remove=["tearing_down"])

    def out_of_time(self) -> bool:
        """Return whether the rest of the invocation is too short for another slot."""
        return self.remaining() <= SHUTDOWN_MARGIN_MS

    def reserve(self, ahead: int = 0) -> int:
        """Reserve the next free slot that is at least `ahead` milliseconds away.

        Returns its time, in milliseconds since the epoch. Raises SlotUnavailableError, with no slot reserved, when it
        is later than the invocation's end.
        """
        while True:
            now = self.clock()
            soonest, latest = now + ahead, now + self.remaining() - SHUTDOWN_MARGIN_MS
            if latest < soonest:
                raise SlotUnavailableError("the invocation is too short for another write", retry_after=1)
            is_open = "" if self.is_teardown else "attribute_not_exists(#tearing_down) AND "
            slot = self._advance_past(soonest, is_open)
            if slot is None:
                slot = self._advance_by_one(soonest, latest, is_open)
            if slot is not None:
                return slot
            self._raise_if_unavailable(now, latest)

    def wait_until(self, moment: int) -> None:
        """Sleep until a time, in milliseconds since the epoch; not at all when it has passed."""
        self.sleep(max(0, moment - self.clock()) / 1000)

    def wait_for(self, slot: int | None) -> int:
        """Wait for a slot, and return its time. Reserves another one when `slot` is None or has expired."""
        if slot is None or self.is_expired(slot):
            slot = self.reserve()
        self.wait_until(slot)
        return slot

    def is_expired(self, slot: int) -> bool:
        """Return whether it is too late to write in a slot."""
        return self.clock() > slot + SLOT_TOLERANCE_MS

    def reserve_upgrade(self) -> None:
        """Reserve the present time for an upgrade of a script. Raises SlotUnavailableError too soon after another one."""
        free_at = deployments.reserve_upgrade(self.table, self.clock(), UPGRADE_INTERVAL_S * 1000)
        if free_at is not None:
            retry_after = max(1, (free_at - self.clock()) // 1000 + 1)
            raise SlotUnavailableError("another script has just been upgraded", retry_after)

    def _advance_past(self, soonest: int, is_open: str) -> int | None:
        """Reserve `soonest` when no later slot is reserved; otherwise return None.

        A slot that is farther ahead than any invocation could have reserved it counts as free.
        """
        outcome = self.table.update(
            COORDINATION,
            WRITE_SLOT,
            set={"next": soonest + MIN_INTERVAL_MS},
            condition=f"{is_open}(attribute_not_exists(#next) OR #next <= :soonest OR #next > :farthest)",
            values={"soonest": soonest, "farthest": self.clock() + LONGEST_INVOCATION_MS},
        )
        return None if isinstance(outcome, Conflict) else soonest

    def _advance_by_one(self, soonest: int, latest: int, is_open: str) -> int | None:
        """Reserve the next free slot when it is between `soonest` and `latest`; otherwise return None."""
        outcome = self.table.update(
            COORDINATION,
            WRITE_SLOT,
            set={"next": Increment(MIN_INTERVAL_MS)},
            condition=f"{is_open}#next > :soonest AND #next <= :latest",
            values={"soonest": soonest, "latest": latest},
            returns="UPDATED_OLD",
        )
        return None if isinstance(outcome, Conflict) else int(outcome["next"])

    def _raise_if_unavailable(self, now: int, latest: int) -> None:
        item: dict[str, Any] = self.table.item(COORDINATION, WRITE_SLOT, consistent=True) or {}
        if item.get("tearing_down") and not self.is_teardown:
            raise SlotUnavailableError("the stack is being deleted", retry_after=TEARDOWN_RETRY_S)
        next_free = int(item.get("next", now))
        if latest < next_free <= now + LONGEST_INVOCATION_MS:
            raise SlotUnavailableError("no write slot is free in time", retry_after=max(1, (next_free - now) // 1000))
