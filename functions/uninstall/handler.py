"""Lambda: CloudFormation's custom resource, for the end of the stack. It undoes everything, and reports what it could not.

On Create it does nothing, on Update it only lets the other functions write. On Delete it stops them, restores every script byte for byte,
detaches what the stack attached, removes status tags and records, and revokes the stack's rules. Each step is complete in
itself and found done when it is retried: a deletion that failed goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from notebook_ssh.adapters.custom_resource import respond
from notebook_ssh.controllers.block_policy import load_policy
from notebook_ssh.controllers.dependencies import dependencies
from notebook_ssh.controllers.teardown import TeardownResult, run
from notebook_ssh.planning.observation import BlockPolicy
from notebook_ssh.settings import Settings, read_settings
from notebook_ssh.triggers.correlation import correlation_of

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()

REASON_LIMIT = 1_000
"""Characters of the reason: a response has at most 4,096 bytes, and a character up to three."""


@logger.inject_lambda_context(clear_state=True)
def handle(
    event: Mapping[str, Any],
    context: LambdaContext,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    policy: Callable[[Settings], BlockPolicy] = load_policy,
) -> None:
    """Serve one request of CloudFormation (User Guide, "Custom resource request objects")."""
    logger.set_correlation_id(correlation_of(event.get("RequestId")))
    try:
        settings = read_settings()
        remaining = context.get_remaining_time_in_millis
        deps = dependencies(settings, policy(settings), remaining, clock, sleep, is_teardown=True)
        result = run(event["RequestType"], deps)
    except Exception as error:
        # Without a response CloudFormation would wait for an hour. The log has the stack trace.
        logger.exception("failed")
        result = TeardownResult(failed=[f"{type(error).__name__}: {error}."])
    logger.info("responded", extra={"done": result.done, "result": result.message})
    reason = f"{result.message[:REASON_LIMIT]} (log stream {context.log_stream_name})"
    respond(event, success=result.done, reason=reason)
