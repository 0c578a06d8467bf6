"""Decide which ngrok token a notebook gets, from the text of the stack's secret.

The secret is one token for all notebooks (the token itself, or JSON with `token` or `authtoken`), or

    {"tokens": [{"notebooks": "team-a-* box-7", "roles": "TeamA*", "token": "…"}, …]}

where the first entry that matches the notebook and the role of the session that reports wins. `roles` is required,
`notebooks` is any notebook when it is missing. Anything else is invalid, and gives no notebook a token: an entry that
is misspelt must not hand a team's token to others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from notebook_ssh.errors import Problem
from notebook_ssh.model.patterns import InvalidPatternError, Patterns, notebook_patterns, role_patterns
from notebook_ssh.model.text import parse_json

_ENTRY = frozenset({"notebooks", "roles", "token"})


class InvalidSecretError(ValueError):
    """The secret's text has none of the forms. The message names the place, and contains nothing of the text."""


@dataclass(frozen=True, slots=True)
class Token:
    """The ngrok token and its version, both opaque. `repr` does not show the token."""

    version: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Entry:
    notebooks: Patterns
    roles: Patterns
    token: Token


Tokens = tuple[_Entry, ...]

_ALL = (notebook_patterns("*"), role_patterns("*"))


def parse_secret(text: str, version: str) -> Tokens | None:
    """Return the tokens in a secret's text, in order; None when it is empty. Raises InvalidSecretError.

    version: the secret's. A token's own version changes with it and with the place of the entry.
    """
    text = text.strip()
    if not text:
        return None
    if text[0] not in '{["' and text != "null":
        return (_Entry(*_ALL, Token(version, _token(text, "the secret"))),)
    match parse_json(text):
        case {"tokens": list(entries), **others} if not others:
            return tuple(_entry(entry, number, version) for number, entry in enumerate(entries, 1))
        case {"tokens": _}:
            pass
        case {"token": value} | {"authtoken": value}:
            return (_Entry(*_ALL, Token(version, _token(value, "the secret's member"))),)
    raise InvalidSecretError('the secret has neither a token nor a list {"tokens": […]}')


def token_for(tokens: Tokens | None, notebook: str, role: str) -> Token | None:
    """Return the token of the first entry that matches, or None."""
    matching = (each for each in tokens or () if each.notebooks.match(notebook) and each.roles.match(role))
    return next((each.token for each in matching), None)


def missing_token(secret: str) -> Problem:
    """Return the problem of a stack whose ngrok secret holds no token yet."""
    return Problem(
        "ngrok-token-missing",
        "The stack has no ngrok token yet: copy it from https://dashboard.ngrok.com/get-started/your-authtoken, then run "
        f"aws secretsmanager put-secret-value --secret-id '{secret}' --secret-string file://TOKEN_FILE",
    )


def invalid_secret(secret: str, reason: str) -> Problem:
    """Return the problem of a stack whose ngrok secret cannot be read. reason: of InvalidSecretError."""
    return Problem(
        "ngrok-token-invalid",
        f"No notebook gets an ngrok token, because {reason}: store the token alone, or a list as docs/operations.md "
        f"describes, with aws secretsmanager put-secret-value --secret-id '{secret}' --secret-string file://TOKEN_FILE",
    )


def not_granted(notebook: str) -> Problem:
    """Return the problem of a notebook that no entry of the secret matches. Names no role: others may read it."""
    return Problem(
        "ngrok-token-not-granted",
        f"No entry of the stack's ngrok secret matches {notebook} and its execution role: an admin adds one, or use "
        "another mode.",
    )


def _entry(entry: Any, number: int, version: str) -> _Entry:
    place = f"entry {number} of its tokens"
    if not isinstance(entry, dict) or not set(entry) <= _ENTRY:
        raise InvalidSecretError(f"{place} has other members than notebooks, roles and token")
    notebooks, roles = entry.get("notebooks", "*"), entry.get("roles")
    if not isinstance(notebooks, str) or not isinstance(roles, str):
        raise InvalidSecretError(f"{place} has no roles, or its notebooks or roles are no text")
    try:
        patterns = notebook_patterns(notebooks), role_patterns(roles)
    except InvalidPatternError:
        raise InvalidSecretError(f"{place} has notebooks or roles that are no names with * and ?") from None
    return _Entry(*patterns, Token(f"{version}:{number}", _token(entry.get("token"), place)))


def _token(value: Any, place: str) -> str:
    """Return a token without the spaces around it. ngrok's tokens have none inside; a placeholder sentence has."""
    text = value.strip() if isinstance(value, str) else ""
    if not text or any(not character.isprintable() or character.isspace() for character in text):
        raise InvalidSecretError(f"{place} is no token, which is one word")
    return text
