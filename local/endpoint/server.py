"""A stand-in for an EC2 Instance Connect Endpoint: TLS, presigned requests, a websocket joined to a TCP connection.

What decides is the caller's: who holds a key, whether a policy allows the tunnel, and where an address really is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any, cast

import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from endpoint.requests import BUSY, LONGEST_S, Refusal, SecretOf, Tunnel, read_request
from patience import LIMIT_S

CHUNK_SIZE = 64 * 1024

LOGGER = logging.getLogger("endpoint")
LOGGER.setLevel(logging.WARNING)  # not every connection

MAY_NOT_CONNECT = "Unable to connect to target"
"""What the AWS CLI prints when nothing answers at the address: the tunnel was opened before, and is closed with it."""

Target = tuple[str, int]


@dataclass(frozen=True)
class Limits:
    """Of one endpoint (EC2 User Guide, "EC2 Instance Connect Endpoint quotas")."""

    connections: int = 20
    seconds: float = LONGEST_S
    connect_s: float = 5.0
    """How long it tries to reach an address. UNCONFIRMED(endpoint-refusals)."""


@dataclass(frozen=True)
class Unknowns:
    """What is not known of a real endpoint, each as the stand-in has it (docs/facts.md).

    reword: a refusal as it is sent. no_answer: what a tunnel is closed with when nothing answers at its address.
    answers_pings: whether a Pong comes for a Ping.
    """

    reword: Callable[[Refusal], Refusal] = lambda refusal: refusal
    no_answer: Callable[[], str] = lambda: MAY_NOT_CONNECT
    answers_pings: Callable[[], bool] = lambda: True


class EndpointServer:
    """Endpoints of one region, on a free port of 127.0.0.1; `start` returns when it listens.

    authority: the file to write with the authority that clients are to trust. secret_of: who holds an access key.
    may_open: None if a policy allows the tunnel, else the refusal. find_target: where the tunnel's address really is,
    None if nothing is there; it may also name an address to connect from. names: what the certificate is for.
    """

    def __init__(
        self,
        authority: Path,
        secret_of: SecretOf,
        may_open: Callable[[Tunnel], Refusal | None],
        find_target: Callable[[Tunnel], tuple[Target, str | None] | None],
        *,
        limits: Limits = Limits(),
        unknowns: Unknowns = Unknowns(),
        names: Sequence[str] = ("localhost", "127.0.0.1"),
        clock: Callable[[], float] = time.time,
        port: int = 0,
    ) -> None:
        self._secret_of, self._may_open, self._find_target = secret_of, may_open, find_target
        self._limits, self._clock, self._wanted_port = limits, clock, port
        self._unknowns = unknowns
        self._tls = _tls(authority, names)
        self._loop = asyncio.new_event_loop()
        self._open: set[ServerConnection] = set()
        self.opened: list[Tunnel] = []
        """Every tunnel that was opened, oldest first."""
        self.refused: list[Refusal] = []

    def start(self) -> EndpointServer:
        """Serve in a thread. Raises OSError if the port is taken."""
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        self._server = self._call(self._serve())
        self.port: int = next(iter(self._server.sockets)).getsockname()[1]
        return self

    @property
    def open_count(self) -> int:
        """How many tunnels are open. One whose client left before it was joined has no end of its own."""
        return sum(connection.state is not State.CLOSED for connection in list(self._open))

    def end_tunnels(self) -> None:
        """Cut every open tunnel, as a network does that fails."""

        async def cut() -> None:
            for connection in list(self._open):
                connection.transport.abort()

        self._call(cut())

    def close(self) -> None:
        """Serve no more, and cut every tunnel."""

        async def end() -> None:
            for connection in list(self._open):
                connection.transport.abort()
            self._server.close()
            await self._server.wait_closed()
            await asyncio.sleep(0)  # what was cut off is told so in the next round of the loop

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(LIMIT_S)

    async def _serve(self) -> Any:
        return await serve(
            self._relay,
            "127.0.0.1",
            self._wanted_port,
            ssl=self._tls,
            process_request=self._judge,
            # Any callable does that returns such a connection.
            create_connection=cast(Any, partial(_Connection, self._unknowns.answers_pings)),
            compression=None,
            max_size=None,
            server_header=None,
            logger=LOGGER,
        )

    async def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse the request, or let the tunnel be opened."""
        found = read_request(request.path, request.headers.get("Host", ""), self._clock(), self._secret_of)
        refusal = found if isinstance(found, Refusal) else self._refusal(found)
        if refusal is not None:
            refusal = self._unknowns.reword(refusal)
            self.refused.append(refusal)
            return _response(refusal, self._clock())
        tunnel = cast(Tunnel, found)
        self.opened.append(tunnel)
        self._open.add(connection)
        connection.tunnel = tunnel  # type: ignore[attr-defined]
        return None

    def _refusal(self, tunnel: Tunnel) -> Refusal | None:
        return self._may_open(tunnel) or (BUSY if self.open_count >= self._limits.connections else None)

    async def _relay(self, connection: ServerConnection) -> None:
        """Join the websocket to the address until either ends, or the time is over."""
        tunnel: Tunnel = connection.tunnel  # type: ignore[attr-defined]
        try:
            target = self._find_target(tunnel)
            joined = await self._connect(*target) if target else None
            if joined is None:
                await connection.close(1011, self._unknowns.no_answer())
                return
            reader, writer = joined
            ways = [asyncio.ensure_future(_up(connection, writer)), asyncio.ensure_future(_down(reader, connection))]
            seconds = min(tunnel.seconds or self._limits.seconds, self._limits.seconds)
            await asyncio.wait(ways, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            await _end(ways)
            writer.close()
            await connection.close()
        finally:
            self._open.discard(connection)

    async def _connect(
        self, target: Target, source: str | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        local = (source, 0) if source else None
        try:
            opening = asyncio.open_connection(*target, local_addr=local)
            return await asyncio.wait_for(opening, self._limits.connect_s)
        except (OSError, asyncio.TimeoutError):
            return None


class _Connection(ServerConnection):
    """A websocket that leaves out Pongs unless `answers_pings`."""

    def __init__(self, answers_pings: Callable[[], bool], protocol: ServerProtocol, *rest: Any, **more: Any) -> None:
        super().__init__(protocol, *rest, **more)
        send = protocol.send_frame

        def send_frame(frame: Frame) -> None:
            if frame.opcode is not Opcode.PONG or answers_pings():
                send(frame)

        protocol.send_frame = send_frame  # type: ignore[method-assign]


async def _up(connection: ServerConnection, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        async for message in connection:
            if isinstance(message, str):
                return
            writer.write(message)
            await writer.drain()


async def _down(reader: asyncio.StreamReader, connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        while data := await reader.read(CHUNK_SIZE):
            await connection.send(data)


async def _end(tasks: Iterable[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _response(refusal: Refusal, now: float) -> Response:
    body = json.dumps({"ErrorCode": refusal.code, "Message": refusal.message}).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
    headers["Date"] = formatdate(now, usegmt=True)
    return Response(refusal.status, refusal.code, headers, body)


def _tls(authority: Path, names: Sequence[str]) -> ssl.SSLContext:
    made = trustme.CA(organization_name="notebook-ssh local run")
    made.cert_pem.write_to_path(str(authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert(*names).configure_cert(context)
    return context
