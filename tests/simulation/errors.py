"""The ways in which AWS does not answer, as botocore raises them."""

from __future__ import annotations

from botocore.exceptions import ClientError, ReadTimeoutError


def refusal(code: str, message: str, status: int = 400) -> ClientError:
    """A service's error. The operation's name is only for logs."""
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "Simulated",
    )


def no_answer() -> ReadTimeoutError:
    """The request went out, and nothing came back: whether it was obeyed, nobody knows."""
    return ReadTimeoutError(endpoint_url="https://aws.example")


class Killed(BaseException):
    """The invocation ends here and now. No `except Exception` sees it, as none sees a process that dies."""


class InvariantError(BaseException):
    """Something happened that must never happen. No `except Exception` of the code under test hides it."""
