"""Lambda: someone who may log in gets a short certificate for one notebook (docs/api.md).

A function of its own, since nothing else may sign.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from notebook_ssh.controllers.certificate import respond
from notebook_ssh.http_api.handling import handle_request, log_keys
from notebook_ssh.settings import read_settings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()


@logger.inject_lambda_context(clear_state=True)
def handle(
    event: Mapping[str, Any], context: LambdaContext, *, clock: Callable[[], float] = time.time
) -> dict[str, Any]:
    """Return the response to an API Gateway proxy event of `POST /notebooks/{name}/certificate`."""
    logger.append_keys(**log_keys(event, context))
    return handle_request(event, context, lambda event: respond(event, read_settings(), int(clock())), lambda: logger)
