"""Lambda: events and requests for notebooks and lifecycle configurations → reconciled, each once for a batch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from notebook_ssh.adapters.lease import Leases
from notebook_ssh.adapters.metrics import count_failed_requests, metrics
from notebook_ssh.adapters.table import Table
from notebook_ssh.adapters.write_slots import WriteSlots
from notebook_ssh.controllers.block_policy import load_policy
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.controllers.requests import process
from notebook_ssh.settings import read_settings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handle(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Process a batch of messages; return those to deliver again (SQS, `ReportBatchItemFailures`)."""
    settings = read_settings()
    table = Table(settings.table)
    remaining = context.get_remaining_time_in_millis
    deps = Dependencies(
        settings=settings,
        policy=load_policy(settings),
        table=table,
        slots=WriteSlots(table, remaining, _milliseconds, time.sleep),
        leases=Leases(table, remaining, _milliseconds),
        clock=lambda: int(time.time()),
    )
    failed = process(event["Records"], deps, context.function_name)
    count_failed_requests(len(failed))
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in sorted(failed)]}


def _milliseconds() -> int:
    return int(time.time() * 1000)
