"""Gives the notebooks' host keys to ssh, in both of the ways that it supports.

Every OpenSSH reads the file `known_hosts`: `proxy` updates it before it passes the first byte to ssh, and ssh reads it
only after the server's banner, so the update is always in time. OpenSSH 8.5 and newer also runs KnownHostsCommand,
which covers the remaining case: the same address with new keys, while the old keys are still in the cache.

Only keys that the stack returned are ever written; none is learned from the connection itself.
"""

from __future__ import annotations

import os
import time

from notebook_ssh_client import address_cache, files, messages
from notebook_ssh_client.errors import EXIT_USAGE, CliError
from notebook_ssh_client.ssh_address import bastion_alias, normalize_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_ssh_client.ssh_address import SshAddress

# Seconds during which an address is not fetched again: this very connection has just fetched it.
MIN_REFETCH_INTERVAL_S = 10

# ssh's %K while it only prepares a connection (ssh_config(5), KnownHostsCommand).
NO_KEY = "NONE"


def format_lines(hostnames: str, host_keys: tuple[str, ...]) -> str:
    """Return known_hosts lines for `hostnames`, separated by commas (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return "".join(f"{hostnames} {key}\n" for key in host_keys)


def hostnames_field(host: str, port: int) -> str:
    """Return the names that ssh searches the file for: `name` for port 22, `[name]:port` for others."""
    return host if port == 22 else f"{host},[{host}]:{port}"


def update_file(home: str, host: str, port: int, host_keys: tuple[str, ...]) -> None:
    """Replace the lines of `host` in the file by these keys. Writes nothing if they are unchanged."""
    _replace(home, lambda line: _bare_host(line) == host, format_lines(hostnames_field(host, port), host_keys))


def update_bastion(home: str, address: SshAddress) -> str | None:
    """Write the bastion's host keys into the file, if the stack knows them; return the path of the file then."""
    if not address.bastion or not address.bastion_keys:
        return None
    alias = bastion_alias(address.bastion[0], address.bastion[2])
    _replace(home, lambda line: _bare_host(line) == alias, format_lines(alias, address.bastion_keys))
    return os.path.join(home, "known_hosts")


def update_forward(home: str, port: int, host_keys: tuple[str, ...]) -> None:
    """Replace the lines of the local `port` of `notebook-ssh forward` in the file by these keys."""
    hostnames = f"[127.0.0.1]:{port},[localhost]:{port}"
    _replace(home, lambda line: line.startswith(f"{hostnames} "), format_lines(hostnames, host_keys))


def _replace(home: str, is_replaced: Callable[[str], bool], lines: str) -> None:
    path = os.path.join(home, "known_hosts")
    with files.lock(path + ".lock"):
        before = files.read_text(path) or ""
        after = "".join(line for line in before.splitlines(True) if not is_replaced(line)) + lines
        if after != before:
            files.write_text(path, after)


def lines_for_server_key(
    home: str, hostname: str, server_key: str, resolve: Callable[[str], SshAddress], failed: Callable[[str], None]
) -> str:
    """Return the known_hosts lines for KnownHostsCommand.

    hostname: ssh's %H, `name` or `[name]:port`. server_key: ssh's %K, the server's key in base64, or NO_KEY. resolve:
    fetches an address from the stack; called once if the key is not in the cache. failed: reports that the key is not
    among them. ssh itself compares the key with the lines.
    """
    host = normalize_host(_bare_host(hostname))
    now = time.time()
    address = address_cache.get(home, host, now=now, max_age=address_cache.MAX_AGE_S)
    if not _has_key(address, server_key) and not _is_just_fetched(address, now):
        address = resolve(host)
        address_cache.put(home, host, address)
    if not _has_key(address, server_key):
        failed(
            f"{host} presented a host key that the notebook never reported; the connection is refused. If the notebook "
            f"has just started, try again in a minute, otherwise run: notebook-ssh doctor {host}"
        )
    return format_lines(hostname, address.host_keys) if address else ""


def main(argv: list[str], home: str) -> int:
    """Run `known-hosts HOST KEY`, ssh's KnownHostsCommand."""
    if len(argv) != 2:
        raise CliError("usage: notebook-ssh known-hosts %H %K (called by ssh as its KnownHostsCommand)", EXIT_USAGE)

    def resolve(host: str) -> SshAddress:
        from notebook_ssh_client import lookup

        return lookup.resolve(home, host)

    hostname, server_key = argv
    os.close(messages.take_standard_input())
    messenger = messages.Messenger(home, _bare_host(hostname).lower())
    try:
        messages.write(lines_for_server_key(home, hostname, server_key, resolve, messenger.failed).rstrip("\n"))
    except CliError as error:
        messenger.failed(str(error))
        return error.exit_code
    return 0


def _has_key(address: SshAddress | None, server_key: str) -> bool:
    """Return whether there is nothing to verify yet, or `server_key` is one of the address's host keys."""
    if server_key == NO_KEY:
        return True
    return address is not None and any(key.split(" ")[1:2] == [server_key] for key in address.host_keys)


def _is_just_fetched(address: SshAddress | None, now: float) -> bool:
    return address is not None and now - address.fetched_at < MIN_REFETCH_INTERVAL_S


def _bare_host(text: str) -> str:
    """Return the host at the start of a known_hosts line or of a `[name]:port`."""
    first = text.split(" ", 1)[0].split(",", 1)[0].strip()
    return first[1:].partition("]")[0] if first.startswith("[") else first
