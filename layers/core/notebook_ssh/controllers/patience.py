"""Writes with a role that may be seconds old."""

from __future__ import annotations

from collections.abc import Callable

from notebook_ssh.adapters.write_slots import WriteSlots
from notebook_ssh.errors import NotAllowedError

NEW_ROLE_S = 60
"""Seconds for which a refusal may mean that IAM does not know the role everywhere yet (IAM User Guide, "Changes that I
make are not always immediately visible")."""

RETRY_S = 5
"""Seconds between two attempts."""


def while_role_is_new(write: Callable[[], None], slots: WriteSlots) -> None:
    """Call `write`, and again for a minute while IAM refuses it. Raises what the last call raised."""
    until = slots.clock() + NEW_ROLE_S * 1000
    while True:
        try:
            return write()
        except NotAllowedError:
            if slots.clock() >= until:
                raise
        slots.sleep(RETRY_S)
