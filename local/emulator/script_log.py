"""What on-start scripts print, in CloudWatch Logs, where SageMaker puts it.

(API reference, CreateNotebookInstanceLifecycleConfig: the group, and one stream for each notebook and hook.)
"""

from __future__ import annotations

import time
from typing import Any

from ministack import app
from ministack.core.responses import request_scope
from ministack.services import cloudwatch_logs

from emulator.place import ACCOUNT, REGION

GROUP = "/aws/sagemaker/NotebookInstances"


def deliver(notebook: str, printed: bytes) -> None:
    """Put the lines that a start of `notebook` printed into its stream, which is made with its first line."""
    lines = [line for line in printed.decode(errors="replace").splitlines() if line]
    if lines:
        app._MAIN_LOOP.call_soon_threadsafe(_put, f"{notebook}/LifecycleConfigOnStart", lines)


def _put(stream: str, lines: list[str]) -> None:
    """From the loop that serves requests. Of what is there already, the service refuses to make a second one."""
    now = int(time.time() * 1000)
    place: dict[str, Any] = {"logGroupName": GROUP, "logStreamName": stream}
    events = [{"timestamp": now, "message": line} for line in lines]
    with request_scope(ACCOUNT, REGION):
        cloudwatch_logs._create_log_group(place)
        cloudwatch_logs._create_log_stream(place)
        cloudwatch_logs._put_log_events({**place, "logEvents": events})
