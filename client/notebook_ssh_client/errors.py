"""Errors of the client: one sentence for the user and an exit code for scripts.

docs/connect.md lists the codes. `ssh` itself exits with 255, whatever the code of its ProxyCommand is.
"""

from __future__ import annotations

EXIT_FAILURE = 1  # any error without a code of its own
EXIT_USAGE = 2  # an invalid command line, or `setup` has not been run
EXIT_ACCESS_DENIED = 3  # no valid AWS credentials, or not authorized
EXIT_UNKNOWN_NOTEBOOK = 4  # no configured stack has a notebook of this name
EXIT_NOT_CONNECTABLE = 5  # a known notebook that is stopped, off, waiting for a restart, …
EXIT_UNREACHABLE = 6  # no response from the API or the notebook over the network
EXIT_ENDPOINT_REFUSED = 7  # AWS refused a tunnel through an EC2 Instance Connect Endpoint
EXIT_ENDPOINT_BUSY = 8  # the endpoint has no connection free


class CliError(Exception):
    """An error with a message for the user (what failed and what to do) and an exit code."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
