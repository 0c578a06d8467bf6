"""What a notebook's tags ask for. docs/tags.md is the same for people.

Tag values may hold letters, digits, spaces and `+ - = . _ : / @`, at most 256 characters
(AWS, "Tag naming limits and requirements"); so lists are separated by spaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from notebook_ssh.errors import Problem
from notebook_ssh.model.record import Mode, NotebookSpec

_NGROK_URL = re.compile(
    r"tcp://(?=[^:]{1,253}:)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+:([1-9][0-9]{0,4})"
)
_USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:?\d{2})?", re.IGNORECASE)
_SAYABLE = re.compile(r"[^A-Za-z0-9 +=._:/@-]")
_LONGEST_QUOTE = 60


class _InvalidTagError(ValueError):
    """A value that cannot be understood; the text says what was expected, for a person."""


def spec_tag_keys(tag_key: str) -> tuple[str, ...]:
    """The tag keys that people write, the mode's own key first."""
    return (tag_key, *(f"{tag_key}-{part}" for part in ("ngrok-url", "users", "restart", "until", "wake")))


def status_keys(tag_key: str) -> tuple[str, str]:
    """The tag keys that we write: status and address. They never ask for anything."""
    return f"{tag_key}-status", f"{tag_key}-address"


def restart_key(tag_key: str) -> str:
    """The tag that asks for one restart, and that we take away when it is done."""
    return f"{tag_key}-restart"


def parse_spec(tags: Mapping[str, str], tag_key: str) -> NotebookSpec:
    """What `tags` ask for. Never fails: a value that cannot be understood becomes the wish's problem, with mode off.

    Only the tags that matter are judged: without a mode, or with `off`, the others are nobody's mistake.
    """

    def value(part: str) -> str:
        return tags.get(f"{tag_key}-{part}", "").strip()

    key = tag_key
    try:
        mode = _mode(tags.get(tag_key, ""))
        if mode is Mode.OFF:
            return NotebookSpec()
        key = f"{tag_key}-ngrok-url"
        url = _ngrok_url(value("ngrok-url")) if mode is Mode.NGROK else None
        key = f"{tag_key}-users"
        users = _users(value("users"))
        key = f"{tag_key}-until"
        until = _until(value("until"))
        key = f"{tag_key}-restart"
        restart = _flag(value("restart"), "now")
        key = f"{tag_key}-wake"
        wake = _flag(value("wake"), "yes")
    except _InvalidTagError as invalid:
        return NotebookSpec(problem=Problem("invalid-tag", f"The tag {key} is {_quoted(tags[key])}, but {invalid}."))
    return NotebookSpec(mode=mode, ngrok_url=url, users=users, until=until, restart=restart, wake=wake)


def _mode(text: str) -> Mode:
    word = text.strip().lower()
    if not word:
        return Mode.OFF
    try:
        return Mode(word)
    except ValueError:
        raise _InvalidTagError(
            "it can only be ngrok, bastion or off; correct the tag, or remove it to turn SSH off"
        ) from None


def _ngrok_url(text: str) -> str | None:
    if not text:
        return None
    address = _NGROK_URL.fullmatch(text.lower())
    if address is None or int(address[1]) > 65535:
        raise _InvalidTagError(
            "it must look like tcp://1.tcp.ngrok.io:12345, as ngrok's dashboard shows a reserved TCP address"
        )
    return text.lower()


def _users(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split()))
    if not all(_USER.fullmatch(name) for name in names):
        raise _InvalidTagError(
            "it must be names of central keys separated by spaces, of letters, digits and . _ @ - (64 at most)"
        )
    return names


def _until(text: str) -> int | None:
    """ISO 8601 date and time; without a zone it is UTC. A date alone is refused: which end of the day?"""
    if not text:
        return None
    expected = "it must be a date and time such as 2030-06-01T18:00Z or 2030-06-01T18:00+02:00; SSH is off until it is corrected"
    if _TIME.fullmatch(text) is None:
        raise _InvalidTagError(expected)
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise _InvalidTagError(expected) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _flag(text: str, yes: str) -> bool:
    if text and text.lower() != yes:
        raise _InvalidTagError(f"the only value it can have is {yes}; correct the tag, or remove it")
    return bool(text)


def _quoted(value: str) -> str:
    """The value as it can stand in a status, a log and a tag: known characters only, and not too long."""
    text = _SAYABLE.sub("?", value)
    return f"“{text[:_LONGEST_QUOTE]}…”" if len(text) > _LONGEST_QUOTE else f"“{text}”"
