"""Lambda: CloudFormation's custom resource, for the end of the stack. It gives everything back and says what it could not.

On Create and Update it only opens the stack for work. On Delete it closes it to everybody else, restores every
script to the byte, detaches what is ours, removes status tags, forgets the records and takes our rules away.
Each step is whole in itself and found done when it is tried again: a deletion that failed goes on where it was.
Whatever happens, CloudFormation gets its answer: without one it would wait for an hour.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from notebook_ssh.adapters.lease import Leases
from notebook_ssh.adapters.table import Table
from notebook_ssh.adapters.write_slots import WriteSlots
from notebook_ssh.settings import read_settings
from notebook_ssh.triggers.correlation import correlation_of
from reconcile_notebook.policy import load_policy
from reconcile_notebook.reconcile import Dependencies
from uninstall.farewell import TeardownResult, tear_down

logger = Logger()

REASON_LIMIT = 1_000
"""Characters of the reason that CloudFormation takes: a response has at most 4,096 bytes, and a character up to three."""


def handle(event: Mapping[str, Any], context: LambdaContext) -> None:
    """One request of CloudFormation (User Guide, "Custom resource request objects") → its answer."""
    logger.append_keys(
        correlation_id=correlation_of(event.get("RequestId")), function_request_id=context.aws_request_id
    )
    try:
        left = _work(event["RequestType"], context)
    except Exception as error:
        # Nothing may keep the answer from being sent; the log has the rest.
        logger.exception("failed")
        left = TeardownResult(failed=[f"{type(error).__name__}: {error}."])
    logger.info("answered", extra={"done": left.done, "said": left.message})
    answer(event, left, context.log_stream_name)


def _work(request: str, context: LambdaContext) -> TeardownResult:
    settings = read_settings()
    table = Table(settings.table)
    remaining = context.get_remaining_time_in_millis
    slots = WriteSlots(table, remaining, _milliseconds, time.sleep, is_teardown=True)
    if request != "Delete":
        slots.cancel_teardown()
        return TeardownResult()
    slots.begin_teardown()
    return tear_down(
        Dependencies(
            settings=settings,
            policy=load_policy(settings),
            table=table,
            slots=slots,
            leases=Leases(table, remaining, _milliseconds),
            clock=lambda: int(time.time()),
        )
    )


def _milliseconds() -> int:
    return int(time.time() * 1000)


def answer(event: Mapping[str, Any], left: TeardownResult, log: str) -> None:
    """Tell CloudFormation (User Guide, "Custom resource response objects")."""
    body = json.dumps(
        {
            "Status": "SUCCESS" if left.done else "FAILED",
            "Reason": f"{left.message[:REASON_LIMIT]} (log stream {log})",
            "PhysicalResourceId": event.get("PhysicalResourceId") or f"{event['LogicalResourceId']}-farewell",
            "StackId": event["StackId"],
            "RequestId": event["RequestId"],
            "LogicalResourceId": event["LogicalResourceId"],
        }
    ).encode()
    # The address comes from CloudFormation itself: a presigned one, of S3. It wants no content type.
    address = event["ResponseURL"]
    request = urllib.request.Request(address, data=body, method="PUT", headers={"Content-Type": ""})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass
