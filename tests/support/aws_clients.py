"""What stands between the adapters and AWS: answers given at botocore's events, and clients of a test's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from botocore import xform_name

from notebook_ssh.adapters import clients

_listeners: list[Callable[[], None]] = []
"""What ends each of them."""


def listen(service: Any, event: str, do: Callable[..., Any]) -> Callable[[], None]:
    """Call `do` at an event of a client until what is returned is called, or `forget_listeners`."""
    service.meta.events.register(event, do)

    def end() -> None:
        service.meta.events.unregister(event, do)

    _listeners.append(end)
    return end


def forget_listeners() -> None:
    """Nobody listens any more. The clients stay: to make those of one account takes 50 ms."""
    while _listeners:
        _listeners.pop()()


def forget_clients() -> None:
    """Let the adapters make new clients, to which no test listens."""
    clients._client.cache_clear()
    clients._session.cache_clear()


@contextmanager
def clients_made_by(make: Callable[[str], Any]) -> Iterator[None]:
    """Let the adapters get their clients from `make`, which is given the service's name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "_client", make)
        yield


def before_each_call(service: Any, do: Callable[[str, dict[str, Any]], None]) -> Callable[[], None]:
    """Call `do` before each request of a client, with the method's name and the parameters; returns what ends that."""

    def tell(params: dict[str, Any], model: Any, **_: Any) -> None:
        do(xform_name(model.name), params)

    return listen(service, "provide-client-params", tell)


def answer_each(service: Any, operation: str, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each request of a client for `operation` with what `answer` returns. For services that speak JSON."""

    def reply(params: dict[str, Any], **_: Any) -> Any:
        return SimpleNamespace(status_code=200), answer(json.loads(params["body"]))

    listen(service, f"before-call.*.{operation}", reply)


def change_each_answer(service: Any, change: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Let `change` alter each answer to a client; returns what ends that."""

    def alter(parsed: dict[str, Any], **_: Any) -> None:
        change(parsed)

    return listen(service, "after-call", alter)
