"""The ngrok secret (Secrets Manager) and the central public keys (SSM parameters), each cached for at most a minute.

A fleet that reports all the time therefore costs a few requests a minute, and a revoked key is gone soon after the
next sync. Tokens are in the memory of the process only: in no log, no table and no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from notebook_ssh.adapters.clients import AWS_ERRORS, call, client, code_of
from notebook_ssh.model.revocation import Revocation

MAX_AGE_S = 60
"""Most seconds for which a value is cached."""
REVOKED = "/revoked"
"""Below the path of the users' keys, so that one list has both."""
REVOCATIONS_MAX_AGE_S = 5
"""Seconds for which the function that signs keeps what was withdrawn. What it signs until then is of the generation before."""
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


@dataclass(frozen=True, slots=True)
class Parameters:
    """What admins have stored in Parameter Store. keys: public keys by user, as text."""

    keys: Mapping[str, str] = field(default_factory=dict)
    revocations: tuple[Revocation, ...] = ()


def parameters(path: str, sync_seconds: int, now: int) -> Parameters:
    """Return the parameters under a path: directly below it the users' keys, and below REVOKED what was withdrawn.

    sync_seconds: the time between two reports of a notebook. now: epoch seconds.

    Raises RetryableError when they cannot all be read at present.
    """
    return _cached(("keys", path), sync_seconds, now, lambda: _read_parameters(path))


def revocations(path: str, now: int) -> tuple[Revocation, ...]:
    """Return what was withdrawn, at most REVOCATIONS_MAX_AGE_S old. Raises RetryableError as `parameters` does."""
    sync_seconds = REVOCATIONS_MAX_AGE_S * MAX_AGE_SHARE
    return _cached(("revoked", path), sync_seconds, now, lambda: _read_parameters(path, only_revoked=True).revocations)


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


def _read_parameters(path: str, *, only_revoked: bool = False) -> Parameters:
    keys: dict[str, str] = {}
    revoked: list[Revocation] = []
    start: dict[str, Any] = {}
    below = path + REVOKED if only_revoked else path
    while True:
        page = call(client("ssm").get_parameters_by_path, Path=below, Recursive=True, MaxResults=10, **start)
        for parameter in page["Parameters"]:
            name = parameter["Name"].removeprefix(path)
            if name.startswith(REVOKED + "/"):
                revoked.append(Revocation(parameter["Value"], int(parameter["LastModifiedDate"].timestamp())))
            elif name.count("/") == 1:
                keys[name[1:]] = parameter["Value"]
        if not page.get("NextToken"):
            return Parameters(keys, tuple(revoked))
        start = {"NextToken": page["NextToken"]}
