"""Statistics of the fleet: notebooks by status and by problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from notebook_ssh.model.assessment import Condition, assess
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import Mode
from notebook_ssh.model.status import CODES, Code

TOKEN_REFUSED = frozenset({"ngrok-token-invalid", "ngrok-token-missing"})
"""Problems that affect every notebook of the stack (docs/statuses.md)."""


@dataclass(frozen=True, slots=True)
class FleetStats:
    """Numbers of notebooks."""

    # By each status that occurs.
    statuses: Mapping[Code, int]
    # By each problem's code that occurs.
    problems: Mapping[str, int]
    # Notebooks that are connected through ngrok.
    tunnels: int = 0

    def count(self, *codes: Code) -> int:
        """Return how many notebooks have one of these statuses."""
        return sum(self.statuses.get(code, 0) for code in codes)

    @property
    def requested(self) -> int:
        """How many notebooks request SSH, whether they are connected or not."""
        return sum(self.statuses.values()) - self.count(Code.OFF)

    @property
    def token_refused(self) -> int:
        """How many notebooks cannot connect without a valid ngrok token; 0 for one, while another is connected with it.

        Each notebook reports for itself: one alone could sound the alarm at every sweep, and end it at the next.
        """
        refused = sum(number for code, number in self.problems.items() if code in TOKEN_REFUSED)
        return 0 if refused == 1 and self.tunnels else refused


def fleet_stats(records: Iterable[Record], now: int, sync_seconds: int) -> FleetStats:
    """Return the statistics of `records` at `now` (epoch seconds)."""
    statuses: Counter[Code] = Counter()
    problems: Counter[str] = Counter()
    tunnels = 0
    for record in records:
        found = assess(record, now, sync_seconds)
        statuses[CODES[found.condition]] += 1
        if found.problem:
            problems[found.problem.code] += 1
        tunnels += any(path.mode is Mode.NGROK and path.condition is Condition.CONNECTED for path in found.paths)
    return FleetStats(dict(statuses), dict(problems), tunnels)
