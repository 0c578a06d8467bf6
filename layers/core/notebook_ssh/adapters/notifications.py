"""What the stack publishes: an EventBridge event for each change of a status (docs/api.md), and mails for the admin."""

from __future__ import annotations

import json

from notebook_ssh.adapters.clients import call, client
from notebook_ssh.errors import RetryableError
from notebook_ssh.model.status import Status
from notebook_ssh.model.text import iso_time

SOURCE = "notebook-ssh"
DETAIL_TYPE = "Notebook SSH Status Change"


def publish_status_change(stack: str, notebook: str, arn: str, before: str, status: Status) -> None:
    """Put the event of a status change on the account's default bus.

    before: the status code that the notebook had. Raises RetryableError when the bus did not accept the event.
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
    response = call(client("events").put_events, Entries=[entry])  # type: ignore[list-item]
    if response["FailedEntryCount"]:
        raise RetryableError(f"PutEvents: {response['Entries'][0].get('ErrorCode', 'unknown')}")


def publish_mail(topic: str, text: str) -> None:
    """Publish a mail to the SNS topic with an ARN. Raises RetryableError when SNS did not accept it."""
    call(client("sns").publish, TopicArn=topic, Message=text)
