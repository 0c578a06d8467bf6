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
