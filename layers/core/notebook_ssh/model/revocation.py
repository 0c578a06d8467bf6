"""What was withdrawn with `notebook-ssh revoke`, and how a notebook refuses it without any list of sshd's.

sshd takes a list of revoked certificates from its configuration alone, which is root's. So a notebook requires another
principal after each revocation (`generation`): every certificate that was signed before has none that fits. Those that
are signed from then on name the new generation, and the ones before it for as long as a notebook may not have heard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from notebook_ssh.model.certificate import principal_of
from notebook_ssh.model.session_ends import Withdrawn

MOST_LISTED = 200
"""Revocations in a reply, the newest."""

OVERLAP_S = 3 * 3600
"""Seconds for which a certificate also fits notebooks that have not heard of a revocation: three of the longest intervals
between two reports."""

MOST_PRINCIPALS = 8
"""Of one certificate."""

_SERIAL = re.compile(r"[0-9]{1,20}")
_KEY = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_ROLE = re.compile(r"arn:(aws[a-z-]*):iam::(\d{12}):role/(?:.*/)?([^/]+)")
_SESSIONS = re.compile(r"arn:aws[a-z-]*:sts::\d{12}:assumed-role/[^/]+/?")
_CALLER = re.compile(r"arn:aws[a-z-]*:(?:sts|iam)::\d{12}:\S+")


@dataclass(frozen=True, slots=True)
class Revocation:
    """One of the parameters. at: when it was last written, in epoch seconds."""

    text: str
    at: int


def withdrawn(revocations: Iterable[Revocation], users: tuple[str, ...] = ()) -> Withdrawn:
    """Return what revocations, and the users whose keys are gone, withdraw. One that cannot be read withdraws nothing."""
    newest = sorted(revocations, key=lambda each: each.at, reverse=True)[:MOST_LISTED]
    texts = [each.text.strip() for each in newest]
    return Withdrawn(
        serials=tuple(text for text in texts if _SERIAL.fullmatch(text)),
        arns=tuple(filter(None, map(caller_pattern, texts))),
        keys=tuple(text for text in texts if _KEY.fullmatch(text)),
        users=users,
    )


def caller_pattern(text: str) -> str | None:
    """Return what the ARNs of callers are compared with: one ARN, or with a slash at the end, every session of a role.

    A role's ARN stands for its sessions, which have its name without the path; None for what is no ARN of a caller.
    """
    if role := _ROLE.fullmatch(text):
        return f"arn:{role[1]}:sts::{role[2]}:assumed-role/{role[3]}/"
    if _SESSIONS.fullmatch(text):
        return text.removesuffix("/") + "/"
    return text if _CALLER.fullmatch(text) else None


def is_revoked(caller_arn: str, revocations: Iterable[Revocation]) -> bool:
    """Return whether a caller gets no certificate any more."""
    return any(
        caller_arn == arn or (arn.endswith("/") and caller_arn.startswith(arn)) for arn in withdrawn(revocations).arns
    )


def required_principal(stack: str, notebook: str, created_at: int, revocations: Iterable[Revocation]) -> str:
    """Return the principal that a notebook requires: of the last generation, whose number is the time of the revocation."""
    return _of_generation(principal_of(stack, notebook, created_at), max((each.at for each in revocations), default=0))


def principals_to_sign(
    stack: str, notebook: str, created_at: int, revocations: Iterable[Revocation], now: int
) -> tuple[str, ...]:
    """Return the principals of a certificate that is signed at `now`: the last generation first.

    The caller is none that was revoked, so that it may fit a notebook that has not heard of a revocation yet.
    """
    base = principal_of(stack, notebook, created_at)
    times = [0, *sorted({each.at for each in revocations})]
    # A generation was the one required until the next one began.
    current = [time for time, ended in zip(times, [*times[1:], now + 1], strict=True) if ended > now - OVERLAP_S]
    return tuple(_of_generation(base, time) for time in current[: -MOST_PRINCIPALS - 1 : -1])


def _of_generation(principal: str, generation: int) -> str:
    return f"{principal}/{generation}" if generation else principal
