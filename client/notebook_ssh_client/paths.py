"""The paths to a notebook, one at a time: the one that worked last, then the others in the order of the tag.

The next path is begun when one was refused, or sent no banner in time; that one is closed before. So there is never more
than one connection to log in by.
"""

from __future__ import annotations

import os

from notebook_ssh_client import files, known_hosts, messages
from notebook_ssh_client.errors import EXIT_UNREACHABLE, CliError
from notebook_ssh_client.ssh_address import normalize_host
from notebook_ssh_client.transport import (
    BASTION_CONNECT_TIMEOUT_S,
    PATH_TIMEOUT_S,
    open_transport,
    receive_banner,
    unreachable_message,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_ssh_client.ssh_address import SshAddress
    from notebook_ssh_client.transport import Transport


class NoPathError(Exception):
    """No path led to the notebook."""

    def __init__(self, failures: list[tuple[SshAddress, OSError | CliError]]) -> None:
        super().__init__()
        self.failures = failures  # each path, in the order in which they were tried, and why it failed

    def __str__(self) -> str:
        reasons = [(path.mode, _reason(path, error)) for path, error in self.failures]
        return "; ".join(f"by {mode}: {reason}" if len(reasons) > 1 else reason for mode, reason in reasons)

    def to_cli_error(self, host: str) -> CliError:
        """Return the error for the user, with the exit code that all paths have in common."""
        errors = [error for _, error in self.failures]
        if len(errors) == 1 and isinstance(errors[0], CliError):
            return errors[0]
        codes = {getattr(error, "exit_code", None) or EXIT_UNREACHABLE for error in errors}
        code = codes.pop() if len(codes) == 1 else EXIT_UNREACHABLE
        return CliError(f"{self}. To check every step: notebook-ssh doctor {host}", code)


def connect(
    home: str,
    host: str,
    address: SshAddress,
    timeout_s: float,
    noted: Callable[[str], None],
    ending: Callable[[str], None],
) -> tuple[SshAddress, Transport, bytes]:
    """Connect by the first path that works; return it, the connection and the bytes up to the banner.

    timeout_s: for the last path, which nothing follows. noted: called with which path it is, unless it is the tag's first.
    ending: called minutes before AWS ends a connection. Raises NoPathError.
    """
    failures: list[tuple[SshAddress, OSError | CliError]] = []
    paths = in_order(address.paths, last_mode(home, host) if address.others else "")
    for path in paths:
        is_last = path is paths[-1]
        # To sign and to speak websocket takes longer than to connect by TCP, also where an address is cached.
        limit_s = max(timeout_s, PATH_TIMEOUT_S) if path.endpoint else timeout_s
        bastion_limit_s = BASTION_CONNECT_TIMEOUT_S if is_last else PATH_TIMEOUT_S
        try:
            transport, received = open_path(home, path, limit_s if is_last else PATH_TIMEOUT_S, bastion_limit_s, ending)
        except (OSError, CliError) as error:
            failures.append((path, error))
        else:
            _took(home, host, address, path, failures, noted)
            return path, transport, received
    raise NoPathError(failures)


def in_order(paths: tuple[SshAddress, ...], mode: str) -> list[SshAddress]:
    """Return the paths in the order in which to try them. mode: of the one that worked last."""
    return sorted(paths, key=lambda path: path.mode != mode)  # which keeps the order of equals


def open_path(
    home: str, path: SshAddress, timeout_s: float, bastion_timeout_s: float, ending: Callable[[str], None]
) -> tuple[Transport, bytes]:
    """Connect by one path; return the connection and the bytes up to the banner. Raises OSError or CliError."""
    if path.endpoint is None:
        return open_transport(path, timeout_s, known_hosts.update_bastion(home, path), bastion_timeout_s)
    from notebook_ssh_client import endpoint, settings  # no other mode loads what signs, and speaks websocket

    stack = settings.find_stack(path.endpoint.stack, settings.load_settings(home).stacks)
    transport = endpoint.open_endpoint(path, stack.profile, timeout_s, ending)
    return transport, receive_banner(transport, path)


def last_mode(home: str, host: str) -> str:
    """Return the mode of the path to `host` that worked last, or an empty text."""
    return (files.read_text(_memory(home, host)) or "").strip()


def _took(
    home: str,
    host: str,
    address: SshAddress,
    path: SshAddress,
    failures: list[tuple[SshAddress, OSError | CliError]],
    noted: Callable[[str], None],
) -> None:
    """Remember the path, and say which it is."""
    if not address.others:
        return
    if last_mode(home, host) != path.mode:
        files.write_text(_memory(home, host), f"{path.mode}\n")
    reasons = [f"not by {failed.mode}: {_reason(failed, error)}" for failed, error in failures]
    sentence = ", ".join(filter(None, (f"{host} is reached by {path.mode}", "; ".join(reasons))))
    if failures:
        messages.append_to_log(home, host, sentence)
    if path is address:
        messages.explain(sentence)
    else:
        noted(sentence)


def _reason(path: SshAddress, error: OSError | CliError) -> str:
    return str(error) if isinstance(error, CliError) else unreachable_message(path, error)


def _memory(home: str, host: str) -> str:
    return os.path.join(home, "paths", normalize_host(host))
