"""What a notebook's tags request (docs/tags.md).

Tag values may hold letters, digits, spaces and `+ - = . _ : / @`, at most 256 characters
(AWS, "Tag naming limits and requirements"); so the elements of a list are separated by spaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import assert_never

from notebook_ssh.errors import Problem

_NGROK_URL = re.compile(
    r"tcp://(?=[^:]{1,253}:)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+:([1-9][0-9]{0,4})"
)
_USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:?\d{2})?", re.IGNORECASE)
_QUOTABLE = re.compile(r"[^A-Za-z0-9 +=._:/@-]")
_MAX_QUOTE = 60


OFF = "off"
"""The word for no mode at all, in the tag and in every text."""


class Mode(StrEnum):
    """A way to reach a notebook. The values are the words of the tag."""

    NGROK = "ngrok"
    BASTION = "bastion"
    # An EC2 Instance Connect Endpoint.
    EICE = "eice"

    @property
    def entrance(self) -> str | None:
        """What leads to the notebook's address in its VPC, from a group that rules admit there; None without any."""
        match self:
            case Mode.NGROK:
                return None
            case Mode.BASTION:
                return "bastion"
            case Mode.EICE:
                return "endpoint"
            case unknown:
                assert_never(unknown)

    @property
    def is_proven_by_report(self) -> bool:
        """Whether an agent that reports `connected`, and an open route, mean that users get through."""
        match self:
            case Mode.NGROK | Mode.BASTION:
                return True
            case Mode.EICE:  # only the client hears whether AWS opens the tunnel
                return False
            case unknown:
                assert_never(unknown)


MOST_MODES = 3
"""Modes of one tag."""


def tag_value(modes: Sequence[Mode]) -> str:
    """Return modes as the tag has them: `ngrok`, `eice ngrok`, or `off` without any."""
    return " ".join(modes) or OFF


@dataclass(frozen=True, slots=True)
class NotebookSpec:
    """What the notebook's tags request (docs/tags.md). Made by `parse_spec`."""

    # How the notebook is to be reached, the preferred mode first; empty: SSH is off.
    modes: tuple[Mode, ...] = ()
    ngrok_url: str | None = None
    # Names of central public keys to admit, in the order written, without duplicates.
    users: tuple[str, ...] = ()
    # Epoch seconds at which access ends, or None.
    until: int | None = None
    # One stop and start is requested, if needed.
    restart: bool = False
    # The API may start the notebook when it is stopped.
    wake: bool = False
    # A tag that is invalid; there is no mode then.
    problem: Problem | None = None

    def effective_modes(self, now: int) -> tuple[Mode, ...]:
        """Return the modes at `now` (epoch seconds): none once `until` has passed."""
        return () if self.until is not None and now >= self.until else self.modes

    def needs_block(self, now: int) -> bool:
        """Return whether the notebook's lifecycle configuration keeps the block at `now`; an invalid tag keeps it."""
        return bool(self.effective_modes(now)) or self.problem is not None


class _InvalidTagError(ValueError):
    """An invalid value; the text states what was expected, for the user."""


@cache
def spec_tag_keys(tag_key: str) -> tuple[str, ...]:
    """Return the tag keys that users write, the mode's key first."""
    return (tag_key, *(f"{tag_key}-{part}" for part in ("ngrok-url", "users", "restart", "until", "wake")))


def status_keys(tag_key: str) -> tuple[str, str]:
    """Return the tag keys that the stack writes: status and address. They never request anything."""
    return f"{tag_key}-status", f"{tag_key}-address"


def restart_key(tag_key: str) -> str:
    """Return the key of the tag that requests one restart. The stack removes it once that is done."""
    return f"{tag_key}-restart"


def parse_spec(tags: Mapping[str, str], tag_key: str) -> NotebookSpec:
    """Return what `tags` request. Never raises: an invalid value becomes the spec's problem, without a mode.

    Without a mode, or with `off`, the other tags are not parsed.
    """

    def value(part: str) -> str:
        return tags.get(f"{tag_key}-{part}", "").strip()

    key = tag_key
    try:
        modes = _modes(tags.get(tag_key, ""))
        if not modes:
            return NotebookSpec(problem=None if tag_key in tags else _other_case(tags, (tag_key,)))
        if problem := _other_case(tags, spec_tag_keys(tag_key)[1:]):
            return NotebookSpec(problem=problem)
        key = f"{tag_key}-ngrok-url"
        url = _ngrok_url(value("ngrok-url")) if Mode.NGROK in modes else None
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
    return NotebookSpec(modes=modes, ngrok_url=url, users=users, until=until, restart=restart, wake=wake)


def case_variants(tag_key: str) -> tuple[str, ...]:
    """Return the likely misspellings of a tag key: the same in capitals, or with one at the start."""
    return tuple(dict.fromkeys(key for key in (tag_key.upper(), tag_key.capitalize()) if key != tag_key))


def _other_case(tags: Mapping[str, str], keys: tuple[str, ...]) -> Problem | None:
    """Return the problem of a tag that requests something and has one of `keys` in another case; None without one.

    AWS distinguishes tag keys by case (AWS, "Tag naming limits and requirements"), so it would be ignored: access that
    is not there, or an end that never comes.
    """
    right = {key.lower(): key for key in keys}
    for found, value in tags.items():
        key = right.get(found.lower())
        if key and found != key and value.strip().lower() not in ("", OFF):
            return Problem(
                "invalid-tag",
                f"The tag {_QUOTABLE.sub('?', found)} has no effect, because capitals count in a tag's key: "
                f"write {key}, or remove it; SSH is off until then.",
            )
    return None


def _modes(text: str) -> tuple[Mode, ...]:
    words = text.lower().split()
    if words in ([], [OFF]):
        return ()
    if OFF in words:
        raise _InvalidTagError(f"{OFF} stands alone: remove it, or the other words; SSH is off until then")
    if not {*words} <= {*Mode}:
        raise _InvalidTagError(
            f"it can only be {', '.join(Mode)}, several of these in the order of preference, or {OFF}; "
            "correct the tag, or remove it to turn SSH off"
        )
    if len(words) > MOST_MODES:
        raise _InvalidTagError(f"it can name {MOST_MODES} ways at most: remove the others; SSH is off until then")
    if len({*words}) < len(words):
        raise _InvalidTagError("it names the same way twice: remove one of the two; SSH is off until then")
    return tuple(map(Mode, words))


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
    """Parse an ISO 8601 date and time, in UTC if it has no zone. A date alone is invalid: it could mean either end of the day."""
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
    """Return the value as it may appear in a status, a log and a tag: only safe characters, and shortened."""
    text = _QUOTABLE.sub("?", value)
    return f"“{text[:_MAX_QUOTE]}…”" if len(text) > _MAX_QUOTE else f"“{text}”"
