"""Lambda: GET requests of those who may see who was let in where → the access log (docs/access.md).

A function of its own, since no other may read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from notebook_ssh.controllers.access import respond
from notebook_ssh.http_api.handling import handle_request, log_keys
from notebook_ssh.settings import read_settings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()


@logger.inject_lambda_context(clear_state=True)
def handle(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Return the response to an API Gateway proxy event."""
    logger.append_keys(**log_keys(event, context))
    # Who read it is to be known as well.
    logger.info("access log read", extra={"caller": (event["requestContext"]["identity"] or {}).get("userArn")})
    return handle_request(event, context, lambda event: respond(event, read_settings()), lambda: logger)
