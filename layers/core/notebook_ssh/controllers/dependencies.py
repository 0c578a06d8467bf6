"""What every controller of the notebook queue works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from notebook_ssh.adapters.lease import Leases
from notebook_ssh.adapters.table import Table
from notebook_ssh.adapters.write_slots import WriteSlots
from notebook_ssh.planning.observation import BlockPolicy
from notebook_ssh.settings import Settings


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Dependencies:
    """The dependencies of one invocation."""

    settings: Settings
    policy: BlockPolicy
    table: Table
    slots: WriteSlots
    leases: Leases
    clock: Callable[[], int]  # epoch seconds
    correlation_id: str = ""  # the ids of the messages that are being processed


def dependencies(
    settings: Settings,
    policy: BlockPolicy,
    remaining: Callable[[], int],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    *,
    is_teardown: bool = False,
) -> Dependencies:
    """Build the dependencies of one invocation.

    remaining: the milliseconds left (`get_remaining_time_in_millis`). clock: epoch seconds. is_teardown: see WriteSlots.
    """
    table = Table(settings.table)

    def milliseconds() -> int:
        return int(clock() * 1000)

    return Dependencies(
        settings=settings,
        policy=policy,
        table=table,
        slots=WriteSlots(table, remaining, milliseconds, sleep, is_teardown=is_teardown),
        leases=Leases(table, remaining, milliseconds),
        clock=lambda: int(clock()),
    )
