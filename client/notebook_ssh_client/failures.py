"""How the client fails: one sentence for a person, and an exit code for a script.

The codes are documented in docs/connect.md; `ssh` itself answers 255 whatever its proxy's code is.
"""

from __future__ import annotations

FAILED = 1
"""Anything without a code of its own."""
USAGE = 2
"""Words on the command line that cannot be understood, or a client that was never set up."""
NOT_ALLOWED = 3
"""No valid AWS credentials, or the stack refuses this identity."""
UNKNOWN_NOTEBOOK = 4
"""No stack knows a notebook of that name."""
NOT_CONNECTABLE = 5
"""The notebook is known, but cannot be reached now: stopped, off, waiting for a restart, …"""
NO_ANSWER = 6
"""The API or the notebook could not be reached over the network."""


class Failure(Exception):
    """What went wrong and what to do about it, as one sentence, with the exit code to end with."""

    def __init__(self, sentence: str, exit_code: int = FAILED) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
