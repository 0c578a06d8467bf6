"""Writes with a role that may be seconds old."""

from __future__ import annotations

from collections.abc import Callable

from botocore.exceptions import ClientError

from notebook_ssh.adapters.clients import code_of
from notebook_ssh.adapters.write_slots import WriteSlots

NEW_ROLE_S = 60
"""Seconds for which a refusal may mean that IAM does not know the role everywhere yet (IAM User Guide, "Changes that I
make are not always immediately visible")."""

RETRY_S = 5
"""Seconds between two attempts."""

REFUSED = frozenset({"AccessDeniedException", "AccessDenied"})
"""The codes of a refusal, which services spell differently."""


def while_role_is_new(write: Callable[[], None], slots: WriteSlots) -> None:
    """Call `write`, and again for a minute while IAM refuses it. Raises what the last call raised."""
    until = slots.clock() + NEW_ROLE_S * 1000
    while True:
        try:
            return write()
        except ClientError as error:
            if code_of(error) not in REFUSED or slots.clock() >= until:
                raise
        slots.sleep(RETRY_S)
