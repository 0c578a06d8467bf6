"""Decides whether a parsed report is accepted: by caller, order and what is known of the notebook."""

from __future__ import annotations

from dataclasses import dataclass, replace

from notebook_ssh.model.assessment import silent_after
from notebook_ssh.model.record import Phase, Record, Report


@dataclass(frozen=True, slots=True)
class Unregistered:
    """No user tagged this notebook: the reply is `off`."""


@dataclass(frozen=True, slots=True)
class RoleMismatch:
    """The caller's role is not this notebook's execution role."""

    expected: str  # the role that may report; empty while unknown


@dataclass(frozen=True, slots=True)
class OutOfOrder:
    """The report is not newer than the last accepted one."""

    known: Report  # the last accepted one


@dataclass(frozen=True, slots=True)
class Accepted:
    """The report is newer, and more than a heartbeat."""

    report: Report  # as it is to be stored
    before: Report | None  # the one that it replaces


AcceptResult = Unregistered | RoleMismatch | OutOfOrder | Accepted


def accept(record: Record | None, role: str, report: Report) -> AcceptResult:
    """Decide about `report`, sent by a caller with `role`, given the notebook's record (None: there is none)."""
    if record is None:
        return Unregistered()
    if record.role != role:
        return RoleMismatch(record.role)
    before = record.report
    if before is not None and not _newer(report, before):
        return OutOfOrder(before)
    return Accepted(_carried(report, before), before)


def heartbeat_deadline(now: int, sync_seconds: int) -> int:
    """Return the time (epoch seconds) after which the last report must have come for the next to be a heartbeat."""
    return now - silent_after(sync_seconds)


def _newer(report: Report, before: Report) -> bool:
    if report.boot == before.boot:
        return report.sequence > before.sequence
    return report.booted_at > before.booted_at


def _carried(report: Report, before: Report | None) -> Report:
    """Return `report` with the times that only the stack knows: since when the phase and connected, and the last use."""
    now = report.received_at
    if before is not None and before.active_at is not None:
        # A new boot has had no session yet.
        report = replace(report, active_at=max(before.active_at, report.active_at or 0))
    if before is None or before.boot != report.boot or {*before.modes} != {*report.modes}:
        connected = now if report.phase is Phase.CONNECTED else None
        same_boot = before if before and before.boot == report.boot else None
        return replace(report, phase_since=now, paths_since=_paths_since(report, same_boot), connected_since=connected)
    same_phase = (before.phase, before.problem) == (report.phase, report.problem)
    connected_since = before.connected_since
    # With several paths another one may have worked all the time.
    moved = not report.paths and (before.host, before.port) != (report.host, report.port)
    if report.phase is Phase.CONNECTED and (moved or not connected_since):
        connected_since = now
    return replace(
        report,
        phase_since=before.phase_since if same_phase else now,
        paths_since=_paths_since(report, before),
        connected_since=connected_since,
    )


def _paths_since(report: Report, before: Report | None) -> tuple[int, ...]:
    known = dict(zip(before.paths, before.paths_since, strict=False)) if before else {}
    return tuple(known.get(path, report.received_at) for path in report.paths)
