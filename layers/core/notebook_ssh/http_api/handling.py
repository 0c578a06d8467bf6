"""From a request to a response, for API Gateway's proxy integration: the one place where errors become HTTP.

No caller ever gets a stack trace, an AWS message or another notebook's data; the log has the cause, under the
request id that the response names.
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from notebook_ssh.errors import (
    InvalidReportError,
    NotAllowedError,
    PayloadTooLargeError,
    RetryableError,
    TerminalError,
)
from notebook_ssh.model.record import is_notebook_name
from notebook_ssh.model.spelling import OTHER_SPELLING, is_spelled, other_spelling
from notebook_ssh.settings import Settings
from notebook_ssh.triggers.correlation import FIELD, correlation_of

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

MAX_RESPONSE_BYTES = 6_000_000
"""Bytes: below what a function may hand back at once (Lambda, "Invocation payload, synchronous": 6 MB)."""

_HEADERS = {
    # An address is good for as long as the connection stands; a copy in between would be wrong at the next start.
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Response:
    """A response: `status` as in RFC 9110, `body` as it goes over the wire."""

    body: str
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpError(Exception):
    """The request is not served. code and message: for the caller. more: further members of the JSON response."""

    def __init__(self, status: int, code: str, message: str, /, **more: Any) -> None:
        super().__init__(f"{status} {code}")
        self.response = Response(json_text({"error": code, "message": message, **more}), status)


def forbidden(settings: Settings, code: str, message: str, /, **more: Any) -> HttpError:
    """Return the error for a caller who may not do this. It names the managed policy for users, and no role."""
    policy = f"{settings.stack}-NotebookSshUser-*, the output UserPolicyArn of the stack"
    return HttpError(403, code, message, policy=policy, **more)


def refuse_while_paused(settings: Settings) -> None:
    """Raise HttpError while the admin has paused the stack."""
    if settings.paused:
        raise HttpError(
            503,
            "paused",
            "SSH is paused for all notebooks of this stack, by its parameter Paused: ask the admin. Nothing is lost.",
        )


def log_keys(event: Mapping[str, Any], context: Any) -> dict[str, str]:
    """What the log lines of a request go by: its id, which an error answer names, Lambda's own, and the notebook's name."""
    run = getattr(context, "aws_request_id", "")
    # A caller may choose the id (API Gateway, "$context variables", `requestId`), and writes the path.
    keys = {
        FIELD: correlation_of((event.get("requestContext") or {}).get("requestId"), run),
        "function_request_id": run,
    }
    name = (event.get("pathParameters") or {}).get("name") or ""
    return keys | ({"notebook": name} if is_notebook_name(name) else {})


def json_text(value: Any) -> str:
    """`value` as JSON, in ASCII, so that no terminal is handed what it would interpret."""
    return json.dumps(value, separators=(",", ":"))


def notebook_name(event: Mapping[str, Any]) -> str:
    """The notebook's name in the path. Raises HttpError when SageMaker would not allow it."""
    name = (event.get("pathParameters") or {}).get("name") or ""
    if not is_notebook_name(name):
        raise HttpError(
            400, "bad-name", "name: a notebook's name is 1 to 63 letters, digits and hyphens, no hyphen at either end."
        )
    return name


def require_spelling(event: Mapping[str, Any], notebook: str) -> None:
    """Raise HttpError unless the path spells the name as SageMaker does, in `notebook`: IAM has compared it as it was sent."""
    if not is_spelled(event.get("path") or "", event.get("resource") or "", notebook):
        raise HttpError(409, OTHER_SPELLING, other_spelling(notebook), name=notebook)


def header(event: Mapping[str, Any], name: str) -> str:
    """Return the value of a request's header, whose name is case-insensitive; empty when it is missing."""
    headers = event.get("headers") or {}
    return next((value or "" for key, value in headers.items() if key.lower() == name.lower()), "")


def body_of(event: Mapping[str, Any]) -> bytes:
    """The request's body as sent."""
    body = event.get("body") or ""
    return b64decode(body) if event.get("isBase64Encoded") else body.encode("utf-8", "surrogatepass")


def handle_request(
    event: Mapping[str, Any],
    context: Any,
    respond: Callable[[Mapping[str, Any]], Response],
    log: Callable[[], logging.Logger | Any],
) -> dict[str, Any]:
    """Return the response of `respond` to `event`, as API Gateway expects it; what `respond` raises becomes an error response.

    log: returns the logger; called only when there is something to log.
    """
    keys = log_keys(event, context)
    request = keys[FIELD]
    try:
        response = respond(event)
        if len(response.body) > MAX_RESPONSE_BYTES and len(response.body.encode()) > MAX_RESPONSE_BYTES:
            raise HttpError(507, "too-many", "The response is larger than 6 MB: ask for one notebook at a time.")
    except HttpError as refused:
        response = refused.response
    except InvalidReportError as bad:
        status = 413 if isinstance(bad, PayloadTooLargeError) else 400
        response = HttpError(status, "too-large" if status == 413 else "bad-report", str(bad), field=bad.field).response
    except RetryableError as later:
        log().warning("try again later: %s", later, extra=keys)
        response = HttpError(503, "later", f"AWS is busy: try again in some seconds (request {request}).").response
        response = Response(response.body, response.status, response.content_type, {"Retry-After": "5"})
    except TerminalError as terminal:
        log().error("an admin is needed: %s", terminal, extra=keys)
        status = 500 if isinstance(terminal, NotAllowedError) else 503
        response = HttpError(status, terminal.problem.code, terminal.problem.message).response
    except Exception:
        log().exception("request failed", extra=keys)
        response = HttpError(
            500, "internal", f"This should not happen. The log of the function has the cause, under request {request}."
        ).response
    return {
        "statusCode": response.status,
        "headers": {"Content-Type": response.content_type, **_HEADERS, **response.headers},
        "body": response.body,
        "isBase64Encoded": False,
    }
