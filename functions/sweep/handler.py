"""Lambda: the schedule → what needs to be reconciled, queued."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from notebook_ssh.adapters.metrics import metrics
from notebook_ssh.controllers.agent_layer import WorkerProgram, load_worker
from notebook_ssh.controllers.block_policy import load_policy
from notebook_ssh.controllers.sweep import sweep
from notebook_ssh.planning.observation import BlockPolicy
from notebook_ssh.settings import Settings, read_settings
from notebook_ssh.triggers.correlation import correlation_of

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
    policy: Callable[[Settings], BlockPolicy] = load_policy,
    worker: Callable[[], WorkerProgram] = load_worker,
) -> dict[str, int]:
    """Sweep the fleet once."""
    ids = correlation_of(event.get("id"), context.aws_request_id)
    logger.set_correlation_id(ids)
    settings = read_settings()
    found = sweep(settings, policy(settings), int(clock()), ids, worker)
    logger.info("swept", extra=found)
    return found
