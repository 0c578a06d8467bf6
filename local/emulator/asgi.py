"""What the applications that stand before the emulator have in common: reading a request, and answering in JSON."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def header(scope: Message, name: str) -> str:
    """A header of a request, by its name in lower case; empty without it."""
    wanted = name.encode()
    return next((str(value, "latin-1") for each, value in scope.get("headers", ()) if each.lower() == wanted), "")


def access_key(scope: Message) -> str:
    """The access key that signed a request; empty without one."""
    return header(scope, "authorization").partition("Credential=")[2].partition("/")[0]


class Answer:
    """What an application answered in JSON, as far as it is an error."""

    def __init__(self) -> None:
        self._status, self._body = 0, b""

    def heard_by(self, send: Send) -> Send:
        """`send`, which this hears as well."""

        async def heard(message: Message) -> None:
            self._status = message.get("status", self._status)
            self._body += message.get("body", b"")
            await send(message)

        return heard

    @property
    def error(self) -> str | None:
        """The code of the error, if it is one."""
        if self._status < 400:
            return None
        return str(json.loads(self._body).get("__type", "")).rpartition("#")[2]


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request."""
    whole, more = b"", True
    while more:
        message = await receive()
        whole += message.get("body", b"")
        more = message.get("more_body", False)
    return whole


def unread(body: bytes, receive: Receive) -> Receive:
    """`receive` as it was before `body` was read from it."""
    given = [body]

    async def read() -> Message:
        return {"type": "http.request", "body": given.pop(), "more_body": False} if given else await receive()

    return read


async def respond(send: Send, status: int, content: object) -> None:
    """Answer with `content` as JSON."""
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/x-amz-json-1.1"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
