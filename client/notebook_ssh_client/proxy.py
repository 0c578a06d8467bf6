"""ProxyCommand: carry ssh's bytes to wherever the notebook is now.

The remembered address is tried first and proves itself by greeting (`SSH-…`, RFC 4253 section 4.2: the server
speaks first). If nothing greets in time, the stack is asked, and a sleeping notebook may be woken.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

from notebook_ssh_client import known_hosts, remembered
from notebook_ssh_client.failures import NO_ANSWER, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from notebook_ssh_client.remembered import Place

    Link = Union["Direct", "ThroughBastion"]

PATIENCE_REMEMBERED = 2.0
PATIENCE_FRESH = 20.0
"""Seconds for connecting and greeting, at a remembered address and at one the stack just gave."""

PATIENCE_BASTION = 120.0
"""The same through a bastion, where a person may have to type a passphrase or touch a key."""

WEB_PROXY = "NOTEBOOK_SSH_PROXY"
"""Names an HTTP proxy that lets connections through. Not HTTPS_PROXY: most of those refuse all ports but 443."""

CHUNK = 64 * 1024
GREETING_LIMIT = 16 * 1024
"""Bytes that a server may send before its greeting; OpenSSH's own limit is 1024 lines."""


class Direct:
    """A TCP connection."""

    def __init__(self, place: Place, patience: float) -> None:
        self._deadline = time.monotonic() + patience
        self._socket = _dial(place.host, place.port, patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def greeted(self) -> None:
        """The other side has proved itself: from now on there is no time limit."""
        self._socket.settimeout(None)
        self._deadline = 0.0

    def read(self) -> bytes:
        """The next bytes, or none at the end."""
        if self._deadline:
            self._socket.settimeout(max(0.01, self._deadline - time.monotonic()))
        return self._socket.recv(CHUNK)

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        self._socket.sendall(data)

    def finish(self) -> None:
        """Say that nothing more will be written; reading goes on."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def _dial(host: str, port: int, patience: float) -> socket.socket:
    """A TCP connection, through an HTTP proxy when WEB_PROXY names one (RFC 9110 section 9.3.6, CONNECT)."""
    proxy = os.environ.get(WEB_PROXY)
    if not proxy:
        return socket.create_connection((host, port), timeout=patience)
    proxy_host, _, proxy_port = proxy.partition("://")[2].rstrip("/").rpartition(":")
    if not proxy.startswith("http://") or not proxy_port.isdecimal():
        raise Failure(f"{WEB_PROXY}={proxy} is not of the form http://host:port", USAGE)
    dialled = socket.create_connection((proxy_host, int(proxy_port)), timeout=patience)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    dialled.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = dialled.recv(1)  # one at a time: what follows the empty line is the notebook's already
        if not byte or len(answer) > GREETING_LIMIT:
            break
        answer += byte
    status = answer.split(b" ", 2)[1:2]
    if status != [b"200"]:
        dialled.close()
        first = answer.partition(b"\r\n")[0].decode("ascii", "replace")
        raise ConnectionError(f"the proxy {proxy} refuses: {first or 'no answer'}")
    return dialled


class ThroughBastion:
    """`ssh -W` to the bastion, with the person's own configuration, keys and agent for it."""

    def __init__(self, command: list[str]) -> None:
        import subprocess

        its_input, self._up = os.pipe()
        self._down, its_output = os.pipe()
        self._process = subprocess.Popen(command, stdin=its_input, stdout=its_output)
        os.close(its_input)
        os.close(its_output)
        self._limit = threading.Timer(PATIENCE_BASTION, self._process.kill)
        self._limit.daemon = True
        self._limit.start()

    def greeted(self) -> None:
        """The other side has proved itself: from now on there is no time limit."""
        self._limit.cancel()

    def read(self) -> bytes:
        """The next bytes, or none at the end."""
        return os.read(self._down, CHUNK)

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        _write_all(self._up, data)

    def finish(self) -> None:
        """Say that nothing more will be written; reading goes on."""
        os.close(self._up)

    def close(self) -> None:
        """End the jump."""
        self._limit.cancel()
        self._process.terminate()
        self._process.wait()
        os.close(self._down)


def jump_command(host: str, port: int, bastion: tuple[str, str, int]) -> list[str]:
    """The words that open a connection from the bastion to the notebook (ssh(1), -W)."""
    bastion_host, user, bastion_port = bastion
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # The person's own `Port` for the bastion counts unless the stack names another than ssh's.
    at = ["-p", str(bastion_port)] if bastion_port != 22 else []
    options = ["-o", "ConnectTimeout=20", "-o", "ClearAllForwardings=yes", "-l", user, *at]
    return ["ssh", *options, "-W", target, "--", bastion_host]


def reach(place: Place, patience: float) -> tuple[Link, bytes]:
    """A connection to `place` and the bytes it has already said. Raises OSError when it does not greet in time."""
    link: Link
    if place.bastion:
        link = ThroughBastion(jump_command(place.host, place.port, place.bastion))
    else:
        link = Direct(place, patience)
    try:
        said = b""
        while not said.startswith(b"SSH-") and b"\nSSH-" not in said:
            data = link.read()
            if not data or len(said) > GREETING_LIMIT:
                raise ConnectionError(f"{place.host} port {place.port} closes the connection without an SSH greeting")
            said += data
    except BaseException:
        link.close()
        raise
    link.greeted()
    return link, said


def unreachable(place: Place, error: OSError) -> str:
    """Why `place` cannot be reached, and what to look at."""
    at = f"{place.host} port {place.port}"
    if place.bastion:
        return f"{at} does not answer through the bastion {place.bastion[0]} ({error}); ssh's own words above say why"
    return f"{at} does not answer ({error}); your network may not let you out to that port"


def relay(link: Link, said: bytes, source: int, sink: int) -> None:
    """Carry bytes both ways until the notebook ends the connection; the end of `source` is passed on."""

    def upwards() -> None:
        try:
            while data := os.read(source, CHUNK):
                link.write(data)
            link.finish()
        except OSError:
            return  # the other direction sees the end and finishes the relay

    threading.Thread(target=upwards, daemon=True).start()
    try:
        _write_all(sink, said)
        while data := link.read():
            _write_all(sink, data)
    except (BrokenPipeError, ConnectionResetError):
        return  # ssh has gone, or the notebook has: nobody is left to tell
    except OSError as error:
        if error.errno != errno.EINVAL:  # Windows' word for a pipe that has no reader any more
            raise


def connect(home: str, host: str, port: int, max_age: float) -> tuple[Link, bytes]:
    """A connection to the notebook called `host`, with ssh's known_hosts file made ready for it."""
    place = remembered.recall(home, host, now=time.time(), max_age=max_age)
    if place:
        try:
            link, said = reach(place, PATIENCE_REMEMBERED)
        except OSError:
            remembered.forget(home, host)
        else:
            known_hosts.update_file(home, host, port, place.host_keys)
            return link, said
    return _connect_afresh(home, host, port)


def _connect_afresh(home: str, host: str, port: int) -> tuple[Link, bytes]:
    from notebook_ssh_client import lookup

    place = lookup.find(home, host, wake=True)
    known_hosts.update_file(home, host, port, place.host_keys)
    try:
        link, said = reach(place, PATIENCE_FRESH)
    except OSError as error:
        raise Failure(f"{unreachable(place, error)}; see also: notebook-ssh doctor {host}", NO_ANSWER) from error
    remembered.remember(home, host, place)
    lookup.refresh_names_meanwhile(home)
    return link, said


def main(words: list[str], home: str) -> int:
    """`proxy [--max-age SECONDS] HOST PORT`: be ssh's ProxyCommand."""
    max_age = float(remembered.MAX_AGE)
    if words[:1] == ["--max-age"] and len(words) > 1:
        max_age, words = float(words[1]), words[2:]
    if len(words) != 2:
        raise Failure(
            "usage: notebook-ssh proxy [--max-age SECONDS] %h %p (ssh calls this; people don't need to)", USAGE
        )
    # Windows has no shell to take the quotes away that protect other systems' shells.
    host, port = words[0].strip("'").lower(), int(words[1])
    link, said = connect(home, host, port, max_age)
    _binary(0, 1)
    relay(link, said, source=0, sink=1)
    link.close()
    return 0


def _binary(*descriptors: int) -> None:
    """Keep Windows from translating line ends in what ssh sends."""
    if os.name == "nt":
        import msvcrt

        for descriptor in descriptors:
            msvcrt.setmode(descriptor, os.O_BINARY)  # type: ignore[attr-defined,unused-ignore]


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
