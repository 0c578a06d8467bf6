"""Who was let in where, and when: the entries of the access log, and how they are put together for those who read it.

A certificate is witnessed by the stack, which signed it. A session is witnessed by its notebook, where any program that runs
as ec2-user could have written the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from notebook_ssh.model.text import iso_time

MOST_OF_A_REPORT = 20
"""Sessions in one report."""
MOST_OF_A_DAY = 500
"""Entries of one kind, for one notebook and day; the rest are a number."""
MOST_SHOWN = 2000
"""Entries in one answer, the newest."""

LONGEST_WHO = 450
"""Characters that say who it was: a certificate's key id, or a key."""

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its notebook reports it. Times are epoch seconds; end: None while it is open.

    known: its beginning was reported before.
    """

    id: str
    who: str
    address: str
    path: str
    begin: int
    end: int | None = None
    known: bool = False


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate before it is signed."""

    serial: str
    who: str
    address: str
    begin: int
    end: int


def day_of(now: int) -> str:
    """Return the day of `now` (epoch seconds) in UTC, `2027-01-15`: in the order of time as text, too."""
    return iso_time(now)[:10]


def expiry(now: int, days: int) -> int:
    """Return when the entries of the day of `now` are deleted: each is kept for at least `days` days."""
    return (now // DAY_S + 1 + days) * DAY_S


def entries(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the API answers for the log's items: the newest entries first, and how many were not kept or shown."""
    found: list[dict[str, Any]] = []
    dropped = 0
    for item in items:
        found += _certificates(item) if item["kind"] == "certificate" else _sessions(item)
        dropped += item.get("more", 0)
    found.sort(key=lambda each: (each["begin"], each["id"]), reverse=True)
    shown = found[:MOST_SHOWN]
    return {"entries": [_shown(each) for each in shown], "not_kept": dropped, "not_shown": len(found) - len(shown)}


def _certificates(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    usual = {"notebook": item["notebook"], "kind": "certificate", "witness": "stack", "path": None}
    return [usual | {"id": key[2:], **value} for key, value in item.items() if key.startswith("b_")]


def _sessions(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    usual = {"notebook": item["notebook"], "kind": "session", "witness": "notebook"}
    return [
        usual | {"id": key[2:], "end": item.get(f"e_{key[2:]}"), **value}
        for key, value in item.items()
        if key.startswith("b_")
    ]


def _shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    end = entry["end"]
    return {
        "notebook": entry["notebook"],
        "kind": entry["kind"],
        "witness": entry["witness"],
        "id": entry["id"],
        "who": entry["who"],
        "from": entry["from"],
        "path": entry["path"],
        "begin": iso_time(entry["begin"]),
        "end": None if end is None else iso_time(end),
    }
