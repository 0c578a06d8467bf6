"""Errors, by what is to be done: retryable ones are raised, and the queue retries; terminal ones need the user or admin.

A terminal error becomes a `Problem` on the notebook's record, with the remedy, and is not retried until something changes.
"""

from __future__ import annotations

from dataclasses import dataclass

NOT_ALLOWED = "not-allowed"
"""Code of the problem that AWS denies an action."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why SSH does not work, for the user or admin who can fix it."""

    code: str  # lower-case words joined by hyphens, from the list in docs/statuses.md
    message: str  # a sentence that names the thing, the value, the limit and what to do; never a secret


class RetryableError(Exception):
    """Succeeds when it is retried: throttling, a timeout, a server error, a status that is about to change."""


class TerminalError(Exception):
    """Does not succeed when it is retried. `problem` says what to do."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.message}")
        self.problem = problem


class NotAllowedError(TerminalError):
    """AWS denied an action: a policy must change. It is retried by each sweep, since no event reports such a change."""

    def __init__(self, action: str) -> None:
        """action: as IAM names it, `sagemaker:StopNotebookInstance`."""
        super().__init__(
            Problem(
                NOT_ALLOWED,
                f"AWS denies {action} to the stack. An admin must allow it to the stack's role: in service control policies,"
                " permissions boundaries and the role itself (docs/operations.md, “Denied actions”).",
            )
        )


class NotFoundError(Exception):
    """The service reported that the resource does not exist. Never raised for a read that failed."""


class InvalidStateError(RetryableError):
    """The notebook is in a status that does not allow the call. Retry when its status has changed."""


class InvalidReportError(Exception):
    """A report is refused. `field` names what is wrong, as in docs/protocol.md; the text is for the agent's log."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class PayloadTooLargeError(InvalidReportError):
    """A report's body is larger than any that an agent sends."""
