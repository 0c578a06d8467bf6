"""Taking turns through the table: one SageMaker write a second for all workers, one worker for each configuration.

SageMaker allows one control-plane write a second for an account and region, and that cannot be raised
(docs: "Amazon SageMaker endpoints and quotas"). So each write takes a slot first, and waits for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters.clients import client, code_of, retryable
from notebook_ssh.adapters.table import COORDINATION, Table, key, to_attribute
from notebook_ssh.errors import RetryableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

WRITE_SLOT = "sagemaker-writes"

MIN_INTERVAL_MS = 1_080
"""Milliseconds between two writes: the second, and a margin for one whose last look took longer than the next one's."""

SLOT_TOLERANCE_MS = 150
"""Milliseconds for which a slot is good, a last look included: whoever comes later comes too close to the next."""

SHUTDOWN_MARGIN_MS = 10_000
"""Milliseconds kept free at the end of an invocation, to finish a write, verify it and save the record."""


class SlotUnavailableError(RetryableError):
    """There is no turn for us within the time that we have. after: seconds after which to try again."""

    def __init__(self, what: str, after: int) -> None:
        super().__init__(f"no turn for {what}; again in {after} s")
        self.after = after


@dataclass(frozen=True, slots=True)
class Turns:
    """Turns for one invocation.

    remaining: milliseconds left of it (the Lambda context's own method).
    clock: milliseconds since the epoch. sleep: takes seconds.
    last: these are the turns of the stack's own end, which are given although all others are closed.
    """

    table: Table
    remaining: Callable[[], int]
    clock: Callable[[], int]
    sleep: Callable[[float], None]
    last: bool = False

    def close(self) -> None:
        """From now on nobody gets a turn to write but the stack's own end."""
        self._block_ref("SET #closed = :true", {":true": to_attribute(True)})

    def cancel_teardown(self) -> None:
        """Everybody gets turns again."""
        self._block_ref("REMOVE #closed", {})

    def over(self) -> bool:
        """Whether there is no time left for a turn: who would need one looks in vain."""
        return self.remaining() <= SHUTDOWN_MARGIN_MS

    def take(self, ahead: int = 0) -> int:
        """Take the next free slot that is at least `ahead` milliseconds away; its moment, in milliseconds since the epoch.

        SlotUnavailableError, with no slot taken, when it comes too late for us.
        """
        while True:
            now = self.clock()
            soonest, latest = now + ahead, now + self.remaining() - SHUTDOWN_MARGIN_MS
            open_to_us = "" if self.last else "attribute_not_exists(#closed) AND "
            free_by_then = open_to_us + "(attribute_not_exists(#next) OR #next <= :soonest)"
            queue_fits = open_to_us + "#next > :soonest AND #next <= :latest"
            if latest < soonest:
                raise SlotUnavailableError("a write", after=1)
            if self._advance(free_by_then, soonest=soonest, to=soonest + MIN_INTERVAL_MS) is not None:
                return soonest
            before = self._advance(queue_fits, soonest=soonest, latest=latest)
            if before is not None:
                return before
            item = self.table.item(COORDINATION, WRITE_SLOT, consistent=True)
            if item and item.get("closed") and not self.last:
                raise SlotUnavailableError("a write, because the stack is being deleted", after=900)
            next_free = int(item.get("next", now)) if item else now
            if next_free > latest:
                raise SlotUnavailableError("a write", after=max(1, (next_free - now) // 1000))

    def wait_until(self, moment: int) -> None:
        """Sleep until `moment`, in milliseconds since the epoch; not at all when it has passed."""
        self.sleep(max(0, moment - self.clock()) / 1000)

    def keep(self, turn: int | None) -> int:
        """Wait for the slot at `turn`; for another one when there is none, or when it is over. The moment of the slot."""
        if turn is None or self.missed(turn):
            turn = self.take()
        self.wait_until(turn)
        return turn

    def missed(self, turn: int) -> bool:
        """Whether it is too late for the slot at `turn`."""
        return self.clock() > turn + SLOT_TOLERANCE_MS

    @contextmanager
    def alone(self, *names: str) -> Iterator[None]:
        """Hold `names` while inside. SlotUnavailableError when another worker holds one of them.

        What is held ends with the invocation at the latest: a worker that was killed blocks nobody for longer.
        """
        with ExitStack() as held:
            for name in sorted(names):
                held.enter_context(self._hold(f"alone/{name}"))
            yield

    def _advance(self, condition: str, *, soonest: int, to: int | None = None, latest: int | None = None) -> int | None:
        """Move the next free slot on, `to` there or by one; the slot before, or None when the condition fails."""
        values = {":soonest": to_attribute(soonest)}
        values |= {":to": to_attribute(to)} if to is not None else {":between": to_attribute(MIN_INTERVAL_MS)}
        values |= {":latest": to_attribute(latest)} if latest is not None else {}
        try:
            answer = client("dynamodb").update_item(
                TableName=self.table.name,
                Key=key(COORDINATION, WRITE_SLOT),
                UpdateExpression="SET #next = :to" if to is not None else "SET #next = #next + :between",
                ConditionExpression=condition,
                ExpressionAttributeNames={"#next": "next"} | ({} if self.last else {"#closed": "closed"}),
                ExpressionAttributeValues=values,
                ReturnValues="UPDATED_OLD",
            )
        except (ClientError, BotoCoreError) as error:
            if code_of(error) == "ConditionalCheckFailedException":
                return None
            raise (retryable(error) or error) from error
        return int(answer.get("Attributes", {}).get("next", {"N": "0"})["N"])

    def _block_ref(self, update: str, values: dict[str, AttributeValueTypeDef]) -> None:
        given: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
        try:
            client("dynamodb").update_item(
                TableName=self.table.name,
                Key=key(COORDINATION, WRITE_SLOT),
                UpdateExpression=update,
                ExpressionAttributeNames={"#closed": "closed"},
                **given,
            )
        except (ClientError, BotoCoreError) as error:
            raise (retryable(error) or error) from error

    @contextmanager
    def _hold(self, name: str) -> Iterator[None]:
        holder = uuid.uuid4().hex
        now = self.clock()
        until = now + self.remaining()
        # Or we do, by a first try whose answer was lost, so that botocore sent it again.
        nobody_holds_it = "attribute_not_exists(#until) OR #until <= :now OR #holder = :holder"
        try:
            client("dynamodb").update_item(
                TableName=self.table.name,
                Key=key(COORDINATION, name),
                UpdateExpression="SET #until = :until, #holder = :holder, #expires = :expires",
                ConditionExpression=nobody_holds_it,
                ExpressionAttributeNames={"#until": "until", "#holder": "holder", "#expires": "expires"},
                ExpressionAttributeValues={
                    ":now": to_attribute(now),
                    ":until": to_attribute(until),
                    ":holder": to_attribute(holder),
                    ":expires": to_attribute(until // 1000 + 3_600),
                },
            )
        except (ClientError, BotoCoreError) as error:
            if code_of(error) == "ConditionalCheckFailedException":
                raise SlotUnavailableError(name, after=5) from None
            raise (retryable(error) or error) from error
        try:
            yield
        finally:
            self._release(name, holder)

    def _release(self, name: str, holder: str) -> None:
        still_ours = "#holder = :holder"
        try:
            client("dynamodb").delete_item(
                TableName=self.table.name,
                Key=key(COORDINATION, name),
                ConditionExpression=still_ours,
                ExpressionAttributeNames={"#holder": "holder"},
                ExpressionAttributeValues={":holder": to_attribute(holder)},
            )
        except (ClientError, BotoCoreError) as error:
            if code_of(error) != "ConditionalCheckFailedException":
                raise (retryable(error) or error) from error
