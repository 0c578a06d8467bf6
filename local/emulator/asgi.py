"""What the applications that stand before the emulator have in common: reading a request, and answering in JSON."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


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
