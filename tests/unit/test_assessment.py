"""Status and checks are two readings of one assessment, and agree but for the exceptions that are listed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.builders import NOW, SETTINGS, a_record, a_report
from support.examples import USUAL, examples

from notebook_ssh.errors import Problem
from notebook_ssh.model.assessment import Condition, PathState, assess
from notebook_ssh.model.checks import Check, CheckState, Diagnosis, run_checks
from notebook_ssh.model.record import ROUTED, NotebookState, PathReport, Phase, Record, RejectedKey, Report, Route
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.status import CODES, REACHABLE, Code

TOO_LARGE = Problem("config-too-large", "The on-start script is too large.")
NO_SSHD = Problem("sshd-unreachable", "sshd does not answer.")
TIMES = st.sampled_from([NOW - seconds for seconds in (0, 10, 300, 755, 756, 900, 901, 5_000)])


def problems(*codes: str) -> st.SearchStrategy[Problem | None]:
    """Mostly none, else a problem with one of the codes of its author."""
    return st.sampled_from([None] * len(codes) + [Problem(code, f"It is {code}.") for code in codes])


MODES: tuple[tuple[Mode, ...], ...] = (
    *((), (Mode.NGROK,), (Mode.BASTION,), (Mode.EICE,)),
    *(
        (Mode.NGROK, Mode.EICE),
        (Mode.EICE, Mode.NGROK),
        (Mode.BASTION, Mode.EICE),
        (Mode.EICE, Mode.NGROK, Mode.BASTION),
    ),
)
"""What a notebook can be in."""


def reports(modes: tuple[Mode, ...]) -> st.SearchStrategy[Report]:
    """A report that may be of this run."""
    tunnel = ("ngrok-token-missing", "ngrok-card-required") if Mode.NGROK in modes else ()
    return st.builds(
        a_report,
        booted_at=TIMES,
        received_at=st.sampled_from([NOW, NOW - 10, NOW - 756]),
        modes=st.sampled_from([modes, modes, modes, *MODES]),
        phase=st.sampled_from([Phase.CONNECTED, Phase.CONNECTED, *Phase]),
        keys_own=st.sampled_from([1, 1, 0]),
        rejected=st.sampled_from([(), (), (RejectedKey(2, "not base64"),)]),
        problem=problems(*tunnel, "sshd-unreachable", "agent-failed", "files", "keys-unreadable"),
        connected_since=st.sampled_from([None, NOW - 400]),
        phase_since=TIMES,
    ).flatmap(with_paths)


def with_paths(report: Report) -> st.SearchStrategy[Report]:
    """A report of a single mode as it is; else what an agent says of each path, which has a problem if it failed."""
    if len(report.modes) < 2:
        return st.just(report)
    return st.tuples(*map(path_reports, report.modes)).map(
        lambda paths: replace(
            report,
            paths=paths,
            paths_since=(report.phase_since,) * len(paths),
            phase=best(paths),
            problem=report.problem if report.problem and report.problem.code in GENERAL else None,
        )
    )


GENERAL = ("files", "keys-unreadable")
"""Problems that concern all paths."""


def path_reports(mode: Mode) -> st.SearchStrategy[PathReport]:
    """What an agent reports of one of several paths: the network's are never on their way."""
    failed = "ngrok-card-required" if mode is Mode.NGROK else "sshd-port-taken"
    phases = [Phase.CONNECTED, Phase.CONNECTED, Phase.FAILED] + [Phase.CONNECTING] * (mode is Mode.NGROK)
    return st.sampled_from(phases).map(
        lambda phase: PathReport(mode, phase, Problem(failed, f"It is {failed}.") if phase is Phase.FAILED else None)
    )


def best(paths: Sequence[PathReport]) -> Phase:
    phases = [path.phase for path in paths]
    return next(phase for phase in (Phase.CONNECTED, Phase.CONNECTING, Phase.FAILED) if phase in phases)


def routes_of(mode: Mode, *codes: str) -> st.SearchStrategy[Route]:
    return st.builds(
        Route,
        open=st.booleans(),
        private_ip=st.sampled_from([None, "10.0.1.5", "10.0.1.5"]),
        problem=problems(*codes, "group-gone", "rule-limit"),
    )


ROUTES = st.fixed_dictionaries(
    {
        Mode.BASTION: routes_of(Mode.BASTION, "no-bastion", "client-cidr-invalid"),
        Mode.EICE: routes_of(Mode.EICE, "no-endpoint", "endpoint-gone"),
    }
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A record as the functions write it: each problem has a code of its author."""
    modes = draw(st.sampled_from([*MODES, (Mode.NGROK,), (Mode.BASTION,)]))
    invalid = Problem("invalid-tag", "The tag ssh is “ngrk”.") if not modes and draw(st.booleans()) else None
    return a_record(
        spec=NotebookSpec(modes=modes, until=draw(st.sampled_from([None, None, NOW, NOW + 60])), problem=invalid),
        state=draw(st.sampled_from([NotebookState.IN_SERVICE] * 5 + list(NotebookState))),
        started_at=draw(st.sampled_from([None, NOW - 600, NOW - 1_000])),
        lifecycle_config=draw(st.sampled_from(["team", "team", None])),
        block_since=draw(st.sampled_from([NOW - 5_000, NOW - 5_000, NOW - 5_000, NOW - 100, None])),
        problem=draw(problems("config-too-large", "block-damaged")),
        planned=draw(st.sampled_from([(), (), (), ("write the on-start script of team: …",)])),
        routes=draw(st.just({}) | ROUTES | ROUTES),
        report=draw(st.none() | reports(modes) | reports(modes)),
    )


def first_failed(diagnosis: Diagnosis) -> Check | None:
    return next((check for check in diagnosis.checks if check.state is CheckState.FAILED), None)


def all_pass(diagnosis: Diagnosis) -> bool:
    return all(check.state is CheckState.OK for check in diagnosis.checks)


def is_connected(diagnosis: Diagnosis) -> bool:
    return diagnosis.status.code in REACHABLE and diagnosis.status.problem is None


def checks_look_further(record: Record) -> bool:
    """A connected notebook whose checks do not all pass.

    The configuration check is about the next start too: the block is not installed (yet, or any more), or a dry run
    leaves it so, while the agent that is running stays connected. And a rejected line of the key file fails the key
    check, while the other keys work. And another path may be on its way, or be new in the tag.
    """
    if record.report and len(record.spec.modes) > 1:
        paths = assess(record, NOW, SETTINGS.sync_seconds).paths
        if any(path.state is not PathState.READY for path in paths):
            return True
    return record.block_since is None or bool(record.planned) or bool(record.report and record.report.rejected)


def no_check_reads_the_phase(record: Record) -> bool:
    """Checks that all pass on a notebook that is not connected.

    In a mode with an entrance its check takes the place of the tunnel check, and no other reads the agent's phase.
    """
    report = record.report
    return bool({*ROUTED} & {*record.spec.modes}) and report is not None and report.phase is not Phase.CONNECTED


def the_check_waits(record: Record, condition: Condition) -> bool:
    """An error whose check waits for an earlier one, which has not failed.

    A failed start is no matter of the restart check until the block is installed. And an agent that has not reported
    within the limit is none of the agent check while the notebook is not in service, or a dry run leaves it so.
    """
    blocked = record.block_since is None or bool(record.planned)
    if condition is Condition.NOTEBOOK_FAILED:
        return blocked
    return condition is Condition.NEVER_REPORTED and (blocked or record.state is not NotebookState.IN_SERVICE)


def has_several_problems(record: Record) -> bool:
    """The status names the one of the current run; the checks, in their order, the one of the configuration first."""
    routes = [route for mode, route in record.routes.items() if route.problem and mode in record.spec.modes]
    report = record.report
    paths = [path for path in report.paths if path.problem] if report else []
    agent = bool(report and (report.problem or (report.phase is not Phase.CONNECTED and not paths)))
    return bool(record.problem) + len(routes) + len(paths) + agent > 1


@examples(3 * USUAL)
@given(records())
def test_connected_without_a_problem_means_that_all_checks_pass(record: Record) -> None:
    diagnosis = run_checks(record, NOW, SETTINGS)
    if not checks_look_further(record):
        assert is_connected(diagnosis) <= all_pass(diagnosis)
    if not no_check_reads_the_phase(record):
        assert all_pass(diagnosis) <= is_connected(diagnosis)


@examples(3 * USUAL)
@given(records())
def test_an_error_has_the_problem_of_the_first_failed_check(record: Record) -> None:
    diagnosis = run_checks(record, NOW, SETTINGS)
    status, failed = diagnosis.status, first_failed(diagnosis)
    condition = assess(record, NOW, SETTINGS.sync_seconds).condition
    if status.code is not Code.ERROR or the_check_waits(record, condition):
        return
    assert failed is not None
    if not has_several_problems(record):
        assert failed.problem == status.problem
    assert status.problem in [check.problem for check in diagnosis.checks if check.state is CheckState.FAILED]


REPORT = a_report()
SSHD_DOWN = a_report(phase=Phase.FAILED, problem=NO_SSHD)
BASTION: dict[str, Any] = {
    "spec": NotebookSpec(modes=(Mode.BASTION,)),
    "routes": {Mode.BASTION: Route(True, "10.0.1.5")},
}


@pytest.mark.parametrize(
    ("record", "connected", "passing"),
    [
        (a_record(report=REPORT), True, True),
        (a_record(report=REPORT, block_since=None), True, False),
        (a_record(report=REPORT, planned=("write it",)), True, False),
        (a_record(report=a_report(rejected=(RejectedKey(2, "not base64"),))), True, False),
        (a_record(**BASTION, report=a_report(modes=(Mode.BASTION,), phase=Phase.CONNECTING)), False, True),
    ],
    ids=["usual", "not installed", "dry run", "rejected line", "connecting to the bastion"],
)
def test_where_connected_and_passing_differ(record: Record, connected: bool, passing: bool) -> None:
    diagnosis = run_checks(record, NOW, SETTINGS)
    assert (is_connected(diagnosis), all_pass(diagnosis)) == (connected, passing)


@pytest.mark.parametrize(
    ("record", "code", "failed"),
    [
        (a_record(report=SSHD_DOWN), "sshd-unreachable", "sshd-unreachable"),
        (a_record(report=SSHD_DOWN, problem=TOO_LARGE), "sshd-unreachable", "config-too-large"),
        (a_record(state=NotebookState.FAILED, started_at=None, block_since=None), "notebook-failed", None),
        (a_record(state=NotebookState.PENDING, started_at=NOW - 1_000), "agent-silent", None),
        (a_record(started_at=NOW - 1_000, planned=("write it",)), "agent-silent", None),
    ],
    ids=["one problem", "two problems", "failed without the block", "still pending", "dry run"],
)
def test_where_error_and_first_failed_check_differ(record: Record, code: str, failed: str | None) -> None:
    diagnosis = run_checks(record, NOW, SETTINGS)
    assert diagnosis.status.code is Code.ERROR
    assert diagnosis.status.problem
    assert diagnosis.status.problem.code == code
    first = first_failed(diagnosis)
    assert (first.problem.code if first and first.problem else None) == failed


def test_every_condition_has_a_code() -> None:
    assert set(CODES) == set(Condition)
    assert set(CODES.values()) == set(Code)
