"""FIFO queues that take no more than so many calls a second, while the answer to `fifo-rate` is that they are throttled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from ministack.services import sqs

from emulator import answers
from emulator.rates import Throttle

CALLS_A_SECOND = 20
"""For each queue and call. The service's figure is 300, which a test could not reach here."""

_THROTTLED = ("SendMessage", "SendMessageBatch", "ReceiveMessage", "DeleteMessage", "DeleteMessageBatch")


def limit_fifo_queues() -> None:
    """From now on FIFO queues are throttled when the answer says so."""
    for action in _THROTTLED:
        sqs._HANDLERS[action] = _limited(sqs._HANDLERS[action])


def _limited(act: Callable[[dict[str, Any], str], Any]) -> Callable[[dict[str, Any], str], Any]:
    throttles: defaultdict[str, Throttle] = defaultdict(lambda: Throttle(CALLS_A_SECOND, _refusal))

    def call(data: dict[str, Any], url: str) -> Any:
        queue = str(data.get("QueueUrl", url))
        if queue.endswith(".fifo") and answers.of("fifo-rate") == "throttled":
            throttles[queue].take()
        return act(data, url)

    return call


def _refusal() -> Exception:
    """(SQS API Reference, SendMessage, "Errors".)"""
    refusal: Exception = sqs._Err("RequestThrottled", "The request was denied due to request throttling.")
    return refusal
