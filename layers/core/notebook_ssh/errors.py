"""What goes wrong, by what is to be done about it: it passes if tried again, it needs a person, or nobody need act.

RetryableError failures are raised through the handler so that the queue tries again. TerminalError ones become
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


class RetryableError(Exception):
    """Passes if tried again: throttling, a time-out, a server error, a status that is about to change."""


class TerminalError(Exception):
    """Does not pass by itself. Carries the problem to record."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.message}")
        self.problem = problem


class NotFoundError(Exception):
    """The service answered, and the thing does not exist. Never raised for a read that failed."""


class InvalidStateError(RetryableError):
    """The notebook is in a status that does not allow the call. Retry when its status has changed."""


class InvalidReportError(Exception):
    """A report that is refused. field: what is wrong, as in docs/protocol.md. The text is for the agent's log."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class PayloadTooLargeError(InvalidReportError):
    """A report whose body is larger than any that an agent sends."""
