"""Lambda: the schedule → what needs to be reconciled, queued."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from notebook_ssh.controllers.block_policy import load_policy
from notebook_ssh.controllers.sweep import sweep
from notebook_ssh.settings import read_settings
from notebook_ssh.triggers.correlation import correlation_of

logger = Logger()


def handle(event: Mapping[str, Any], context: object) -> dict[str, int]:
    """Sweep the fleet once."""
    request = getattr(context, "aws_request_id", "")
    ids = correlation_of(event.get("id"), request)
    logger.append_keys(correlation_id=ids, function_request_id=request)
    settings = read_settings()
    found = sweep(settings, load_policy(settings), int(time.time()), ids)
    logger.info("swept", extra=found)
    return found
