"""The two kinds of failure, and nothing else: what passes if tried again, and what needs a person.

Transient failures are raised through the handler so that the queue tries again. Permanent ones become
a `Problem` on the notebook's record, with the remedy, and are not retried until something changes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What stands in the way, for the person who can clear it.

    code: lower-case words joined by hyphens, from the list in docs/statuses.md.
    message: one sentence naming the thing, the value and the limit, and what to do. Never a secret.
    """

    code: str
    message: str


class Transient(Exception):
    """Passes if tried again: throttling, a time-out, a server error, a status that is about to change."""


class Permanent(Exception):
    """Does not pass by itself. Carries the problem to record."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.message}")
        self.problem = problem


class Absent(Exception):
    """The service answered, and the thing does not exist. Never raised for a read that failed."""
