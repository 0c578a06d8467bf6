"""The connection to a notebook, by TCP or through the bastion, and the wait for the banner of its SSH server.

That through an endpoint is in a module of its own, which is loaded for it alone.

A server is an SSH server once it has sent its banner (`SSH-…`, RFC 4253 section 4.2: the server sends first).
"""

from __future__ import annotations

import os
import socket
import threading
import time

from notebook_ssh_client.errors import EXIT_USAGE, CliError
from notebook_ssh_client.ssh_address import bastion_alias

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from notebook_ssh_client.ssh_address import SshAddress

    class Transport(Protocol):
        """A connection to a notebook: this module's classes, and EndpointTransport."""

        def banner_received(self) -> None:
            """Remove the time limit."""

        def read(self) -> bytes:
            """Return the next bytes, or none at the end of the stream."""

        def write(self, data: bytes) -> None:
            """Send all of `data`."""

        def close_write(self) -> None:
            """Close the writing direction; reading continues."""

        def close(self) -> None:
            """Close the connection."""


# Seconds for the connection and the banner: at a cached address, at a fetched one, and through a bastion, where the
# user may have to type a passphrase or touch a security key.
CACHED_CONNECT_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 20.0
BASTION_CONNECT_TIMEOUT_S = 120.0

# Seconds for a path that another one follows, and for an endpoint at a cached address.
PATH_TIMEOUT_S = 4.0

# The environment variable with the URL of an HTTP proxy. Not HTTPS_PROXY: most of those allow port 443 only.
HTTP_PROXY_ENV_VAR = "NOTEBOOK_SSH_PROXY"

CHUNK_SIZE = 64 * 1024

# Bytes that a server may send before its banner; OpenSSH's own limit is 1024 lines.
MAX_PREAMBLE_SIZE = 16 * 1024


class NoBannerError(ConnectionError):
    """The server at the address sent no SSH banner."""


class ProxyError(ConnectionError):
    """The HTTP proxy did not connect."""


class BastionError(ConnectionError):
    """ssh did not connect through the bastion; the text is its last message."""


class EndpointError(ConnectionError):
    """The EC2 Instance Connect Endpoint gave no connection; the text says what AWS answered."""

    def __init__(self, message: str, verdict: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.verdict = verdict  # endpoint-refused, endpoint-busy, or "" for another reason
        self.exit_code = exit_code


class TcpTransport:
    """A TCP connection to the notebook."""

    def __init__(self, address: SshAddress, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._socket = _connect_tcp(address.host, address.port, timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def banner_received(self) -> None:
        """Remove the time limit."""
        self._socket.settimeout(None)
        self._deadline = 0.0

    def read(self) -> bytes:
        """Return the next bytes, or none at the end of the stream."""
        if self._deadline:
            self._socket.settimeout(max(0.01, self._deadline - time.monotonic()))
        return self._socket.recv(CHUNK_SIZE)

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        self._socket.sendall(data)

    def close_write(self) -> None:
        """Close the writing direction; reading continues."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class BastionTransport:
    """A connection through `ssh -W` to the bastion, with the user's own configuration, keys and agent for it."""

    def __init__(self, argv: list[str], timeout_s: float) -> None:
        import subprocess

        child_stdin, self._write_end = os.pipe()
        self._read_end, child_stdout = os.pipe()
        messages_end, child_stderr = os.pipe()
        self._process = subprocess.Popen(argv, stdin=child_stdin, stdout=child_stdout, stderr=child_stderr)
        for descriptor in (child_stdin, child_stdout, child_stderr):
            os.close(descriptor)
        self._last_message = b""
        self._messages = threading.Thread(target=self._pass_messages_on, args=(messages_end,), daemon=True)
        self._messages.start()
        self._timer = threading.Timer(timeout_s, self._process.kill)
        self._timer.daemon = True
        self._timer.start()

    def banner_received(self) -> None:
        """Remove the time limit."""
        self._timer.cancel()

    def read(self) -> bytes:
        """Return the next bytes, or none at the end of the stream."""
        return os.read(self._read_end, CHUNK_SIZE)

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        write_all(self._write_end, data)

    def close_write(self) -> None:
        """Close the writing direction; reading continues."""
        os.close(self._write_end)

    def failure(self) -> str:
        """Return the last message of ssh after it has ended, or an empty text."""
        self._messages.join(1)
        return self._last_message.decode("utf-8", "replace").strip()

    def _pass_messages_on(self, source: int) -> None:
        """Copy the messages of ssh to standard error, and keep the last line for a message of the client's own."""
        while data := os.read(source, CHUNK_SIZE):
            self._last_message = ([self._last_message, *filter(bytes.strip, data.splitlines())])[-1][-1000:]
            try:
                write_all(2, data)
            except OSError:
                continue  # standard error has no reader any more
        os.close(source)

    def close(self) -> None:
        """Terminate ssh."""
        self._timer.cancel()
        self._process.terminate()
        self._process.wait()
        os.close(self._read_end)


def _connect_tcp(host: str, port: int, timeout_s: float) -> socket.socket:
    """Open a TCP connection, through the HTTP proxy in HTTP_PROXY_ENV_VAR if set."""
    proxy = os.environ.get(HTTP_PROXY_ENV_VAR)
    if not proxy:
        return socket.create_connection((host, port), timeout=timeout_s)
    proxy_host, _, proxy_port = proxy.partition("://")[2].rstrip("/").rpartition(":")
    if not proxy.startswith("http://") or not proxy_port.isdecimal():
        raise CliError(f"{HTTP_PROXY_ENV_VAR}={proxy} is not valid; set it to http://host:port", EXIT_USAGE)
    return connect_through_proxy((proxy_host, int(proxy_port)), host, port, timeout_s)


def connect_through_proxy(
    proxy: tuple[str, int], host: str, port: int, timeout_s: float, headers: str = ""
) -> socket.socket:
    """Let an HTTP proxy connect to `host` (RFC 9110 section 9.3.6, CONNECT). headers: more lines of the request.

    Raises ProxyError if it does not.
    """
    connection = socket.create_connection(proxy, timeout=timeout_s)
    target = _host_and_port(host, port)
    connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{headers}\r\n".encode())
    response = b""
    while not response.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)  # one at a time: the bytes after the empty line are the notebook's
        if not byte or len(response) > MAX_PREAMBLE_SIZE:
            break
        response += byte
    status = response.split(b" ", 2)[1:2]
    if status != [b"200"]:
        connection.close()
        status_line = response.partition(b"\r\n")[0].decode("ascii", "replace")
        shown = _host_and_port(*proxy)
        raise ProxyError(f"the proxy {shown} refused the connection: {status_line or 'no response'}")
    return connection


def bastion_command(
    host: str, port: int, bastion: tuple[str, str, int], known_hosts_path: str | None = None
) -> list[str]:
    """Return the ssh command that connects from the bastion to the notebook (ssh(1), -W).

    known_hosts_path: the file with the bastion's host keys; None: the user's own configuration decides.
    """
    bastion_host, user, bastion_port = bastion
    # The user's own `Port` for the bastion applies unless the stack sets a port other than 22.
    port_option = ["-p", str(bastion_port)] if bastion_port != 22 else []
    options = ["-o", "ConnectTimeout=20", "-o", "ClearAllForwardings=yes", "-l", user, *port_option]
    if known_hosts_path:
        options += ["-o", f'UserKnownHostsFile="{known_hosts_path}"', "-o", "GlobalKnownHostsFile=none"]
        options += [
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            f"HostKeyAlias={bastion_alias(bastion_host, bastion_port)}",
        ]
        options += ["-o", "UpdateHostKeys=no", "-o", "CheckHostIP=no", "-o", "VerifyHostKeyDNS=no"]
    return ["ssh", *options, "-W", _host_and_port(host, port), "--", bastion_host]


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def open_transport(
    address: SshAddress,
    timeout_s: float,
    bastion_known_hosts: str | None = None,
    bastion_timeout_s: float = BASTION_CONNECT_TIMEOUT_S,
) -> tuple[Transport, bytes]:
    """Connect to `address`; return the connection and the bytes received up to the banner.

    bastion_known_hosts: the file with the bastion's host keys; None: the user's own configuration decides. Raises OSError if no banner arrives in time.
    """
    transport: Transport
    if address.bastion:
        command = bastion_command(address.host, address.port, address.bastion, bastion_known_hosts)
        transport = BastionTransport(command, bastion_timeout_s)
    else:
        transport = TcpTransport(address, timeout_s)
    return transport, receive_banner(transport, address)


def receive_banner(transport: Transport, address: SshAddress) -> bytes:
    """Return the bytes of a new connection up to the banner. Closes it, and raises OSError, if none arrives in time."""
    try:
        received = b""
        while not received.startswith(b"SSH-") and b"\nSSH-" not in received:
            data = transport.read()
            if not data and isinstance(transport, BastionTransport):
                raise BastionError(transport.failure() or "ssh ended without a message")
            if not data or len(received) > MAX_PREAMBLE_SIZE:
                raise NoBannerError(f"{address.host} port {address.port} sent no SSH banner")
            received += data
    except BaseException:
        transport.close()
        raise
    transport.banner_received()
    return received


def unreachable_message(address: SshAddress, error: OSError) -> str:
    """Return why `address` could not be reached, and what to check."""
    target = f"{address.host} port {address.port}"
    reason = error.strerror or str(error)
    if address.endpoint:
        return _endpoint_message(address, error, reason)
    if address.bastion:
        host, user, port = address.bastion
        by_hand = f"ssh -l {user} -p {port} {host}" if port != 22 else f"ssh -l {user} {host}"
        return (
            f"{target} cannot be reached through the bastion ({reason}); log in to the bastion in a terminal: {by_hand}"
        )
    if isinstance(error, ProxyError):
        return f"{target} cannot be reached ({reason}); check {HTTP_PROXY_ENV_VAR}"
    if isinstance(error, socket.gaierror):
        return f"{address.host} cannot be resolved ({reason}); check your network and VPN"
    if isinstance(error, NoBannerError):
        return f"{target} is no SSH server ({reason}); the tunnel may be reconnecting"
    if isinstance(error, ConnectionRefusedError):
        return f"{target} refused the connection; the notebook may be restarting, or the tunnel reconnecting"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return f"{target} did not answer ({reason}); check whether your network allows connections to this port"
    return f"{target} cannot be reached ({reason}); check your network and VPN"


def _endpoint_message(address: SshAddress, error: OSError, reason: str) -> str:
    import ssl

    if isinstance(error, EndpointError) or address.endpoint is None:
        return str(error)
    endpoint = f"endpoint {address.endpoint.id}"
    if isinstance(error, NoBannerError):
        return f"{address.host} port {address.port} behind {endpoint} is no SSH server; the notebook may be restarting"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {endpoint} at {address.endpoint.dns_name} is not trusted ({error.verify_message}); name "
            "the file with your company's authorities: AWS_CA_BUNDLE"
        )
    return (
        f"{address.host} did not answer through {endpoint}, or {address.endpoint.dns_name} cannot be reached ({reason}); "
        "check your network and HTTPS_PROXY"
    )


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` to a file descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
