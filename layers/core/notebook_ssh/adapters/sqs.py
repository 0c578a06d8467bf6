"""Messages to our own queues."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters.clients import client, retryable
from notebook_ssh.errors import RetryableError
from notebook_ssh.triggers.correlation import FIELD

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

BATCH = 10
"""Most messages of one request (SendMessageBatch)."""

LONGEST_DELAY = 900
"""Most seconds that SQS holds a message back (`DelaySeconds`)."""

BASTION = "bastion"
"""The one group of the bastion queue: its consumer works strictly one after the other."""


def send(queue: str, messages: Iterable[tuple[Mapping[str, object], int]]) -> int:
    """Put messages into the queue `queue` (URL), each with the seconds to hold it back. Answers how many there were.

    One request for each ten. RetryableError when one of them was not taken; those already sent stay sent.
    """
    count = 0
    for batch in _tens(messages):
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {
                "Id": str(number),
                "MessageBody": json.dumps(message),
                "DelaySeconds": max(0, min(delay, LONGEST_DELAY)),
            }
            for number, (message, delay) in enumerate(batch)
        ]
        answer = _ask(client("sqs").send_message_batch, QueueUrl=queue, Entries=entries)
        if answer.get("Failed"):
            raise RetryableError(f"SendMessageBatch: {answer['Failed'][0].get('Code', 'unknown')}")
        count += len(batch)
    return count


def request_bastion_resync(queue: str, reason: str, correlation_id: str) -> None:
    """Ask the bastion reconciler to look at all rules once more; what comes of it goes by `correlation_id` in the logs."""
    _ask(
        client("sqs").send_message,
        QueueUrl=queue,
        MessageBody=json.dumps({"request": "bastion", "reason": reason, FIELD: correlation_id}),
        MessageGroupId=BASTION,
        # A second message about a second change must not be taken for a repetition of the first.
        MessageDeduplicationId=uuid.uuid4().hex,
    )


def _tens(messages: Iterable[tuple[Mapping[str, object], int]]) -> Iterator[list[tuple[Mapping[str, object], int]]]:
    rest = iter(messages)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _ask(call: Callable[..., Any], **given: Any) -> Any:
    try:
        return call(**given)
    except (ClientError, BotoCoreError) as error:
        raise (retryable(error) or error) from error
