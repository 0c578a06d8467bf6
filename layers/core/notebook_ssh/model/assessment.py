"""Assess what a notebook's record means at a given time. The status and the checks are two readings of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from notebook_ssh.errors import Problem
from notebook_ssh.model import problems
from notebook_ssh.model.record import NotebookState, Phase, Record, Report, Route, is_running, predates_block
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


@dataclass(frozen=True, slots=True)
class Assessment:
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
    # The route through the bastion, in mode bastion only.
    route: Route | None
    # When the current run began, as near as is known; 0 if never observed.
    began: int
    # The block is in the attached configuration.
    block_installed: bool
    # The current run started with the block in its configuration.
    started_with_block: bool

    @property
    def reachable(self) -> bool:
        """Whether the address is believed to work."""
        return self.condition is Condition.CONNECTED


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
    condition, problem = _condition(record, report, now, sync_seconds)
    return Assessment(
        record=record,
        now=now,
        sync_seconds=sync_seconds,
        condition=condition,
        problem=problem,
        modes=record.spec.effective_modes(now),
        report=report,
        address=_address(record, report),
        route=record.routes.get(Mode.BASTION) if Mode.BASTION in record.spec.modes else None,
        began=_began(record),
        block_installed=record.block_since is not None,
        started_with_block=_started_with_block(record),
    )


def address_of(record: Record, now: int, sync_seconds: int) -> tuple[str, int] | None:
    """Return host and port to connect to, or None unless they are believed to work at `now`."""
    found = assess(record, now, sync_seconds)
    return found.address if found.reachable else None


def last_address(record: Record) -> tuple[str, int] | None:
    """Return host and port of the current run, whether they still work or not; None if it has had none."""
    return _address(record, report_of_this_run(record))


def _address(record: Record, report: Report | None) -> tuple[str, int] | None:
    for mode in report.modes if report else ():
        match mode:
            case Mode.BASTION if (route := record.routes.get(mode)) and route.private_ip:
                return route.private_ip, 22
            case Mode.NGROK if report and report.host and report.port:
                return report.host, report.port
    return None


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


def _condition(record: Record, report: Report | None, now: int, sync_seconds: int) -> tuple[Condition, Problem | None]:
    spec = record.spec
    if spec.problem:
        return Condition.INVALID_TAG, spec.problem
    if not spec.modes:
        return Condition.OFF, None
    if spec.until is not None and now >= spec.until:
        return Condition.EXPIRED, None
    if report:
        return _reported(record, report, now, sync_seconds)
    if problem := _obstacle(record):
        return Condition.NOT_RECONCILED, problem
    return _not_reported(record, now)


def _obstacle(record: Record) -> Problem | None:
    """Return what prevents an agent from ever reporting."""
    if record.unsupported_platform:
        return problems.platform_unsupported(record.name, record.unsupported_platform)
    return record.problem


def _reported(record: Record, report: Report, now: int, sync_seconds: int) -> tuple[Condition, Problem | None]:
    if now - report.received_at > silent_after(sync_seconds):
        return Condition.SILENT, problems.silent_since(report.received_at)
    if report.modes != record.spec.modes:
        return Condition.CHANGING_MODE, record.problem
    match report.phase:
        case Phase.CONNECTED:
            return _connected(record, report)
        case Phase.FAILED:
            return Condition.AGENT_FAILED, report.problem or problems.agent_failed(record.name)
        case Phase.CONNECTING | Phase.OFF:
            return _connecting(record, report, now)


def _connected(record: Record, report: Report) -> tuple[Condition, Problem | None]:
    route = None
    if record.spec.modes == (Mode.EICE,):
        return Condition.ROUTE_FAILED, problems.no_endpoint()
    if Mode.BASTION in record.spec.modes:
        route = record.routes.get(Mode.BASTION)
        if route and route.problem and not route.open:
            return Condition.ROUTE_FAILED, route.problem
        if route is None or not route.open or route.private_ip is None:
            return Condition.ROUTE_PENDING, record.problem
    # An open route with a problem excludes some users and not all: a refused client network.
    problem = record.problem or report.problem or (route.problem if route else None)
    if problem is None and not (report.keys_own or report.keys_central or report.authorities):
        problem = problems.no_keys(record.name)
    return Condition.CONNECTED, problem


def _connecting(record: Record, report: Report, now: int) -> tuple[Condition, Problem | None]:
    since = report.phase_since
    if not report.problem and since and now - since > STARTING_SECONDS:
        return Condition.AGENT_STUCK, problems.agent_stuck(record.name, since)
    problem = report.problem or record.problem
    return Condition.CONNECTING if report.connected_since is None else Condition.RECONNECTING, problem


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
