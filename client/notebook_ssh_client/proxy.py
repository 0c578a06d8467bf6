"""ssh's ProxyCommand: relays ssh's bytes to the current address of the notebook.

The cached address is tried first; it is valid if the server sends its banner. Without a banner in time, the address is
fetched from the stack, and the notebook may be started.
"""

from __future__ import annotations

import errno
import os
import threading
import time

from notebook_ssh_client import address_cache, known_hosts, messages, paths
from notebook_ssh_client.errors import EXIT_USAGE, CliError
from notebook_ssh_client.ssh_address import normalize_host
from notebook_ssh_client.transport import (
    CACHED_CONNECT_TIMEOUT_S,
    CHUNK_SIZE,
    CONNECT_TIMEOUT_S,
    EndpointError,
    write_all,
)

# Seconds within which ssh ends when the notebook refuses the login.
LOGIN_S = 10.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_ssh_client.ssh_address import SshAddress
    from notebook_ssh_client.transport import Transport


def relay(transport: Transport, received: bytes, source: int, sink: int) -> None:
    """Copy bytes in both directions until the notebook closes the connection; the end of `source` is passed on."""

    def copy_source() -> None:
        try:
            while data := os.read(source, CHUNK_SIZE):
                transport.write(data)
            transport.close_write()
        except OSError:
            return  # the other direction ends too, and with it the relay

    threading.Thread(target=copy_source, daemon=True).start()
    try:
        write_all(sink, received)
        while data := transport.read():
            write_all(sink, data)
    except (BrokenPipeError, ConnectionResetError):
        return  # ssh has ended, or the notebook has closed the connection
    except OSError as error:
        if error.errno != errno.EINVAL:  # Windows' error for a pipe without a reader
            raise


def connect(
    home: str,
    host: str,
    port: int,
    max_age: float,
    waiting: Callable[[str], None],
    noted: Callable[[str], None] = messages.report,
    ending: Callable[[str], None] = messages.report,
) -> tuple[SshAddress, Transport, bytes]:
    """Connect to the notebook called `host`, and update ssh's known_hosts file for it.

    max_age: seconds for which a cached address is tried. waiting: reports why it takes longer. noted: reports which path
    it is, unless it is the tag's first. ending: reports that AWS is about to end the connection. Returns the path's
    address, the connection and the bytes received up to the banner. Raises CliError.
    """
    address = address_cache.get(home, host, now=time.time(), max_age=max_age)
    if address:
        try:
            connected = paths.connect(home, host, address, CACHED_CONNECT_TIMEOUT_S, noted, ending)
        except paths.NoPathError:
            address_cache.delete(home, host)
        else:
            known_hosts.update_file(home, host, port, address.host_keys)
            return connected
    from notebook_ssh_client import lookup, name_list

    address = lookup.resolve(home, host, wake=True, waiting=waiting)
    known_hosts.update_file(home, host, port, address.host_keys)
    try:
        connected = paths.connect(home, host, address, CONNECT_TIMEOUT_S, noted, ending)
    except paths.NoPathError as error:
        raise error.to_cli_error(host) from error
    address_cache.put(home, host, address)
    name_list.refresh_names_in_background(home)
    return connected


def forget(home: str, host: str) -> None:
    """Fetch the address of `host` again for the next connection."""
    address_cache.delete(home, host)


def main(argv: list[str], home: str) -> int:
    """Run `proxy [--max-age SECONDS] HOST PORT`, ssh's ProxyCommand."""
    max_age = float(address_cache.MAX_AGE_S)
    if argv[:1] == ["--max-age"] and len(argv) > 1:
        max_age, argv = float(argv[1]), argv[2:]
    if len(argv) != 2 or not argv[1].isdecimal():
        raise CliError(
            "usage: notebook-ssh proxy [--max-age SECONDS] %h %p (called by ssh as its ProxyCommand)", EXIT_USAGE
        )
    # Windows has no shell that removes the quotes, which are for the shells of other systems.
    host, port = argv[0].strip("'").lower(), int(argv[1])
    source = messages.take_standard_input()
    messenger = messages.Messenger(home, host)
    try:
        _, transport, received = connect(
            home, normalize_host(host), port, max_age, messenger.waiting, messenger.noted, messenger.ending
        )
    except CliError as error:
        messenger.failed(str(error))
        return error.exit_code
    messenger.connected()
    _set_binary_mode(source, 1)
    _doubt_certificate(home, host)
    try:
        relay(transport, received, source, sink=1)
    except EndpointError as error:
        messenger.ending(str(error))
    transport.close()
    return 0


def _doubt_certificate(home: str, host: str) -> None:
    """Doubt the certificate for `host`, if there is one, until the connection has lasted LOGIN_S.

    Not at the end of a short one: ssh ends this program with SIGHUP, also when the login was refused.
    """
    if not os.path.isdir(os.path.join(home, "certificates")):
        return
    from notebook_ssh_client import certificate_store

    if certificate_store.doubt(home, host):
        timer = threading.Timer(LOGIN_S, certificate_store.believe, [home, host])
        timer.daemon = True
        timer.start()


def _set_binary_mode(*descriptors: int) -> None:
    """Disable the translation of line endings on Windows."""
    if os.name == "nt":
        import msvcrt

        for descriptor in descriptors:
            msvcrt.setmode(descriptor, os.O_BINARY)  # type: ignore[attr-defined,unused-ignore]
