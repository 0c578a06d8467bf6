"""Messages to the stack's own queues."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from notebook_ssh.adapters.clients import call, client
from notebook_ssh.errors import RetryableError
from notebook_ssh.triggers.correlation import FIELD

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

BATCH = 10
"""Most messages of one request (API reference, SendMessageBatch)."""

LONGEST_DELAY = 900
"""Most seconds by which SQS delays a message (API reference, SendMessageBatch, `DelaySeconds`)."""

RULES = "rules"
"""The one message group of the queue for rules: its consumer handles one message after the other."""


def send(queue: str, messages: Iterable[tuple[Mapping[str, object], int]]) -> int:
    """Send messages to a queue, and return how many there were. One request for each ten.

    queue: its URL. messages: pairs of the message and the seconds to delay it.

    Raises RetryableError when a message was not accepted; those sent before it stay sent.
    """
    count = 0
    for batch in _batches(messages):
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {
                "Id": str(number),
                "MessageBody": json.dumps(message),
                "DelaySeconds": max(0, min(delay, LONGEST_DELAY)),
            }
            for number, (message, delay) in enumerate(batch)
        ]
        response = call(client("sqs").send_message_batch, QueueUrl=queue, Entries=entries)
        if response.get("Failed"):
            raise RetryableError(f"SendMessageBatch: {response['Failed'][0].get('Code', 'unknown')}")
        count += len(batch)
    return count


def request_rule_sync(queue: str, reason: str, correlation_id: str) -> None:
    """Request that the rules reconciler compares all rules again. correlation_id: appears in its logs."""
    call(
        client("sqs").send_message,
        QueueUrl=queue,
        MessageBody=json.dumps({"request": RULES, "reason": reason, FIELD: correlation_id}),
        MessageGroupId=RULES,
        # A message about a second change must not be dropped as a duplicate of the first.
        MessageDeduplicationId=uuid.uuid4().hex,
    )


def _batches(messages: Iterable[tuple[Mapping[str, object], int]]) -> Iterator[list[tuple[Mapping[str, object], int]]]:
    rest = iter(messages)
    while batch := list(islice(rest, BATCH)):
        yield batch
