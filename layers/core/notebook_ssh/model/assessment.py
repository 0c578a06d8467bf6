"""Assess what a notebook's record means at a given time. The status and the checks are two readings of it.

A path is one mode of the notebook's tag with its state. Once the agent has reported in this run, each is judged by itself,
and the best of them decides the status.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, StrEnum, auto
from typing import NamedTuple, assert_never

from notebook_ssh.errors import Problem
from notebook_ssh.model import problems
from notebook_ssh.model.record import (
    ROUTED,
    NotebookState,
    PathReport,
    Phase,
    Record,
    Report,
    Route,
    is_running,
    predates_block,
)
from notebook_ssh.model.spec import Mode

STARTING_SECONDS = 900
"""Seconds that a start may take before silence is an error: SageMaker's minutes, and five for the lifecycle script."""


class Condition(Enum):
    """The one thing that decides the status."""

    # Decided by the tags.
    INVALID_TAG = auto()
    OFF = auto()
    EXPIRED = auto()
    # Decided by the agent's report of the current run.
    SILENT = auto()
    CHANGING_MODE = auto()
    ROUTE_FAILED = auto()
    ROUTE_PENDING = auto()
    CONNECTED = auto()
    READY = auto()
    AGENT_FAILED = auto()
    AGENT_STUCK = auto()
    RECONNECTING = auto()
    CONNECTING = auto()
    # Without such a report: decided by the reconciler, SageMaker's state, and whether the current run has the block.
    NOT_RECONCILED = auto()
    STOPPED = auto()
    STOPPING = auto()
    UPDATING = auto()
    DELETING = auto()
    NOTEBOOK_FAILED = auto()
    NEEDS_STOP = auto()
    NEEDS_RESTART = auto()
    STARTING = auto()
    NEVER_REPORTED = auto()


WORKING = frozenset({Condition.CONNECTED, Condition.READY})
"""The conditions in which an address is believed to work."""

_BEST_FIRST = (
    *(Condition.CONNECTED, Condition.READY),
    *(Condition.RECONNECTING, Condition.CONNECTING, Condition.ROUTE_PENDING, Condition.CHANGING_MODE),
    *(Condition.ROUTE_FAILED, Condition.AGENT_FAILED, Condition.AGENT_STUCK),
)
"""The conditions of paths that a report decides."""

_FAILED = frozenset(
    {
        *(Condition.ROUTE_FAILED, Condition.AGENT_FAILED, Condition.AGENT_STUCK),
        *(Condition.NOT_RECONCILED, Condition.NOTEBOOK_FAILED, Condition.NEVER_REPORTED),
    }
)


class PathState(StrEnum):
    """The state of a path, in the API's words."""

    READY = "ready"
    WAITING = "waiting"
    FAILED = "failed"


class Path(NamedTuple):
    """One mode of a notebook, with its state."""

    mode: Mode
    condition: Condition
    # Why it fails, or what the user should know of it.
    problem: Problem | None
    # Host and port of the current run, whether they still work or not.
    address: tuple[str, int] | None = None
    # The route, in a mode that needs one.
    route: Route | None = None
    # Since when the agent has reported the same of it.
    since: int = 0

    @property
    def state(self) -> PathState:
        """Whether it works, will, or does not."""
        if self.condition in WORKING:
            return PathState.READY
        return PathState.FAILED if self.condition in _FAILED else PathState.WAITING


class Assessment(NamedTuple):
    """What is known of one notebook at `now`."""

    record: Record
    # Epoch seconds.
    now: int
    # Seconds between two reports.
    sync_seconds: int
    condition: Condition
    # The problem that decides the condition, or that the user should know of in it.
    problem: Problem | None
    # The effective modes.
    modes: tuple[Mode, ...]
    # The last report, if it is of the current run.
    report: Report | None
    # Host and port of the current run, whether they still work or not.
    address: tuple[str, int] | None
    # Each mode of the tag, in its order; none while SSH is off.
    paths: tuple[Path, ...]
    # The path that decides the condition; None where something else does.
    path: Path | None
    # When the current run began, as near as is known; 0 if never observed.
    began: int
    # The block is in the attached configuration.
    block_installed: bool
    # The current run started with the block in its configuration.
    started_with_block: bool

    @property
    def reachable(self) -> bool:
        """Whether the address is believed to work."""
        return self.condition in WORKING


_STATE_CONDITIONS = {
    NotebookState.STOPPED: Condition.STOPPED,
    NotebookState.STOPPING: Condition.STOPPING,
    NotebookState.UPDATING: Condition.UPDATING,
    NotebookState.DELETING: Condition.DELETING,
    NotebookState.FAILED: Condition.NOTEBOOK_FAILED,
}


def assess(record: Record, now: int, sync_seconds: int) -> Assessment:
    """Assess `record` at `now` (epoch seconds). sync_seconds: the time between two reports."""
    report = report_of_this_run(record)
    whole = _whole(record, report, now, sync_seconds)
    modes = record.spec.effective_modes(now)
    paths = tuple(_path(record, report, mode, now, whole) for mode in modes if not record.spec.problem)
    deciding, (condition, problem) = None, whole or (Condition.OFF, None)
    if whole is None and report:
        deciding = min(paths, key=lambda path: _BEST_FIRST.index(path.condition))
        condition, problem = deciding.condition, _problem(record, report, deciding, paths)
    return Assessment(
        record=record,
        now=now,
        sync_seconds=sync_seconds,
        condition=condition,
        problem=problem,
        modes=modes,
        report=report,
        address=_address(record, report, paths),
        paths=paths,
        path=deciding,
        began=_began(record),
        block_installed=record.block_since is not None,
        started_with_block=_started_with_block(record),
    )


def usable(paths: Sequence[Path]) -> Path | None:
    """Return the first of `paths` that works, else the first with an address; None without any."""
    having = [path for path in paths if path.address]
    return next((path for path in having if path.state is PathState.READY), having[0] if having else None)


def address_of(record: Record, now: int, sync_seconds: int) -> tuple[str, int] | None:
    """Return host and port to connect to, or None unless they are believed to work at `now`."""
    found = assess(record, now, sync_seconds)
    return found.address if found.reachable else None


def _address(record: Record, report: Report | None, paths: Sequence[Path]) -> tuple[str, int] | None:
    """Return the address of the usable path, else one of the modes that the agent is still in."""
    path = usable(paths)
    if path or report is None:
        return path.address if path else None
    return next(filter(None, (_address_in(mode, record, report) for mode in report.modes)), None)


def _address_in(mode: Mode, record: Record, report: Report) -> tuple[str, int] | None:
    match mode:
        case Mode.NGROK:
            return (report.host, report.port) if report.host and report.port else None
        case Mode.BASTION | Mode.EICE:
            route = record.routes.get(mode)
            return (route.private_ip, 22) if route and route.private_ip else None
        case unknown:
            assert_never(unknown)


def report_of_this_run(record: Record) -> Report | None:
    """Return the last report, unless the run of the notebook that it is from is known to have ended.

    SageMaker's state may be older than the report, since events are late or lost: a boot that began after the
    notebook was observed stopped is a run that is known from its report alone.
    """
    report, began = record.report, record.state_since
    if report is None or record.state in (NotebookState.STOPPING, NotebookState.DELETING):
        return None
    booted_from = began
    if is_running(record) and record.started_at is not None:
        began = booted_from = record.started_at
    if record.state is NotebookState.IN_SERVICE and began == record.state_since:
        # It was never observed Pending: only the time of readiness is known, and it booted before that.
        booted_from = began - STARTING_SECONDS
    return report if report.booted_at >= booted_from or report.received_at > began else None


def silent_after(sync_seconds: int) -> int:
    """Return the seconds without a report after which an agent counts as silent: two missed reports, and some slack."""
    return 2 * sync_seconds + sync_seconds // 2 + 5


def starting_since(record: Record) -> int:
    """Return since when a first report of the current run is expected."""
    return max(_began(record), record.block_since or 0, record.spec_changed_at or 0)


def _whole(
    record: Record, report: Report | None, now: int, sync_seconds: int
) -> tuple[Condition, Problem | None] | None:
    """Return what decides about every path at once; None if each is judged by itself."""
    spec = record.spec
    if spec.problem:
        return Condition.INVALID_TAG, spec.problem
    if not spec.modes:
        return Condition.OFF, None
    if spec.until is not None and now >= spec.until:
        return Condition.EXPIRED, None
    if report:
        silent = now - report.received_at > silent_after(sync_seconds)
        return (Condition.SILENT, problems.silent_since(report.received_at)) if silent else None
    if problem := _obstacle(record):
        return Condition.NOT_RECONCILED, problem
    return _not_reported(record, now)


def _obstacle(record: Record) -> Problem | None:
    """Return what prevents an agent from ever reporting."""
    if record.unsupported_platform:
        return problems.platform_unsupported(record.name, record.unsupported_platform)
    return record.problem


def _path(
    record: Record, report: Report | None, mode: Mode, now: int, whole: tuple[Condition, Problem | None] | None
) -> Path:
    route = record.routes.get(mode) if mode in ROUTED else None
    address, since = None, 0
    if report and mode in report.modes:
        address, (_, since) = _address_in(mode, record, report), report.of_path(mode)
    elif report:
        since = report.phase_since
    if whole is None and report:
        condition, problem = _reported(record, report, mode, now)
    elif route and route.problem and not route.open:
        condition, problem = Condition.ROUTE_FAILED, route.problem
    else:
        condition, problem = whole or (Condition.OFF, None)
    return Path(mode, condition, problem, address, route, since)


def _reported(record: Record, report: Report, mode: Mode, now: int) -> tuple[Condition, Problem | None]:
    if mode not in report.modes:
        return Condition.CHANGING_MODE, record.problem
    reported, since = report.of_path(mode)
    match reported.phase:
        case Phase.CONNECTED:
            return _connected(record, report, reported)
        case Phase.FAILED:
            return Condition.AGENT_FAILED, reported.problem or report.problem or problems.agent_failed(record.name)
        case Phase.CONNECTING | Phase.OFF:
            return _connecting(record, report, reported, since, now)


def _connected(record: Record, report: Report, reported: PathReport) -> tuple[Condition, Problem | None]:
    if reported.mode not in ROUTED:
        return Condition.CONNECTED, reported.problem
    route = record.routes.get(reported.mode)
    if route and route.problem and not route.open:
        return Condition.ROUTE_FAILED, route.problem
    if route is None or not route.open or route.private_ip is None:
        return Condition.ROUTE_PENDING, record.problem
    # An open route with a problem excludes some users and not all: a refused client network.
    problem = reported.problem or route.problem
    proven = reported.mode.is_proven_by_report or _was_used(report, route)
    return Condition.CONNECTED if proven else Condition.READY, problem


def _was_used(report: Report, route: Route) -> bool:
    """Return whether a session was reported since the path has been open: of an endpoint's tunnels no one else hears."""
    begun = max(report.booted_at, route.since)
    return report.sessions > 0 or (report.active_at is not None and report.active_at >= begun)


def _connecting(
    record: Record, report: Report, reported: PathReport, since: int, now: int
) -> tuple[Condition, Problem | None]:
    problem = reported.problem or report.problem
    if not problem and since and now - since > STARTING_SECONDS:
        return Condition.AGENT_STUCK, problems.agent_stuck(record.name, since)
    return Condition.CONNECTING if report.connected_since is None else Condition.RECONNECTING, problem or record.problem


def _problem(record: Record, report: Report, deciding: Path, paths: Sequence[Path]) -> Problem | None:
    """Return the problem of the status that the path `deciding` gives."""
    if deciding.condition not in WORKING:
        return deciding.problem
    problem = record.problem or report.problem or deciding.problem
    if problem is None and not (report.keys_own or report.keys_central or report.authorities):
        problem = problems.no_keys(record.name)
    return problem or next((path.problem for path in paths if path.state is PathState.FAILED), None)


def _not_reported(record: Record, now: int) -> tuple[Condition, Problem | None]:
    if condition := _STATE_CONDITIONS.get(record.state):
        failed = condition is Condition.NOTEBOOK_FAILED
        return condition, problems.notebook_failed(record.name, record.failure) if failed else None
    if record.state.may_run and not is_running(record):
        return Condition.UPDATING, None
    if record.block_since is None and record.lifecycle_config is None:
        return Condition.NEEDS_STOP, None
    if not _started_with_block(record):
        return Condition.NEEDS_RESTART, None
    if now - starting_since(record) <= STARTING_SECONDS:
        return Condition.STARTING, None
    return Condition.NEVER_REPORTED, problems.never_reported(record.name, _began(record))


def _began(record: Record) -> int:
    return record.started_at if record.started_at is not None else record.state_since


def _started_with_block(record: Record) -> bool:
    return record.block_since is not None and not predates_block(record, record.block_since)
