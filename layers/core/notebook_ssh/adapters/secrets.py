"""The ngrok token (Secrets Manager) and the central public keys (SSM parameters), each kept for at most a minute.

So a fleet that reports all the time costs a few calls a minute, and a revoked key is gone soon after the next sync.
Only the process's memory holds the token; it is in no log, no table and no error.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters.clients import client, code_of, retryable
from notebook_ssh.reports.report import Token

KEPT_SECONDS = 60
KEPT_SHARE = 5
"""What was read is kept for a fifth of the time between two reports, and never longer than KEPT_SECONDS."""

T = TypeVar("T")

_kept: dict[tuple[str, str], tuple[float, Any]] = {}


def ngrok_token(secret: str, sync_seconds: int) -> Token | None:
    """The token in `secret` (name or ARN), or None when nobody has put one there.

    The value is the token itself, or JSON with a member `token` or `authtoken`. sync_seconds: between two reports of
    a notebook. RetryableError when it cannot be read now.
    """
    return _fresh(("secret", secret), sync_seconds, lambda: _read_token(secret))


def central_keys(path: str, sync_seconds: int) -> Mapping[str, str]:
    """The text of each parameter directly under `path`, by the last part of its name: public keys by user.

    sync_seconds: between two reports of a notebook. RetryableError when they cannot be read now: never a shorter list.
    """
    return _fresh(("keys", path), sync_seconds, lambda: _read_keys(path))


def forget() -> None:
    """Read everything anew at the next question."""
    _kept.clear()


def _fresh(what: tuple[str, str], sync_seconds: int, read: Callable[[], T]) -> T:
    config_record = _kept.get(what)
    if config_record is None or time.monotonic() - config_record[0] > min(KEPT_SECONDS, sync_seconds / KEPT_SHARE):
        config_record = _kept[what] = (time.monotonic(), read())
    value: T = config_record[1]
    return value


def _read_token(secret: str) -> Token | None:
    try:
        answer = client("secretsmanager").get_secret_value(SecretId=secret)
    except (ClientError, BotoCoreError) as error:
        # A secret that was never given a value has no version to get, and the service calls that not found.
        if isinstance(error, ClientError) and code_of(error) == "ResourceNotFoundException":
            return None
        raise (retryable(error) or error) from None  # no chain: nothing about a secret goes into a stack trace
    value = _token_in(answer.get("SecretString", ""))
    return Token(answer["VersionId"], value) if value else None


def _token_in(text: str) -> str:
    """The token in a secret's text, or an empty text. ngrok's tokens have no blanks; a placeholder in words has."""
    text = text.strip()
    if text.startswith("{"):
        try:
            members = json.loads(text)
        except ValueError:
            return ""
        value = members.get("token") or members.get("authtoken") or ""
        text = value.strip() if isinstance(value, str) else ""
    return "" if any(not character.isprintable() or character.isspace() for character in text) else text


def _read_keys(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    start: dict[str, Any] = {}
    while True:
        try:
            page = client("ssm").get_parameters_by_path(Path=path, Recursive=False, MaxResults=10, **start)
        except (ClientError, BotoCoreError) as error:
            raise (retryable(error) or error) from error
        for parameter in page["Parameters"]:
            found[parameter["Name"].rpartition("/")[2]] = parameter["Value"]
        if not page.get("NextToken"):
            return found
        start = {"NextToken": page["NextToken"]}
