"""Lambda: keeps the security-group rules of bastion and endpoint as the whole fleet needs them.

Fed by a FIFO queue with one message group, so that only one run is under way at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from notebook_ssh.adapters.table import Table
from notebook_ssh.controllers.rules import reconcile_rules
from notebook_ssh.planning.routes import covered_by_last_sync
from notebook_ssh.settings import read_settings
from notebook_ssh.triggers.correlation import correlation_of_messages

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()


@logger.inject_lambda_context(clear_state=True)
def handle(event: Mapping[str, Any], context: LambdaContext, *, clock: Callable[[], float] = time.time) -> None:
    """Reconcile once for all messages at hand, and not at all when the last sync began after they were sent."""
    messages = event.get("Records", ())
    ids = correlation_of_messages(messages)
    logger.set_correlation_id(ids)
    settings = read_settings()
    table = Table(settings.table)
    sent_ms = [int(message["attributes"]["SentTimestamp"]) for message in messages]
    if covered_by_last_sync(sent_ms, table.last_rule_sync(), int(clock())):
        logger.info("already covered", extra={"messages": len(sent_ms)})
        return
    now = int(clock())
    stuck = reconcile_rules(settings, table, now, ids)
    table.save_rule_sync(now, stuck)
    logger.info("reconciled", extra={"messages": len(messages)})
