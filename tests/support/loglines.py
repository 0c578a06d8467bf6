"""What the functions print: their log lines, and the metrics among them, as CloudWatch reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from aws_lambda_powertools import Logger


@contextmanager
def logged_by(patch: pytest.MonkeyPatch, *loggers: Logger) -> Iterator[list[dict[str, Any]]]:
    """The lines that the loggers write within the block; to be read when it has ended."""
    lines: list[dict[str, Any]] = []
    stream = StringIO()
    with patch.context() as patched:
        for logger in loggers:
            patched.setattr(logger.registered_handler, "stream", stream)
        yield lines
    lines += [json.loads(line) for line in stream.getvalue().splitlines()]
