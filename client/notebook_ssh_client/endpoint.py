"""The connection to a notebook through an EC2 Instance Connect Endpoint: bytes in the binary messages of a websocket.

The request is presigned with the user's AWS credentials (EC2 User Guide, "Connect using EC2 Instance Connect Endpoint";
the parameters are those of `aws ec2-instance-connect open-tunnel`). Only this mode needs what is imported here.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlencode, urlsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies
from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from notebook_ssh_client import __version__, credentials
from notebook_ssh_client.errors import EXIT_ENDPOINT_BUSY, EXIT_ENDPOINT_REFUSED, EXIT_USAGE, CliError
from notebook_ssh_client.transport import CHUNK_SIZE, EndpointError, connect_through_proxy

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

    from notebook_ssh_client.ssh_address import Endpoint, SshAddress

# Seconds for which a request is presigned, as AWS's own client does.
EXPIRES_S = 60

# Seconds that AWS keeps a tunnel (EC2 User Guide, "EC2 Instance Connect Endpoint quotas").
LONGEST_S = 3600

# The environment variable with the seconds that are asked for, where a policy allows less than LONGEST_S.
SECONDS_ENV_VAR = "NOTEBOOK_SSH_TUNNEL_SECONDS"

# Seconds before its end at which it is announced, once; of a short tunnel, half of its time.
NOTICE_S = 300

# Seconds without a byte from the endpoint after which it is pinged, so that no proxy takes the tunnel for a dead one.
# UNCONFIRMED(endpoint-pings): nothing waits for the answer.
PING_INTERVAL_S = 20.0

# The status codes of "too many requests" and "service unavailable" (RFC 6585 section 4, RFC 9110 section 15.6.4), and
# parts of the names that AWS gives to such errors. UNCONFIRMED(endpoint-refusals): the endpoint's own.
BUSY_STATUSES = frozenset({429, 503})
BUSY_WORDS = ("throttl", "limitexceeded", "toomany", "quota", "maxconnections")

# Codes of a Close that say nothing is wrong (RFC 6455 section 7.4.1): normal, and none given.
NORMAL_CLOSURES = frozenset({1000, 1005})

DENIED_CODES = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"})


def open_endpoint(
    address: SshAddress,
    profile: str | None,
    timeout_s: float,
    ending: Callable[[str], None],
    ping_interval_s: float = PING_INTERVAL_S,
) -> EndpointTransport:
    """Open a tunnel to `address`, as the user of the AWS `profile`; None: the default credentials.

    ending: called once, minutes before AWS ends the tunnel. Raises EndpointError, another OSError, or CliError.
    """
    endpoint, seconds = address.endpoint, tunnel_seconds(os.environ.get(SECONDS_ENV_VAR))
    if endpoint is None:
        raise ValueError("the address has no endpoint")
    key = _credentials(profile, endpoint.region)
    url = presigned_url(endpoint, address.host, address.port, key, seconds)
    deadline = time.monotonic() + timeout_s  # of the endpoint, not of who gives out credentials
    connection = _connect(endpoint.dns_name, max(0.1, deadline - time.monotonic()), _authorities(profile, endpoint))
    transport = EndpointTransport(connection, endpoint, (address.host, address.port), deadline, ping_interval_s)
    try:
        transport.open(url)
    except BaseException:
        transport.close()
        raise
    transport.announce(seconds or LONGEST_S, ending)
    return transport


def tunnel_seconds(text: str | None) -> int | None:
    """Return the seconds to ask for, or None for AWS's own limit. Raises CliError for what AWS would not take."""
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) <= LONGEST_S:
        raise CliError(f"{SECONDS_ENV_VAR}={text} is not valid; set it to 1 to {LONGEST_S} seconds", EXIT_USAGE)
    return int(text)


def presigned_url(
    endpoint: Endpoint,
    private_ip: str,
    port: int,
    key: ReadOnlyCredentials | credentials.AccessKey,
    seconds: int | None = None,
) -> str:
    """Return the address that opens a tunnel. seconds: how long it may last; None: as long as AWS allows."""
    asked: dict[str, str | int] = {
        "instanceConnectEndpointId": endpoint.id,
        "privateIpAddress": private_ip,
        "remotePort": port,
    }
    if seconds:
        asked["maxTunnelDuration"] = seconds
    request = AWSRequest(method="GET", url=f"https://{endpoint.dns_name}/openTunnel?{urlencode(asked)}")
    SigV4QueryAuth(key, "ec2-instance-connect", endpoint.region, expires=EXPIRES_S).add_auth(request)  # type: ignore[arg-type]  # AccessKey
    return f"wss://{str(request.url).partition('://')[2]}"


class EndpointTransport:
    """A tunnel. Two threads may use it, one that reads and one that writes.

    The socket never blocks, since OpenSSL's connection is for one thread at a time: what waits holds no lock.
    """

    def __init__(
        self,
        connection: ssl.SSLSocket,
        endpoint: Endpoint,
        target: tuple[str, int],
        deadline: float,
        ping_interval_s: float,
    ) -> None:
        connection.setblocking(False)
        self._socket, self._endpoint, self._target = connection, endpoint, target
        self._deadline: float | None = deadline
        self._ping_interval_s = ping_interval_s
        self._lock = threading.Lock()  # held for the protocol, the TLS connection and what is to be sent
        self._unsent = bytearray()
        self._received: list[bytes] = []
        self._closed: Close | None = None  # what the endpoint said at the end
        self._is_over = False
        self._timer: threading.Timer | None = None
        self._protocol: ClientProtocol

    def open(self, url: str) -> None:
        """Send the presigned request. Raises EndpointError if the endpoint refuses it, or OSError."""
        self._protocol = ClientProtocol(parse_uri(url), max_size=None)
        request = self._protocol.connect()
        request.headers["User-Agent"] = f"notebook-ssh/{__version__}"
        self._protocol.send_request(request)
        self._send()
        response = None
        while response is None:
            response = next((event for event in self._receive() if isinstance(event, Response)), None)
            if response is None and self._is_over:
                raise self._error("ended the connection without an answer")
        if self._protocol.handshake_exc is not None:
            raise self._refusal(response, self._protocol.handshake_exc)

    def announce(self, seconds: int, ending: Callable[[str], None]) -> None:
        """Tell `ending`, once, that the tunnel of so many seconds is about to end."""
        notice = min(NOTICE_S, seconds // 2)
        left = f"{notice // 60} minutes" if notice >= 120 else f"{notice} seconds"
        message = (
            f"AWS ends this connection in {left}: one through an endpoint lasts {seconds // 60 or 1} minutes at most. "
            "Save what is open, and connect again then"
        )
        self._timer = threading.Timer(seconds - notice, ending, [message])
        self._timer.daemon = True
        self._timer.start()

    def banner_received(self) -> None:
        """Remove the time limit."""
        self._deadline = None

    def read(self) -> bytes:
        """Return the next bytes, or none at the end of the stream. Raises EndpointError, or another OSError."""
        while not self._received and not self._is_over:
            self._received += _data(self._receive(), Opcode.BINARY, Opcode.CONT)
        if self._received:
            data, self._received = b"".join(self._received), []
            return data
        if self._closed is not None and self._closed.code not in NORMAL_CLOSURES:
            raise self._closure(self._closed.code, self._closed.reason)
        return b""

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            with self._lock:
                self._protocol.send_binary(data)
        except WebSocketException as error:
            raise ConnectionResetError(str(error)) from error
        self._send()

    def close_write(self) -> None:
        """Announce that no more bytes follow, with a Close frame: the only end that a websocket has.

        What the endpoint sends before its own Close is still read. UNCONFIRMED(endpoint-pings): how much that is.
        """
        with suppress(OSError):
            self._end()

    def close(self) -> None:
        """Close the tunnel."""
        if self._timer is not None:
            self._timer.cancel()
        with suppress(OSError):
            self._end()
        self._is_over = True
        self._socket.close()

    def _end(self) -> None:
        with self._lock:
            if self._protocol.state.name == "OPEN":
                self._protocol.send_close(1000)
        self._send(wait=False)

    def _receive(self) -> list[object]:
        """Wait for bytes of the endpoint, at most until the deadline, and return what they mean."""
        with self._lock:
            try:
                data = self._socket.recv(CHUNK_SIZE)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                data = None
            except (ssl.SSLEOFError, ConnectionError):
                data = b""
            if data:
                self._protocol.receive_data(data)
            elif data is not None:
                self._protocol.receive_eof()
                self._is_over = True
            events: list[object] = list(self._protocol.events_received())
            self._closed = next(map(Close.parse, _data(events, Opcode.CLOSE)), self._closed)
            self._is_over = self._is_over or self._closed is not None or self._protocol.parser_exc is not None
        if data is None:
            self._wait_to_read()
        else:
            with suppress(OSError):  # it has closed: what it sent before is still to be read
                self._send(wait=False)  # the answer to a Ping or a Close
        return events

    def _wait_to_read(self) -> None:
        left = self._ping_interval_s if self._deadline is None else self._deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")  # no TimeoutError on Python 3.9
        if _wait(self._socket, left) or self._deadline is not None:
            return
        with self._lock:
            if self._protocol.state.name == "OPEN":
                self._protocol.send_ping(b"")
        self._send(wait=False)

    def _send(self, *, wait: bool = True) -> None:
        """Send what the protocol has to be sent; without `wait`, what the network takes now. Raises OSError."""
        while True:
            with self._lock:
                self._unsent += b"".join(self._protocol.data_to_send())
                if not self._unsent:
                    return
                try:
                    # TLS wants the same bytes again after it could not send them: they stay first in line.
                    del self._unsent[: self._socket.send(self._unsent)]
                    continue
                except ssl.SSLWantWriteError:
                    pass
            if not wait:
                return
            _wait(self._socket, 1.0, to_write=True)
            if self._is_over:
                raise ConnectionResetError("the connection through the endpoint has ended")

    def _closure(self, code: int, reason: str) -> EndpointError:
        """Return the error for a tunnel that the endpoint closed."""
        host, port = self._target
        if self._deadline is None:
            return self._error(f"ended the connection ({reason or code})")
        return self._error(
            f"could not connect to {host} port {port} (AWS: {reason or code}); the notebook may be restarting, or no "
            "rule of its security group admits the endpoint's"
        )

    def _refusal(self, response: Response, error: Exception) -> OSError:
        """Return the error for a request that was refused. Raises CliError if the reason is this machine's clock."""
        code, message = _reason(response, error)
        host, port = self._target
        said = f"{code}: {message}" if code else message
        if response.status_code in BUSY_STATUSES or any(word in code.lower() for word in BUSY_WORDS):
            return self._error(
                f"has no connection free ({said}): it allows 20 at once; close one, or try again later",
                "endpoint-busy",
                EXIT_ENDPOINT_BUSY,
            )
        remedy, is_denied = "", code in DENIED_CODES
        skew_s = credentials.clock_skew(dict(response.headers.raw_items()), time.time())
        if response.status_code in (401, 403) and not is_denied and abs(skew_s) > EXPIRES_S:
            raise credentials.clock_error(skew_s)
        if is_denied:
            remedy = (
                "; ask the admin for the stack's policy for users, its output UserPolicyArn. Another one must allow "
                f"OpenTunnel for port {port} of {host}, and for {LONGEST_S} seconds or those of {SECONDS_ENV_VAR}"
            )
        return self._error(
            f"refused the tunnel to {host} port {port} ({said}){remedy}", "endpoint-refused", EXIT_ENDPOINT_REFUSED
        )

    def _error(self, what: str, verdict: str = "", exit_code: int | None = None) -> EndpointError:
        return EndpointError(f"endpoint {self._endpoint.id} {what}", verdict, exit_code)


def _wait(connection: socket.socket, seconds: float, *, to_write: bool = False) -> bool:
    """Wait until `connection` can be read, or written; return whether it can."""
    if hasattr(select, "poll"):  # select(2) knows the first 1,024 descriptors alone, and Windows nothing else
        poll = select.poll()
        poll.register(connection, select.POLLOUT if to_write else select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    waiting = [connection]
    return any(select.select([] if to_write else waiting, waiting if to_write else [], [], seconds))


def _data(events: list[object], *opcodes: Opcode) -> Iterator[bytes]:
    """Yield what is in the frames of these kinds."""
    for event in events:
        if isinstance(event, Frame) and event.opcode in opcodes:
            yield bytes(event.data)


def _reason(response: Response, error: Exception) -> tuple[str, str]:
    """Return AWS's code and message; of an answer without, what is wrong with it."""
    try:
        content = json.loads(bytes(response.body or b""))
    except ValueError:
        content = None
    fields = content if isinstance(content, dict) else {}
    code = str(fields.get("ErrorCode") or fields.get("__type") or "")
    return code, str(fields.get("Message") or fields.get("message") or error)[:500]


def _credentials(profile: str | None, region: str) -> ReadOnlyCredentials | credentials.AccessKey:
    """Return the credentials that the stack's API is called with. Nothing is asked: ssh has the terminal."""
    key = credentials.environment_key(profile, os.environ)
    if key is not None:
        return key
    return credentials.load_credentials(credentials.create_session(profile, region, may_ask=False), profile)


def _authorities(profile: str | None, endpoint: Endpoint) -> ssl.SSLContext:
    """Return what verifies the endpoint's certificate: a company's authorities, else the system's, else botocore's."""
    named = credentials.authorities(
        profile, os.environ, lambda: credentials.create_session(profile, endpoint.region, may_ask=False)
    )
    if named is not None:
        return ssl.create_default_context(cafile=named)
    context = ssl.create_default_context()
    if not context.get_ca_certs() and not os.path.isdir(ssl.get_default_verify_paths().capath or ""):
        context.load_verify_locations(cafile=str(get_cert_path(True)))
    return context


def _connect(dns_name: str, timeout_s: float, authorities: ssl.SSLContext) -> ssl.SSLSocket:
    """Connect to the endpoint by TLS, through the HTTP proxy of HTTPS_PROXY unless NO_PROXY has the name."""
    parts = urlsplit(f"https://{dns_name}")
    host, port = str(parts.hostname), parts.port or 443
    proxy = get_environ_proxies(f"https://{dns_name}/").get("https")
    if proxy:
        connection = _connect_by_proxy(proxy, host, port, timeout_s)
    else:
        connection = socket.create_connection((host, port), timeout=timeout_s)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return authorities.wrap_socket(connection, server_hostname=host, suppress_ragged_eofs=False)
    except BaseException:
        connection.close()
        raise


def _connect_by_proxy(proxy: str, host: str, port: int, timeout_s: float) -> socket.socket:
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise CliError(
            f"HTTPS_PROXY={parts.scheme}://{parts.hostname} cannot carry a tunnel; set it to http://host:port",
            EXIT_USAGE,
        )
    headers = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}\r\n"
    return connect_through_proxy((parts.hostname, parts.port or 80), host, port, timeout_s, headers)
