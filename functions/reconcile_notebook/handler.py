"""Lambda: events and requests for notebooks and lifecycle configurations → reconciled, each once for a batch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric
from aws_lambda_powertools.utilities.typing import LambdaContext

from notebook_ssh.adapters.lease import Leases
from notebook_ssh.adapters.table import Table
from notebook_ssh.adapters.write_slots import WriteSlots
from notebook_ssh.controllers.block_policy import load_policy
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.controllers.requests import process
from notebook_ssh.settings import read_settings

logger = Logger()


def handle(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Process a batch of messages; return those to deliver again (SQS, `ReportBatchItemFailures`)."""
    logger.append_keys(function_request_id=context.aws_request_id)
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
    if failed:
        with single_metric(name="FailedRequests", unit=MetricUnit.Count, value=len(failed), namespace="notebook-ssh"):
            pass  # printed at the end of the block; Lambda counts a run that fails as a whole, and not these
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in sorted(failed)]}


def _milliseconds() -> int:
    return int(time.time() * 1000)
