"""The ngrok token (Secrets Manager) and the central public keys (SSM parameters), each cached for at most a minute.

A fleet that reports all the time therefore costs a few requests a minute, and a revoked key is gone soon after the
next sync. The token is in the memory of the process only: in no log, no table and no error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from notebook_ssh.adapters.clients import AWS_ERRORS, call, client, code_of
from notebook_ssh.model.text import parse_json
from notebook_ssh.reports.reply import Token

MAX_AGE_S = 60
"""Most seconds for which a value is cached."""
MAX_AGE_SHARE = 5
"""A value is cached for one of so many parts of the time between two reports, if that is shorter."""

T = TypeVar("T")

_cache: dict[tuple[str, str], tuple[float, Any]] = {}
"""When each value was read (monotonic seconds), and the value."""


def ngrok_token(secret: str, sync_seconds: int) -> Token | None:
    """Return the token in a secret, or None when the secret has no value yet.

    The value is the token itself, or JSON with a member `token` or `authtoken`.

    secret: name or ARN. sync_seconds: the time between two reports of a notebook.

    Raises RetryableError when it cannot be read at present.
    """
    return _cached(("secret", secret), sync_seconds, lambda: _read_token(secret))


def central_keys(path: str, sync_seconds: int) -> Mapping[str, str]:
    """Return the value of each parameter directly under a path, by the last part of its name: public keys by user.

    sync_seconds: the time between two reports of a notebook.

    Raises RetryableError when they cannot all be read at present.
    """
    return _cached(("keys", path), sync_seconds, lambda: _read_keys(path))


def forget() -> None:
    """Empty the cache."""
    _cache.clear()


def _cached(source: tuple[str, str], sync_seconds: int, read: Callable[[], T]) -> T:
    entry = _cache.get(source)
    if entry is None or time.monotonic() - entry[0] > min(MAX_AGE_S, sync_seconds / MAX_AGE_SHARE):
        entry = _cache[source] = (time.monotonic(), read())
    value: T = entry[1]
    return value


def _read_token(secret: str) -> Token | None:
    try:
        response = call(client("secretsmanager").get_secret_value, SecretId=secret)
    except AWS_ERRORS as error:
        # The documented answer for a secret without a value, which has no version (API reference, GetSecretValue).
        if code_of(error) == "ResourceNotFoundException":
            return None
        raise error from None  # no chain: nothing about a secret appears in a stack trace
    value = _token_in(response.get("SecretString", ""))
    return Token(response["VersionId"], value) if value else None


def _token_in(text: str) -> str:
    """Return the token in a secret's text, or "". ngrok's tokens have no spaces; a placeholder sentence has."""
    text = text.strip()
    if text.startswith("{"):
        members = parse_json(text)
        value = (members.get("token") or members.get("authtoken") or "") if isinstance(members, dict) else ""
        text = value.strip() if isinstance(value, str) else ""
    return "" if any(not character.isprintable() or character.isspace() for character in text) else text


def _read_keys(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    start: dict[str, Any] = {}
    while True:
        page = call(client("ssm").get_parameters_by_path, Path=path, Recursive=False, MaxResults=10, **start)
        for parameter in page["Parameters"]:
            found[parameter["Name"].rpartition("/")[2]] = parameter["Value"]
        if not page.get("NextToken"):
            return found
        start = {"NextToken": page["NextToken"]}
