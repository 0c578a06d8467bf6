"""Types that the worker's modules share."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Problem = tuple[str, str]  # (code, message)
LABEL_SESSIONS = b"s"  # asks root, through the supervisor, who logged in to each session
Address = tuple[str, int]  # (host, port)


class AgentError(Exception):
    """A problem that is reported: `AgentError(code, message)`, the message for the user. Never holds a secret."""
