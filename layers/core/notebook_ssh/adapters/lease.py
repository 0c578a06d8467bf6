"""Leases: at most one worker at a time changes a lifecycle configuration or a notebook.

The item `coordination`, `lease/<name>` has the attributes `holder` (a random id), `until` (milliseconds since the
epoch) and `expires` (the table's TTL).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from notebook_ssh.adapters.table import COORDINATION, Conflict, Table
from notebook_ssh.adapters.write_slots import LONGEST_INVOCATION_MS
from notebook_ssh.errors import RetryableError

RETRY_AFTER_S = 5
"""Seconds after which to retry when another worker has the lease."""

CLOCK_SKEW_MS = 10_000
"""Milliseconds by which the clocks of two workers differ at most."""

KEEP_S = 3_600
"""Seconds for which an expired lease stays in the table at least."""


class LeaseHeldError(RetryableError):
    """Another worker has the lease."""

    def __init__(self, name: str, retry_after: int = RETRY_AFTER_S) -> None:
        super().__init__(f"another worker has the lease {name}; retry in {retry_after} s")
        self.retry_after = retry_after
        """Seconds after which to retry."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Leases:
    """The leases of one invocation."""

    table: Table
    remaining: Callable[[], int]
    """Returns the milliseconds left of the invocation: no lease lasts longer, so a worker that died blocks no other."""
    clock: Callable[[], int]
    """Returns milliseconds since the epoch."""

    @contextmanager
    def lease(self, *names: str) -> Iterator[None]:
        """Hold leases for the duration of a `with` block. Raises LeaseHeldError, with none held, when one is taken."""
        with ExitStack() as held:
            for name in sorted(names):  # in one order, so that of two workers one gets all
                held.enter_context(self._acquired(f"lease/{name}"))
            yield

    @contextmanager
    def _acquired(self, name: str) -> Iterator[None]:
        holder = uuid.uuid4().hex
        now = self.clock()
        until = now + self.remaining()
        outcome = self.table.update(
            COORDINATION,
            name,
            set={"until": until, "holder": holder, "expires": until // 1000 + KEEP_S},
            # A lease that lasts longer than any invocation counts as free. The last alternative: botocore sent this very
            # request again because its answer was lost.
            condition="attribute_not_exists(#until) OR #until <= :now OR #until > :farthest OR #holder = :holder",
            values={"now": now, "farthest": now + LONGEST_INVOCATION_MS + CLOCK_SKEW_MS, "holder": holder},
        )
        if isinstance(outcome, Conflict):
            raise LeaseHeldError(name)
        try:
            yield
        finally:
            self.table.delete(COORDINATION, name, condition="#holder = :holder", values={"holder": holder})
