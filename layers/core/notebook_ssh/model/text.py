"""Texts that are safe to print, times as text, and JSON of any origin."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z, the last that ISO 8601 writes with four digits


def parse_json(text: str) -> object:
    """Return the value of a JSON text of any origin; None for what is not JSON, or nested too deeply to be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def iso_time(seconds: int) -> str:
    """Return `seconds` since the epoch as ISO 8601 in UTC."""
    moment = datetime.fromtimestamp(min(max(seconds, 0), _LAST_SECOND), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def printable(text: str) -> str:
    """Return `text` with a space for each run of unprintable characters: controls, line ends, direction marks, surrogates."""
    return re.sub(" +", " ", "".join(character if character.isprintable() else " " for character in text)).strip()


_SECRETS = (
    (re.compile(r"(?i)\b(\w*(?:token|secret|passw|api_?key|credential)\w*\s*[=:]\s*)\S+"), r"\1…"),
    (re.compile(r"://[^/\s@]+@"), "://…@"),
    # A word of letters and digits as keys and tokens are: long, with a capital and a digit.
    (re.compile(r"(?=[A-Za-z0-9+/=_-]*[0-9])(?=[A-Za-z0-9+/=_-]*[A-Z])[A-Za-z0-9+/=_-]{16,}"), "…"),
)
_ARN = re.compile(r"arn:aws[\w-]*:[^'\"\s]*/([\w.-]+)")


def excerpt(text: str, limit: int) -> str:
    """Return the first line of `text` of any origin: printable, ARNs as names, at most `limit` characters.

    What looks like a secret is left out, for a script's last words can be anything.
    """
    line = next((shown for each in text.splitlines() if (shown := printable(each))), "")[: 10 * limit]
    line = _ARN.sub(r"\1", line)
    for pattern, instead in _SECRETS:
        line = pattern.sub(instead, line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def printable_line(line: str) -> str:
    """Return `line` with its indentation and without characters that a terminal interprets."""
    indentation = len(line) - len(line.lstrip(" "))
    return " " * indentation + "".join(character if character.isprintable() else " " for character in line.lstrip(" "))
