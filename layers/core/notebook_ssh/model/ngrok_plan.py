"""How many tunnels the fleet takes of the ngrok plan, which refuses the last to come (docs/operations.md)."""

from __future__ import annotations

from collections.abc import Iterable

from notebook_ssh.model.record import Record, is_running
from notebook_ssh.model.spec import Mode

NAMES = 5
"""Notebooks that a sentence names."""


def tunnels_wanted(records: Iterable[Record], now: int) -> list[str]:
    """Return the names of the notebooks that take a tunnel at `now` (epoch seconds), the latest start last.

    They run and request ngrok, whether they are connected yet or not.
    """
    taking = [record for record in records if Mode.NGROK in record.spec.effective_modes(now) and is_running(record)]
    return [record.name for record in sorted(taking, key=lambda each: (each.started_at or each.state_since, each.name))]


def excess(wanted: list[str], endpoints: int) -> str | None:
    """Return what an admin should know when more tunnels are wanted than the plan has, or None.

    endpoints: those of the plan (the parameter NgrokEndpoints); 0: unknown.
    """
    if not endpoints or len(wanted) <= endpoints:
        return None
    last = wanted[endpoints:]
    more = f" and {len(last) - NAMES} more" if len(last) > NAMES else ""
    return (
        f"{len(wanted)} running notebooks request ngrok, and the plan has {endpoints} endpoints (NgrokEndpoints): ngrok"
        f" refuses the last to connect. Started last: {', '.join(last[:NAMES])}{more}. Give them another way, stop some,"
        " or take a larger plan and set the parameter."
    )
