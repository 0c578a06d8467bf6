"""Lambda: GET requests of users → the table (docs/api.md, docs/openapi.yaml)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from notebook_ssh.controllers.lookup import respond
from notebook_ssh.http_api.handling import handle_request
from notebook_ssh.settings import read_settings


def _logger() -> Any:
    """Powertools' logger, loaded only when something failed: 35 million instructions that no other response needs."""
    from aws_lambda_powertools import Logger

    return Logger()


def handle(
    event: Mapping[str, Any],
    context: Any,
    *,
    clock: Callable[[], float] = time.time,
    log: Callable[[], Any] = _logger,
) -> dict[str, Any]:
    """Return the response to an API Gateway proxy event."""
    return handle_request(event, context, lambda event: respond(event, read_settings(), int(clock())), log)
