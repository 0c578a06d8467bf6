"""Reads the public keys of the stack's signing keys, once for each deployment that changes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from notebook_ssh.adapters.signing_key import public_key_info
from notebook_ssh.errors import RetryableError, TerminalError
from notebook_ssh.model.certificate import authority_line

ATTEMPTS, WAIT_S = 13, 5
"""A role that was created seconds ago is not known everywhere yet (IAM User Guide, "eventually consistent"): one minute."""


def authority_lines(keys: Sequence[str], sleep: Callable[[float], None]) -> list[str]:
    """Return the public keys, `type base64`, of the KMS keys with these ARNs, in their order.

    Raises RetryableError, TerminalError or ValueError when one of them cannot be read within a minute.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _read(keys)
        except (RetryableError, TerminalError):
            sleep(WAIT_S)
    return _read(keys)


def _read(keys: Sequence[str]) -> list[str]:
    return [authority_line(public_key_info(key)) for key in keys]
