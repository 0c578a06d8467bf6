"""Lambda: events and requests for notebooks and lifecycle configurations → reconciled, each once for a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from notebook_ssh.adapters.metrics import count_failed_requests, metrics
from notebook_ssh.controllers.block_policy import load_policy
from notebook_ssh.controllers.dependencies import dependencies
from notebook_ssh.controllers.requests import process
from notebook_ssh.planning.observation import BlockPolicy
from notebook_ssh.settings import Settings, read_settings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handle(
    event: Mapping[str, Any],
    context: LambdaContext,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    policy: Callable[[Settings], BlockPolicy] = load_policy,
) -> dict[str, Any]:
    """Process a batch of messages; return those to deliver again (SQS, `ReportBatchItemFailures`)."""
    settings = read_settings()
    deps = dependencies(settings, policy(settings), context.get_remaining_time_in_millis, clock, sleep)
    failed = process(event["Records"], deps, context.function_name)
    count_failed_requests(len(failed))
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in sorted(failed)]}
