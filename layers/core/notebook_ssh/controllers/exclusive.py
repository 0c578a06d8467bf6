"""Lease → write slot → observe again → plan again → apply: the one sequence in which SageMaker is written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.adapters.write_slots import SlotUnavailableError
from notebook_ssh.controllers.dependencies import Dependencies

PREPARE_MS = 300
"""Milliseconds that recording what is begun takes."""

REOBSERVE_MS = 500
"""Milliseconds that another observation takes. Both are reserved before the slot, so that they do not delay the write."""


class Planned(Protocol):
    """An observation with its plan."""

    @property
    def cache(self) -> RecordCache:
        """The records that it was made from."""

    @property
    def locks(self) -> frozenset[str]:
        """What must be leased while the plan is applied, unless `verified_on_write`; empty when SageMaker is not written to."""

    @property
    def verified_on_write(self) -> bool:
        """Whether each write compares with what was observed right before it, so that observing again adds nothing."""

    def prefetch(self, cache: RecordCache) -> None:
        """Read into `cache`, in one request, what observing again needs."""


P = TypeVar("P", bound=Planned)


def carry_out(
    cache: RecordCache, plan: Callable[[RecordCache], P], apply: Callable[[P, int | None], None], deps: Dependencies
) -> P:
    """Observe and plan with `plan`, then `apply` it; returns the plan that was applied.

    A plan with locks is applied under leases of them, in a write slot (its moment, epoch milliseconds, is passed to
    `apply`). What was observed before the wait may have changed by then, so it is observed and planned again, unless the
    writes verify that themselves. Such writes need no lease either: slots keep those of two workers apart, the second
    finds the script changed when it compares, and each reads what it wrote. Raises SlotUnavailableError when there is no
    slot within the time that is left or the second plan needs locks that are not held, and LeaseHeldError when another
    worker holds a lease.
    """
    planned = plan(cache)
    if not planned.locks:
        apply(planned, None)
        return planned
    held = _to_lease(planned)
    with deps.leases.lease(*held):
        reobserve = not planned.verified_on_write
        slot = deps.slots.reserve(ahead=PREPARE_MS + (REOBSERVE_MS if reobserve else 0))
        if reobserve or planned.cache.is_expired(slot // 1000):
            deps.slots.wait_until(slot - PREPARE_MS - REOBSERVE_MS)
            fresh = RecordCache(deps.table, deps.clock())
            planned.prefetch(fresh)
            planned = plan(fresh)
        if not _to_lease(planned) <= held:
            raise SlotUnavailableError("the plan needs other leases now", retry_after=1)
        apply(planned, slot)
        return planned


def _to_lease(planned: Planned) -> frozenset[str]:
    return frozenset() if planned.verified_on_write else planned.locks
