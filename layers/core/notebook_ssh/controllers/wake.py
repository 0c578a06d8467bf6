"""Starts a stopped notebook that a user wants to connect to (docs/api.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from notebook_ssh.adapters.clients import call, client
from notebook_ssh.adapters.table import Table
from notebook_ssh.errors import InvalidStateError, NotFoundError
from notebook_ssh.http_api.handling import (
    HttpError,
    Response,
    forbidden,
    json_text,
    notebook_name,
    refuse_while_paused,
    require_spelling,
)
from notebook_ssh.http_api.views import status_json
from notebook_ssh.model.record import Record
from notebook_ssh.model.status import status_of
from notebook_ssh.model.wake import Wake, wake
from notebook_ssh.settings import Settings

logger = Logger(child=True)


def respond(event: Mapping[str, Any], settings: Settings, now: int) -> Response:
    """Start the notebook named in `event` if its tags allow that. Raises HttpError when they do not."""
    name = notebook_name(event)
    refuse_while_paused(settings)
    table = Table(settings.table)
    record = table.record(name)
    if record is None:
        raise HttpError(404, "unknown-notebook", f"No notebook {name} is known here: only a tagged one can be started.")
    require_spelling(event, record.name)
    body = status_json(status_of(record, now, settings.sync_seconds, settings.tag_key))
    match wake(record, now):
        case Wake.NOT_ALLOWED:
            raise forbidden(
                settings,
                "not-wakeable",
                f"{record.name} may not be started from here: its owner allows it with the tag {settings.tag_key}-wake=yes.",
                status=body["status"],
            )
        case Wake.NOT_STOPPED:
            raise HttpError(
                409,
                "not-stopped",
                f"{record.name} is {record.state}, and only a stopped notebook can be started.",
                status=body["status"],
            )
        case Wake.NOT_NEEDED:
            return Response(json_text({"name": record.name, "started": False, **body}), 202)
        case Wake.START:
            started = table.claim_wake(record, now) and _started(record, table)
            return Response(json_text({"name": record.name, "started": started, **body}), 202)


def _started(record: Record, table: Table) -> bool:
    """Ask SageMaker to start the notebook. False when its state no longer allows that: another request was faster."""
    try:
        call(client("sagemaker").start_notebook_instance, NotebookInstanceName=record.name)
    except InvalidStateError:
        return False
    except Exception as error:
        # The start did not happen, so the next request may claim it.
        table.release_wake(record)
        if isinstance(error, NotFoundError):
            gone = f"{record.name} was deleted: there is nothing to start."
            raise HttpError(404, "unknown-notebook", gone) from error
        raise
    logger.info("start", extra={"notebook": record.name, "reason": "a user wants to connect"})
    return True
