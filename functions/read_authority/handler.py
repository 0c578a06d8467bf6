"""Lambda: CloudFormation's custom resource that knows the public keys of the stack's signing keys.

They become an attribute of the resource, and from there the environment of the functions that hand them out: no request
ever waits for KMS to learn them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import custom_resource
from notebook_ssh.controllers.authority import authority_lines
from notebook_ssh.triggers.correlation import correlation_of

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()


@logger.inject_lambda_context(clear_state=True)
def handle(event: Mapping[str, Any], context: LambdaContext, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Serve one request of CloudFormation (User Guide, "Custom resource request objects")."""
    logger.set_correlation_id(correlation_of(event.get("RequestId")))
    data, reason = {}, "the keys stay as they are"
    try:
        if event["RequestType"] != "Delete":
            data = {"Lines": ",".join(authority_lines(event["ResourceProperties"]["Keys"], sleep))}
            reason = "the public keys were read"
        success = True
    except Exception as error:
        # Without a response CloudFormation would wait for an hour. The log has the stack trace.
        logger.exception("failed")
        success, reason = False, f"{type(error).__name__}: {error} (log stream {context.log_stream_name})"
    custom_resource.respond(event, success=success, reason=reason[:1000], name="authority", data=data)
