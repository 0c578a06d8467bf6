"""Builds the reply to a report: what the agent is to do (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, assert_never

from notebook_ssh.errors import Problem
from notebook_ssh.model.record import ROUTED, Phase, Record, Route
from notebook_ssh.model.revocation import Revocation, required_principal
from notebook_ssh.model.session_ends import Withdrawn, end_reason
from notebook_ssh.model.spec import Mode, tag_value
from notebook_ssh.model.stack import Bastion
from notebook_ssh.reports.tokens import Token

FAST_SYNC_SECONDS = 15
"""Seconds between two reports until the connection works."""


def reply(
    record: Record,
    now: int,
    *,
    sync_seconds: int,
    bastion: Bastion | None,
    token: Token | None,
    held_version: str | None,
    keys: Sequence[tuple[str, Sequence[str]]],
    problem: Problem | None = None,
    worker: str | None = None,
) -> dict[str, Any]:
    """Return what the agent on the notebook of `record` is to do at `now` (epoch seconds).

    token: the ngrok token, or None when the stack has none for this notebook. held_version: the version that the agent holds.
    keys: public-key lines by user. problem: what the stack found wrong; the tags' problem goes first.
    worker: the text of the worker's program (model/worker_program.py), if the agent needs it and the stack has it.
    """
    spec, modes = record.spec, record.spec.effective_modes(now)
    reply: dict[str, Any] = {
        "notebook": record.name,
        **_modes(modes),
        "sync_after": _sync_after(record, modes, now, sync_seconds),
        "server_time": now,
        "until": spec.until,
        "authorized_keys": [{"user": user, "keys": list(lines)} for user, lines in keys] if modes else [],
    }
    if worker and modes:
        reply["worker"] = worker
    problem = spec.problem or problem or record.problem
    parts = {mode: _part(mode, record, bastion, token, held_version) for mode in modes}
    for mode, part in parts.items():
        if part is not None:
            reply[str(mode)] = part
            route = record.routes.get(mode)
            problem = problem or (route.problem if route else None)
    reply["problem"] = {"code": problem.code, "message": problem.message} if problem else None
    return reply


def _part(
    mode: Mode, record: Record, bastion: Bastion | None, token: Token | None, held_version: str | None
) -> dict[str, Any] | None:
    """Return the part of the reply that has the name of `mode`, or None without one."""
    route = record.routes.get(mode) or Route()
    match mode:
        case Mode.NGROK:
            part: dict[str, Any] = {
                "url": record.spec.ngrok_url,
                "token_version": token.version if token else None,
            }
            return part | {"token": token.value} if token and token.version != held_version else part
        case Mode.BASTION:
            return {"host": bastion.host, "user": bastion.user, "private_ip": route.private_ip} if bastion else None
        case Mode.EICE:
            known = {"id": route.endpoint.id, "dns_name": route.endpoint.dns_name} if route.endpoint else {}
            return {"id": None, "dns_name": None, **known, "private_ip": route.private_ip}
        case unknown:
            assert_never(unknown)


def certificates(
    record: Record, now: int, stack: str, authorities: Sequence[str], revocations: Sequence[Revocation] = ()
) -> dict[str, Any]:
    """Return the part of the reply that says whose certificates the notebook admits; empty if it admits none.

    authorities: public keys, `type base64`. Without the notebook's age there is no principal that is its alone.
    """
    if not authorities or not record.created_at or not record.spec.effective_modes(now):
        return {}
    principal = required_principal(stack, record.name, record.created_at, revocations)
    return {"certificates": {"authorities": list(authorities), "principal": principal}}


def sessions(record: Record, now: int, kinds: Sequence[str], withdrawn: Withdrawn) -> dict[str, Any]:
    """Return the part of the reply that says which open sessions the notebook ends; empty if it ends none.

    kinds: as in `settings.ENDED_KINDS`.
    """
    if not kinds:
        return {}
    listed = {name: list(values) for name, values in asdict(withdrawn).items() if values}
    return {"sessions": {"end": end_reason(record, now), "kinds": list(kinds), "withdrawn": listed}}


def reply_unregistered(name: str, now: int, sync_seconds: int) -> dict[str, Any]:
    """Return the reply to a notebook without a record: SSH is off."""
    return {
        "notebook": name,
        **_modes(()),
        "sync_after": sync_seconds,
        "server_time": now,
        "until": None,
        "authorized_keys": [],
        "problem": None,
    }


def reply_paused(name: str, now: int, sync_seconds: int) -> dict[str, Any]:
    """Return the reply to every notebook while the stack is paused: SSH is off, and why."""
    problem = {"code": "paused", "message": "An admin has paused SSH for all notebooks of this stack."}
    return reply_unregistered(name, now, sync_seconds) | {"problem": problem}


def _modes(modes: Sequence[Mode]) -> dict[str, Any]:
    """Return the modes, and as `mode` their tag value: the block and workers before `modes` read that one."""
    return {"modes": [str(mode) for mode in modes], "mode": tag_value(modes)}


def _sync_after(record: Record, modes: tuple[Mode, ...], now: int, sync_seconds: int) -> int:
    """Return the seconds to the next report: fewer until the connection works, and none beyond the end of access."""
    report, until = record.report, record.spec.until
    settled = report is not None and report.modes == modes and report.phase is not Phase.CONNECTING
    if settled:
        settled = all(mode in record.routes for mode in modes if mode in ROUTED)
    seconds = sync_seconds if settled else min(sync_seconds, FAST_SYNC_SECONDS)
    return max(1, min(seconds, until - now)) if until is not None and until > now else seconds
