"""News about a notebook, for whoever wants to react to it: one EventBridge event for each change of status."""

from __future__ import annotations

import json

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters.clients import client, retryable
from notebook_ssh.errors import RetryableError
from notebook_ssh.model.status import Status
from notebook_ssh.model.text import iso_time

SOURCE = "notebook-ssh"
DETAIL_TYPE = "Notebook SSH Status Change"


def publish_status_change(stack: str, notebook: str, arn: str, before: str, status: Status) -> None:
    """Put the news that `notebook` went from the status code `before` to `status` on the account's default bus.

    RetryableError when the bus did not take it.
    """
    detail = {
        "stack": stack,
        "notebook": notebook,
        "before": before,
        "status": str(status.code),
        "since": None if status.since is None else iso_time(status.since),
        "code": status.problem.code if status.problem else None,
        "message": status.message,
    }
    entry = {
        "Source": SOURCE,
        "DetailType": DETAIL_TYPE,
        "Detail": json.dumps(detail),
        "Resources": [arn] if arn else [],
    }
    try:
        answer = client("events").put_events(Entries=[entry])  # type: ignore[list-item]
    except (ClientError, BotoCoreError) as error:
        raise (retryable(error) or error) from error
    if answer["FailedEntryCount"]:
        raise RetryableError(f"PutEvents: {answer['Entries'][0].get('ErrorCode', 'unknown')}")
