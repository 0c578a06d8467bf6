"""Experiments on a notebook: its on-start script (probe.sh), which prints what it finds into the script's log.

A line of the log is `nbssh-verify FACT KEY=VALUE`, with one value a line and no more than VALUE_LIMIT characters of it.
The last one is that of `end`, which is no fact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files

VALUE_LIMIT = 200

SCRIPT_LIMIT = 5000
"""Bytes of the script: it shares 12,288 with a stack's block, which has up to 6,600."""

_LINE = re.compile(r"nbssh-verify (?P<fact>[a-z-]+) (?P<key>[a-z_]+)=(?P<value>.*)$")
_PREFIX = re.compile(r"[a-z0-9-]+")
_PUBLIC_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [A-Za-z0-9@._-]+)?")
_COMMENT_OR_INDENTATION = re.compile(r"^ *#(?!!).*\n|^ +", re.M)


@dataclass(frozen=True)
class Probes:
    """What the probes printed: values by fact and key."""

    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, fact: str) -> Mapping[str, str]:
        """Return what the probe of a fact printed; empty if it printed nothing."""
        return self.values.get(fact, {})


def parse(lines: Iterable[str]) -> Probes:
    """Return what the probes printed into a log: at the first start, before an agent was there, if it has several."""
    values: dict[str, dict[str, str]] = {}
    for line in lines:
        if found := _LINE.search(line.rstrip()):
            values.setdefault(found["fact"], {}).setdefault(found["key"], found["value"][:VALUE_LIMIT])
    return Probes(values)


def script(prefix: str, public_key: str) -> bytes:
    """Return the on-start script of a run's notebook, without comments and indentation.

    prefix: how the names of what it starts begin. public_key: a line of authorized_keys(5) without options, which the
    script admits; "" for none. Raises ValueError for either if it is no such thing.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is no prefix; it has lower-case letters, digits and hyphens")
    if public_key and not _PUBLIC_KEY.fullmatch(public_key):
        raise ValueError("the public key is no line `TYPE BASE64 COMMENT`")
    text = (files("notebook_ssh_verify") / "probe.sh").read_text("utf-8")
    text = _COMMENT_OR_INDENTATION.sub("", text)
    return text.replace("@PREFIX@", prefix).replace("@PUBLIC_KEY@", public_key).encode()
