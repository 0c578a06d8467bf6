"""`notebook-ssh forward`: a local port that leads to a notebook, for programs with an SSH of their own.

Each connection looks the notebook up like `ssh` does, so that it follows a new address, and is refused unless the server
presents a host key that the notebook reported: also for programs that would accept any.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import zlib
from base64 import b64encode
from binascii import a2b_base64
from contextlib import suppress
from hashlib import sha256

from notebook_ssh_client import known_hosts, lookup, messages, proxy
from notebook_ssh_client.errors import EXIT_FAILURE, EXIT_USAGE, CliError
from notebook_ssh_client.host_key_guard import HostKeyError, HostKeyGuard
from notebook_ssh_client.ssh_address import HOST_SUFFIX, SshAddress
from notebook_ssh_client.transport import CHUNK_SIZE, EndpointError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_ssh_client.transport import Transport

LOOPBACK = "127.0.0.1"

# Ports below those that systems hand out by themselves (Linux: 32768, ip_local_port_range).
FIRST_PORT, PORTS = 20_000, 10_000

# As for an ssh without KnownHostsCommand: a notebook needs longer than this to have new host keys.
MAX_AGE_S = 60.0

# The first user id of people on Linux (login.defs(5), UID_MIN), and the one that stands for no user (proc(5), overflowuid).
FIRST_USER_ID, OVERFLOW_ID = 1000, 65534


def run(home: str, name: str, *, port: int | None, shared: bool) -> int:
    """Listen on `port`, or on the notebook's own, until interrupted. Raises CliError."""
    if port is not None and not 0 < port < 65536:
        raise CliError(f"port {port} is no port; choose one from 1 to 65535", EXIT_USAGE)
    notebook = lookup.fetch(home, name)
    host = f"{notebook.name}.{notebook.stack.label}{HOST_SUFFIX}".lower()
    others = other_users()
    warning = (
        f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} logged in on this machine and can use this port too"
    )
    if others and not shared:
        raise CliError(f"{warning}, with a key that the notebook admits; add --shared to allow that", EXIT_USAGE)
    listener = Listener(home, host, port or default_port(host))
    messages.report(f"{notebook.name} is at {LOOPBACK} port {listener.port}, user ec2-user, until Ctrl-C")
    if others:
        messages.report(warning)
    if notebook.is_connectable:
        listener.publish_host_keys(lookup.parse_address(notebook))
    else:
        messages.report(notebook.summary)
    listener.accept_forever()
    return 0


def default_port(host: str) -> int:
    """Return the port of a notebook: the same each time, and on each machine."""
    return FIRST_PORT + zlib.crc32(host.encode()) % PORTS


def fingerprint(host_key: str) -> str:
    """Return the fingerprint of a public key as ssh-keygen(1), -l, prints it."""
    digest = b64encode(sha256(a2b_base64(host_key.split(" ")[1])).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


class Listener:
    """A listening port, and the connections through it."""

    def __init__(self, home: str, host: str, port: int) -> None:
        """Listen on `port` of the loopback address. Raises CliError if another program does."""
        self._home = home
        self._host = host
        self._published: tuple[str, ...] = ()
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]

    def publish_host_keys(self, address: SshAddress) -> None:
        """Write the notebook's host keys for this port into known_hosts, and print their fingerprints if they are new."""
        if address.host_keys != self._published:
            known_hosts.update_forward(self._home, self.port, address.host_keys)
            shown = ", ".join(f"{key.split(' ')[0]} {fingerprint(key)}" for key in address.host_keys)
            messages.report(f"host keys in {os.path.join(self._home, 'known_hosts')}: {shown}")
            self._published = address.host_keys

    def accept_forever(self) -> None:
        """Serve each connection in a thread."""
        with self._socket:
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                address, transport, received = proxy.connect(self._home, self._host, 22, MAX_AGE_S, messages.report)
                self.publish_host_keys(address)
            except (CliError, OSError) as error:
                messages.report(str(error))
                return
            try:
                _relay(connection, transport, received, HostKeyGuard(address.host_keys), self._refuse)
            except EndpointError as error:
                messages.report(str(error))
            except OSError:
                return  # one of the two has gone
            finally:
                transport.close()

    def _refuse(self, error: HostKeyError) -> None:
        proxy.forget(self._home, self._host)
        messages.report(f"{self._host} {error}; the connection is refused. If it has just started, try again")


def _relay(
    connection: socket.socket,
    transport: Transport,
    received: bytes,
    guard: HostKeyGuard,
    refuse: Callable[[HostKeyError], None],
) -> None:
    """Copy bytes in both directions until the notebook closes the connection, or `guard` refuses it. Raises OSError.

    refuse: called before the program finds the connection closed, so that the reason is there first.
    """

    def copy_from_program() -> None:
        with suppress(OSError):
            while data := connection.recv(CHUNK_SIZE):
                guard.from_client(data)
                transport.write(data)
        with suppress(OSError, HostKeyError):
            transport.close_write()

    thread = threading.Thread(target=copy_from_program, daemon=True)
    thread.start()
    try:
        data = received
        while data:
            connection.sendall(guard.from_server(data))
            data = transport.read()
    except HostKeyError as error:
        refuse(error)
    finally:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # ends the thread
        thread.join()


def _listen(port: int) -> socket.socket:
    taken = CliError(f"port {port} is taken by another program; choose another with --port", EXIT_FAILURE)
    # Some systems let a program listen on 127.0.0.1 although another listens on every address.
    with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        raise taken
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "nt":  # SO_REUSEADDR would let two programs share the port there
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after an earlier run of this program
        listener.bind((LOOPBACK, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise taken from error
    return listener


def other_users() -> list[str]:
    """Return the names of the other users who run programs or are logged in on this machine; none on Windows."""
    if os.name == "nt":
        return []
    names = {_user_name(user_id) for user_id in _owners_of_processes() if FIRST_USER_ID <= user_id != OVERFLOW_ID}
    try:
        listed = subprocess.run(["who"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        listed = ""
    names |= {line.split()[0] for line in listed.splitlines() if line.strip()}
    return sorted(names - {_user_name(os.getuid())})


def _owners_of_processes() -> set[int]:
    """Return the users of the processes on this machine (proc(5)); none where there is no /proc."""
    owners = set()
    with suppress(FileNotFoundError):
        for entry in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(FileNotFoundError):  # it has ended
                owners.add(os.stat(f"/proc/{entry}").st_uid)
    return owners


def _user_name(user_id: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
