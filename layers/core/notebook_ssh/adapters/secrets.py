"""The ngrok secret (Secrets Manager) and the central public keys (SSM parameters), each cached for at most a minute.

A fleet that reports all the time therefore costs a few requests a minute, and a revoked key is gone soon after the
next sync. Tokens are in the memory of the process only: in no log, no table and no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from notebook_ssh.adapters.clients import AWS_ERRORS, call, client, code_of

MAX_AGE_S = 60
"""Most seconds for which a value is cached."""
MAX_AGE_SHARE = 5
"""A value is cached for one of so many parts of the time between two reports, if that is shorter."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret's version and text. `repr` does not show the text."""

    version: str
    text: str = field(repr=False)


_cache: dict[tuple[str, str], tuple[int, Any]] = {}
"""When each value was read (epoch seconds), and the value."""


def ngrok_secret(secret: str, sync_seconds: int, now: int) -> Secret | None:
    """Return the text and the version of a secret, or None when it has no value yet.

    secret: name or ARN. sync_seconds: the time between two reports of a notebook. now: epoch seconds.

    Raises RetryableError when it cannot be read at present.
    """
    return _cached(("secret", secret), sync_seconds, now, lambda: _read_secret(secret))


def central_keys(path: str, sync_seconds: int, now: int) -> Mapping[str, str]:
    """Return the value of each parameter directly under a path, by the last part of its name: public keys by user.

    sync_seconds: the time between two reports of a notebook. now: epoch seconds.

    Raises RetryableError when they cannot all be read at present.
    """
    return _cached(("keys", path), sync_seconds, now, lambda: _read_keys(path))


def forget() -> None:
    """Empty the cache."""
    _cache.clear()


def _cached(source: tuple[str, str], sync_seconds: int, now: int, read: Callable[[], T]) -> T:
    entry = _cache.get(source)
    # A time ahead comes from a clock that was set back since.
    if entry is None or not 0 <= now - entry[0] <= min(MAX_AGE_S, sync_seconds / MAX_AGE_SHARE):
        entry = _cache[source] = (now, read())
    value: T = entry[1]
    return value


def _read_secret(secret: str) -> Secret | None:
    try:
        response = call(client("secretsmanager").get_secret_value, SecretId=secret)
    except AWS_ERRORS as error:
        # The documented answer for a secret without a value, which has no version (API reference, GetSecretValue).
        if code_of(error) == "ResourceNotFoundException":
            return None
        raise error from None  # no chain: nothing about a secret appears in a stack trace
    return Secret(response["VersionId"], response.get("SecretString", ""))


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
