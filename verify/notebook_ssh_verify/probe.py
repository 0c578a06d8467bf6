"""Experiments on a notebook: lines of its on-start script, which print what they find into the script's log.

A line of the log is `nbssh-verify FACT KEY=VALUE`, with one value a line and no more than VALUE_LIMIT characters of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

VALUE_LIMIT = 200

_LINE = re.compile(r"nbssh-verify (?P<fact>[a-z-]+) (?P<key>[a-z_]+)=(?P<value>.*)$")


@dataclass(frozen=True)
class Probes:
    """What the probes printed: values by fact and key."""

    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, fact: str) -> Mapping[str, str]:
        """Return what the probe of a fact printed; empty if it printed nothing."""
        return self.values.get(fact, {})


def parse(lines: Iterable[str]) -> Probes:
    """Return what the probes printed into a log."""
    values: dict[str, dict[str, str]] = {}
    for line in lines:
        if found := _LINE.search(line.rstrip()):
            values.setdefault(found["fact"], {})[found["key"]] = found["value"][:VALUE_LIMIT]
    return Probes(values)


def script(prefix: str, public_key: str) -> bytes:
    """Return the on-start script of a notebook of the run whose names begin with `prefix`."""
    return f"#!/bin/bash\n# {prefix}\necho 'nbssh-verify end done=yes'\n".encode() + public_key.encode()[:0]
