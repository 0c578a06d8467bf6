"""The status of a notebook, as a table, and what holds for every record there can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.builders import NOW, SETTINGS, a_record, a_report

from notebook_ssh.errors import Problem
from notebook_ssh.http_api.diagnosis import doctor_json, doctor_text
from notebook_ssh.http_api.views import connection_for, details, list_entry
from notebook_ssh.model.assessment import STARTING_SECONDS, address_of, assess, silent_after
from notebook_ssh.model.checks import run_checks
from notebook_ssh.model.problems import REMEDIES, no_endpoint, remedy_of
from notebook_ssh.model.record import (
    ROUTED,
    Endpoint,
    NotebookState,
    PathReport,
    Phase,
    Record,
    Report,
    Route,
)
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.status import REACHABLE, Code, status_of
from notebook_ssh.model.text import iso_time
from notebook_ssh.model.wake import WAKE_AGAIN_SECONDS, Wake, wake

SYNC = 300
TOO_LARGE = Problem("config-too-large", "The on-start script has 12,000 bytes.")
NO_CARD = Problem("ngrok-card-required", "ngrok wants a card.")
RULE_LIMIT = Problem("rule-limit", "The group sg-1 is full.")
CONNECTING = a_report(phase=Phase.CONNECTING, host=None, port=None, connected_since=None, phase_since=NOW - 20)
THROUGH_BASTION = a_report(modes=(Mode.BASTION,), host=None, port=None)
OPEN = Route(open=True, private_ip="10.0.1.5", since=NOW - 300)
NGROK, VIA_BASTION = NotebookSpec(modes=(Mode.NGROK,)), NotebookSpec(modes=(Mode.BASTION,))
STOPPED = {"state": NotebookState.STOPPED, "started_at": None}

BY_EICE, PORT_TAKEN = NotebookSpec(modes=(Mode.EICE,)), Problem("sshd-port-taken", "Another program has port 22.")
OUTDATED = Problem("agent-outdated", "Restart the notebook.")
ENDPOINT = Endpoint("eice-0123", "eice-0123.example.com")
BY_ENDPOINT = Route(open=True, private_ip="10.0.1.5", since=NOW - 300, endpoint=ENDPOINT)
THROUGH_ENDPOINT = a_report(modes=(Mode.EICE,), host=None, port=None)


def two(ngrok: Phase, eice: Phase, tunnel: Problem | None = None, sshd: Problem | None = None, **parts: Any) -> Record:
    """A record with the tag `ssh=ngrok eice`, whose agent reports these phases and problems."""
    modes = (Mode.NGROK, Mode.EICE)
    up = ngrok is Phase.CONNECTED
    report = a_report(
        modes=modes,
        phase=Phase.CONNECTED if Phase.CONNECTED in (ngrok, eice) else ngrok,
        host="0.tcp.ngrok.io" if up else None,
        port=17887 if up else None,
        paths=(PathReport(Mode.NGROK, ngrok, tunnel), PathReport(Mode.EICE, eice, sshd)),
        paths_since=(NOW - 20, NOW - 20),
        **parts,
    )
    return a_record(spec=NotebookSpec(modes=modes), routes={Mode.EICE: BY_ENDPOINT}, report=report)


CASES: list[tuple[str, Record, Code, int | None, str | None]] = [
    # What the tags say comes first.
    ("nobody wants SSH", a_record(spec=NotebookSpec()), Code.OFF, None, None),
    (
        "off, though the agent is still connected",
        a_record(spec=NotebookSpec(), report=a_report()),
        Code.OFF,
        None,
        None,
    ),
    (
        "a misspelt tag",
        a_record(spec=NotebookSpec(problem=Problem("invalid-tag", "The tag ssh is “ngrk”.")), spec_changed_at=NOW - 9),
        Code.INVALID_TAG,
        NOW - 9,
        "invalid-tag",
    ),
    ("the end has come", a_record(spec=replace(NGROK, until=NOW), report=a_report()), Code.EXPIRED, NOW, None),
    (
        "the end is near",
        a_record(spec=replace(NGROK, until=NOW + 1), report=a_report()),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
    # Then what the agent of this run says.
    ("connected", a_record(report=a_report()), Code.CONNECTED, NOW - 400, None),
    (
        "connected, though off and on again since: an agent that was not told of it still is, and one that was reports soon",
        a_record(report=a_report(), spec_changed_at=NOW - 5),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
    ("connected, but nobody has a key", a_record(report=a_report(keys_own=0)), Code.CONNECTED, NOW - 400, "no-keys"),
    ("a central key is enough", a_record(report=a_report(keys_own=0, keys_central=1)), Code.CONNECTED, NOW - 400, None),
    (
        "connected, but not after the next start",
        a_record(report=a_report(), problem=TOO_LARGE),
        Code.CONNECTED,
        NOW - 400,
        "config-too-large",
    ),
    (
        "connected before SageMaker calls it ready",
        a_record(state=NotebookState.PENDING, report=a_report()),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
    ("connecting", a_record(report=CONNECTING), Code.STARTING, NOW - 20, None),
    (
        "connecting for long",
        a_record(report=replace(CONNECTING, phase_since=NOW - STARTING_SECONDS)),
        Code.STARTING,
        NOW - 900,
        None,
    ),
    (
        "connecting for longer, and why is not said",
        a_record(report=replace(CONNECTING, phase_since=NOW - STARTING_SECONDS - 1)),
        Code.ERROR,
        NOW - 901,
        "agent-stuck",
    ),
    (
        "connecting for longer, and why is said",
        a_record(report=replace(CONNECTING, phase_since=NOW - STARTING_SECONDS - 1, problem=NO_CARD)),
        Code.STARTING,
        NOW - 901,
        "ngrok-card-required",
    ),
    (
        "connecting once more",
        a_record(report=replace(CONNECTING, connected_since=NOW - 400)),
        Code.RECONNECTING,
        NOW - 20,
        None,
    ),
    (
        "told to be on, and still off",
        a_record(report=a_report(modes=(), phase=Phase.OFF)),
        Code.STARTING,
        NOW - 400,
        None,
    ),
    ("another mode since", a_record(spec=VIA_BASTION, report=a_report()), Code.STARTING, NOW - 400, None),
    (
        "failed",
        a_record(report=a_report(phase=Phase.FAILED, problem=NO_CARD)),
        Code.ERROR,
        NOW - 400,
        "ngrok-card-required",
    ),
    ("failed without a word", a_record(report=a_report(phase=Phase.FAILED)), Code.ERROR, NOW - 400, "agent-failed"),
    ("two syncs missed", a_record(report=a_report(received_at=NOW - 756)), Code.STALE, NOW - 756, "agent-silent"),
    ("two syncs not quite missed", a_record(report=a_report(received_at=NOW - 755)), Code.CONNECTED, NOW - 400, None),
    # The path through the endpoint.
    (
        "a stack without an endpoint",
        a_record(spec=BY_EICE, routes={Mode.EICE: Route(problem=no_endpoint())}, report=THROUGH_ENDPOINT),
        Code.ERROR,
        None,
        "no-endpoint",
    ),
    (
        "the endpoint's rule is not made",
        a_record(spec=BY_EICE, report=THROUGH_ENDPOINT),
        Code.STARTING,
        NOW - 400,
        None,
    ),
    (
        "nothing was heard of a session yet",
        a_record(spec=BY_EICE, routes={Mode.EICE: BY_ENDPOINT}, report=THROUGH_ENDPOINT),
        Code.READY,
        NOW - 400,
        None,
    ),
    (
        "a session is open",
        a_record(spec=BY_EICE, routes={Mode.EICE: BY_ENDPOINT}, report=replace(THROUGH_ENDPOINT, sessions=1)),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
    (
        "a session was open since the path is",
        a_record(spec=BY_EICE, routes={Mode.EICE: BY_ENDPOINT}, report=replace(THROUGH_ENDPOINT, active_at=NOW - 300)),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
    (
        "a session was open before the path was",
        a_record(spec=BY_EICE, routes={Mode.EICE: BY_ENDPOINT}, report=replace(THROUGH_ENDPOINT, active_at=NOW - 301)),
        Code.READY,
        NOW - 400,
        None,
    ),
    (
        "ready, but nobody has a key",
        a_record(spec=BY_EICE, routes={Mode.EICE: BY_ENDPOINT}, report=replace(THROUGH_ENDPOINT, keys_own=0)),
        Code.READY,
        NOW - 400,
        "no-keys",
    ),
    # Of several paths the best one counts.
    ("both paths work", two(Phase.CONNECTED, Phase.CONNECTED), Code.CONNECTED, NOW - 400, None),
    ("the tunnel is lost", two(Phase.CONNECTING, Phase.CONNECTED), Code.READY, NOW - 400, None),
    (
        "the tunnel failed, and it is said",
        two(Phase.FAILED, Phase.CONNECTED, tunnel=NO_CARD),
        Code.READY,
        NOW - 400,
        "ngrok-card-required",
    ),
    (
        "the tunnel failed, and a session came by the other path",
        two(Phase.FAILED, Phase.CONNECTED, tunnel=NO_CARD, sessions=1),
        Code.CONNECTED,
        NOW - 400,
        "ngrok-card-required",
    ),
    (
        "port 22 is another program's",
        two(Phase.CONNECTED, Phase.FAILED, sshd=PORT_TAKEN),
        Code.CONNECTED,
        NOW - 400,
        "sshd-port-taken",
    ),
    ("one connects again", two(Phase.CONNECTING, Phase.FAILED, sshd=PORT_TAKEN), Code.RECONNECTING, NOW - 20, None),
    (
        "all have failed: the preferred one is named",
        two(Phase.FAILED, Phase.FAILED, tunnel=NO_CARD, sshd=PORT_TAKEN),
        Code.ERROR,
        NOW - 20,
        "ngrok-card-required",
    ),
    (
        "the tag has another order since",
        replace(two(Phase.CONNECTED, Phase.CONNECTED), spec=NotebookSpec(modes=(Mode.EICE, Mode.NGROK))),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
    (
        "the tag has one of them since",
        replace(two(Phase.CONNECTED, Phase.CONNECTED), spec=BY_EICE),
        Code.READY,
        NOW - 400,
        None,
    ),
    (
        "the tag has one more since",
        a_record(spec=NotebookSpec(modes=(Mode.EICE, Mode.NGROK)), routes={Mode.EICE: BY_ENDPOINT}, report=a_report()),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
    (
        "an agent before paths, of the last version",
        a_record(
            spec=NotebookSpec(modes=(Mode.NGROK, Mode.EICE)),
            routes={Mode.EICE: BY_ENDPOINT},
            report=a_report(modes=(Mode.NGROK, Mode.EICE), problem=OUTDATED),
        ),
        Code.CONNECTED,
        NOW - 400,
        "agent-outdated",
    ),
    # The way through the bastion.
    (
        "through the bastion",
        a_record(spec=VIA_BASTION, routes={Mode.BASTION: OPEN}, report=THROUGH_BASTION),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
    (
        "nobody has looked at the rules",
        a_record(spec=VIA_BASTION, report=THROUGH_BASTION),
        Code.STARTING,
        NOW - 400,
        None,
    ),
    (
        "rules not open",
        a_record(spec=VIA_BASTION, routes={Mode.BASTION: replace(OPEN, open=False)}, report=THROUGH_BASTION),
        Code.STARTING,
        NOW - 400,
        None,
    ),
    (
        "no private address",
        a_record(spec=VIA_BASTION, routes={Mode.BASTION: replace(OPEN, private_ip=None)}, report=THROUGH_BASTION),
        Code.STARTING,
        NOW - 400,
        None,
    ),
    (
        "no rule possible",
        a_record(
            spec=VIA_BASTION,
            routes={Mode.BASTION: replace(OPEN, open=False, problem=RULE_LIMIT)},
            report=THROUGH_BASTION,
        ),
        Code.ERROR,
        NOW - 300,
        "rule-limit",
    ),
    # Then what SageMaker says.
    ("stopped", a_record(**STOPPED), Code.STOPPED, NOW - 500, None),
    (
        "the last run's report does not count",
        a_record(**STOPPED, report=a_report(received_at=NOW - 501)),
        Code.STOPPED,
        NOW - 500,
        None,
    ),
    (
        "a start that no event told of",
        a_record(**STOPPED, report=a_report(booted_at=NOW - 30)),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
    ("stopped, not set up yet", a_record(**STOPPED, block_since=None), Code.STOPPED, NOW - 500, None),
    ("stopped, cannot be set up", a_record(**STOPPED, problem=TOO_LARGE), Code.ERROR, None, "config-too-large"),
    (
        "stopping, though the agent spoke just now",
        a_record(state=NotebookState.STOPPING, started_at=None, report=a_report()),
        Code.STOPPED,
        NOW - 500,
        None,
    ),
    ("being deleted", a_record(state=NotebookState.DELETING, started_at=None), Code.STOPPED, NOW - 500, None),
    ("being updated", a_record(state=NotebookState.UPDATING, started_at=None), Code.STOPPED, NOW - 500, None),
    (
        "could not start",
        a_record(state=NotebookState.FAILED, started_at=None),
        Code.ERROR,
        NOW - 500,
        "notebook-failed",
    ),
    ("starting", a_record(state=NotebookState.PENDING), Code.STARTING, NOW - 600, None),
    ("just started", a_record(started_at=NOW - STARTING_SECONDS), Code.STARTING, NOW - 900, None),
    ("nothing heard for long", a_record(started_at=NOW - STARTING_SECONDS - 1), Code.ERROR, NOW - 901, "agent-silent"),
    (
        "running for long, tagged just now",
        a_record(started_at=NOW - 90_000, block_since=NOW - 99_000, spec_changed_at=NOW - 5),
        Code.STARTING,
        NOW - 5,
        None,
    ),
    ("set up after its start", a_record(block_since=NOW - 599), Code.PENDING_RESTART, NOW - 599, None),
    ("set up in the second of its start", a_record(block_since=NOW - 600), Code.STARTING, NOW - 600, None),
    (
        "set up in the second in which it came into service",
        a_record(block_since=NOW - 500, started_at=NOW - 500),
        Code.PENDING_RESTART,
        NOW - 500,
        None,
    ),
    ("about to be set up", a_record(block_since=None), Code.PENDING_RESTART, None, None),
    ("nothing to be set up in", a_record(lifecycle_config=None, block_since=None), Code.PENDING_STOP, None, None),
    ("cannot be set up", a_record(block_since=None, problem=TOO_LARGE), Code.ERROR, None, "config-too-large"),
    # The report of the run before: it began before this one, and nothing was heard since.
    (
        "the run before was connected",
        a_record(report=a_report(booted_at=NOW - 9000, received_at=NOW - 700)),
        Code.STARTING,
        NOW - 600,
        None,
    ),
    (
        "booted in the second of its start",
        a_record(report=a_report(booted_at=NOW - 600, received_at=NOW - 600)),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
    (
        "the last word of the run before, in the second of its end",
        a_record(**STOPPED, report=a_report(booted_at=NOW - 9000, received_at=NOW - 500)),
        Code.STOPPED,
        NOW - 500,
        None,
    ),
    (
        "a run that was seen only when it was ready",
        a_record(started_at=NOW - 500, report=a_report(booted_at=NOW - 600, received_at=NOW - 510)),
        Code.CONNECTED,
        NOW - 400,
        None,
    ),
]


@pytest.mark.parametrize(
    ("record", "code", "since", "problem"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_status(record: Record, code: Code, since: int | None, problem: str | None) -> None:
    status = status_of(record, NOW, SYNC)
    assert (status.code, status.since) == (code, since)
    assert (status.problem.code if status.problem else None) == problem


def test_every_code_is_in_the_table() -> None:
    assert {case[2] for case in CASES} == set(Code)


def test_the_tag_of_this_stack_is_named() -> None:
    assert "team-ssh=ngrok" in status_of(a_record(spec=NotebookSpec()), NOW, SYNC, "team-ssh").next_step


@pytest.mark.parametrize("set_up_too_late", [{"block_since": NOW}, {"block_since": None, "lifecycle_config": None}])
def test_a_person_stops_it_only_where_no_tag_asks_the_stack_to(set_up_too_late: dict[str, Any]) -> None:
    by_hand = status_of(a_record(**set_up_too_late), NOW, SYNC, "team-ssh").next_step
    assert "or tag it team-ssh-restart=now and the stack does both: aws sagemaker stop-notebook-instance " in by_hand
    asked_for = a_record(**set_up_too_late, spec=replace(NGROK, restart=True))
    by_itself = status_of(asked_for, NOW, SYNC, "team-ssh").next_step
    assert by_itself == "Wait: it is stopped and started once, as its tag team-ssh-restart requests."


def test_the_message_of_a_problem_ends_where_the_next_step_begins() -> None:
    refused = a_report(phase=Phase.FAILED, problem=Problem("ngrok-token-invalid", "ngrok refuses the token (105)"))
    assert status_of(a_record(report=refused), NOW, SYNC).message == "ngrok refuses the token (105)."
    assert status_of(a_record(block_since=None, problem=TOO_LARGE), NOW, SYNC).message == TOO_LARGE.message


@pytest.mark.parametrize("code", sorted({*REMEDIES} - {"agent-stuck"}))
def test_a_remedy_is_said_once(code: str) -> None:
    """All messages but that of `agent-stuck`, which the stack words itself, say what to do."""
    remedy = remedy_of(Problem(code, "the cause: what to do"))
    assert remedy.startswith(("Once ", "After ")), remedy


def test_silence_is_reported_after_two_missed_syncs() -> None:
    assert 2 * SYNC < silent_after(SYNC) < 3 * SYNC
    assert silent_after(2) < 12  # a local run with a short sync does not wait for long


def test_a_problem_of_all_paths_is_no_failure_of_one() -> None:
    down = Problem("sshd-down", "sshd does not respond.")
    one = status_of(two(Phase.CONNECTED, Phase.FAILED, sshd=PORT_TAKEN), NOW, SYNC)
    assert one.message == "demo can be reached by ngrok, but not by eice: Another program has port 22."
    both = status_of(two(Phase.CONNECTED, Phase.FAILED, tunnel=down, sshd=down), NOW, SYNC)
    assert both.message == "demo can be reached, but: sshd does not respond."


def test_an_address_is_given_only_while_it_is_believed_to_work() -> None:
    connected = a_record(report=a_report())
    assert address_of(connected, NOW, SYNC) == ("0.tcp.ngrok.io", 17887)
    assert address_of(connected, NOW + 10_000, SYNC) is None
    assert assess(connected, NOW, SYNC).address == ("0.tcp.ngrok.io", 17887)
    assert assess(replace(connected, state=NotebookState.STOPPING), NOW, SYNC).address is None
    assert address_of(a_record(spec=VIA_BASTION, routes={Mode.BASTION: OPEN}, report=THROUGH_BASTION), NOW, SYNC) == (
        "10.0.1.5",
        22,
    )


def test_times_are_readable_whatever_the_number() -> None:
    assert iso_time(NOW) == "2027-01-15T08:00:00Z"
    assert iso_time(-1) == "1970-01-01T00:00:00Z"
    assert iso_time(10**18) == "9999-12-31T23:59:59Z"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (a_record(**STOPPED, spec=replace(NGROK, wake=True)), Wake.START),
        (a_record(state=NotebookState.FAILED, spec=replace(NGROK, wake=True)), Wake.START),
        (a_record(**STOPPED, spec=replace(NGROK, wake=True), wake_at=NOW - 501), Wake.START),
        (a_record(**STOPPED, spec=replace(NGROK, wake=True), wake_at=NOW - 100), Wake.NOT_NEEDED),
        (a_record(**STOPPED, spec=replace(NGROK, wake=True), wake_at=NOW - WAKE_AGAIN_SECONDS - 1), Wake.START),
        (
            a_record(**STOPPED | {"state_since": NOW - 100}, spec=replace(NGROK, wake=True), wake_at=NOW - 101),
            Wake.START,
        ),
        (
            a_record(**STOPPED | {"state_since": NOW - 100}, spec=replace(NGROK, wake=True), wake_at=NOW - 100),
            Wake.NOT_NEEDED,
        ),
        (a_record(state=NotebookState.PENDING, spec=replace(NGROK, wake=True)), Wake.NOT_NEEDED),
        (a_record(spec=replace(NGROK, wake=True)), Wake.NOT_NEEDED),
        (a_record(state=NotebookState.STOPPING, spec=replace(NGROK, wake=True)), Wake.NOT_STOPPED),
        (a_record(state=NotebookState.UPDATING, spec=replace(NGROK, wake=True)), Wake.NOT_STOPPED),
        (a_record(state=NotebookState.DELETING, spec=replace(NGROK, wake=True)), Wake.NOT_STOPPED),
        (a_record(**STOPPED, spec=NGROK), Wake.NOT_ALLOWED),
        (a_record(**STOPPED, spec=NotebookSpec(wake=True)), Wake.NOT_ALLOWED),
        (a_record(**STOPPED, spec=replace(NGROK, wake=True, until=NOW)), Wake.NOT_ALLOWED),
    ],
)
def test_only_a_stopped_notebook_that_may_be_woken_is_woken_once(record: Record, expected: Wake) -> None:
    assert wake(record, NOW) is expected


times = st.one_of(st.integers(0, 2**33), st.integers(NOW - 2000, NOW + 2000))
maybe = st.one_of(st.none(), times)
problems = st.one_of(
    st.none(),
    st.builds(
        Problem,
        st.sampled_from(["config-too-large", "no-bastion", "ngrok-x", "keys-x", "agent-x"]),
        st.text(max_size=30),
    ),
)
several = st.lists(st.sampled_from(Mode), unique=True, max_size=3).map(tuple)
specs = st.builds(
    NotebookSpec,
    modes=several,
    until=maybe,
    problem=problems,
    wake=st.booleans(),
)


def with_paths(report: Report) -> st.SearchStrategy[Report]:
    """As it is, or with a phase and a problem of each mode."""
    each = st.tuples(*(st.builds(PathReport, st.just(mode), st.sampled_from(Phase), problems) for mode in report.modes))
    return each.flatmap(
        lambda paths: st.sampled_from([report, replace(report, paths=paths, paths_since=(NOW - 9,) * len(paths))])
    )


reports = st.builds(
    Report,
    boot=st.just("b"),
    booted_at=times,
    sequence=st.integers(1, 9),
    received_at=times,
    modes=several,
    phase=st.sampled_from(Phase),
    host=st.one_of(st.none(), st.text(max_size=20)),
    port=st.one_of(st.none(), st.integers(1, 65535)),
    host_keys=st.tuples(st.text(max_size=40)),
    keys_own=st.integers(0, 2),
    problem=problems,
    connected_since=maybe,
    phase_since=times,
).flatmap(with_paths)
records = st.builds(
    Record,
    name=st.just("demo"),
    spec=specs,
    state=st.sampled_from(NotebookState),
    state_since=times,
    started_at=maybe,
    lifecycle_config=st.sampled_from([None, "c"]),
    block_since=maybe,
    problem=problems,
    spec_changed_at=maybe,
    wake_at=maybe,
    routes=st.dictionaries(
        st.sampled_from(ROUTED),
        st.builds(
            Route,
            open=st.booleans(),
            private_ip=st.sampled_from([None, "10.0.1.5"]),
            since=times,
            problem=problems,
            endpoint=st.sampled_from([None, ENDPOINT]),
        ),
    ),
    report=st.one_of(st.none(), reports),
)


@given(records, times)
def test_every_record_has_a_status_and_a_next_step(record: Record, now: int) -> None:
    status = status_of(record, now, SYNC)
    assert status.next_step
    assert status.message or status.problem
    assert (status.code is Code.ERROR) <= (status.problem is not None)
    assert (address_of(record, now, SYNC) is not None) <= (status.code in REACHABLE)


@given(records, times)
def test_every_record_has_every_answer(record: Record, now: int) -> None:
    """And a connection is offered only when the status says so, all of it in plain words."""
    status = status_of(record, now, SYNC)
    connection = connection_for(record, now, SETTINGS)
    assert (connection is not None) <= (status.code in REACHABLE)
    paths = details(record, now, SETTINGS)["paths"]
    assert [path["mode"] for path in paths] in ([], [str(mode) for mode in record.spec.modes])
    assert (status.code in REACHABLE) <= any(path["state"] == "ready" for path in paths)
    assert all((path["state"] == "failed") <= (path["problem"] is not None) for path in paths)
    assert list_entry(record, now, SETTINGS)["status"] == status.code
    assert details(record, now, SETTINGS)["next_step"] == status.next_step
    diagnosis = run_checks(record, now, SETTINGS)
    assert [check.name for check in diagnosis.checks][:4] == ["tag", "configuration", "restart", "agent"]
    assert len(doctor_json(diagnosis)["checks"]) == 5 + max(1, len(record.spec.modes))
    assert all(line.isprintable() for line in doctor_text(diagnosis).split("\n"))


# ---- words and platforms that SageMaker adds ---------------------------------------------------


@pytest.mark.parametrize("word", ["PendingMaintenance", "InMaintenance", "Hibernating"])
def test_a_notebook_that_ran_is_taken_for_running_in_a_state_that_does_not_say(word: str) -> None:
    state = NotebookState(word)
    assert str(state) == word
    running = a_record(state=state, state_since=NOW - 20, report=a_report(received_at=NOW - 30))
    assert status_of(running, NOW, 300).code is Code.CONNECTED
    stood = a_record(state=state, state_since=NOW - 20, started_at=None)
    status = status_of(stood, NOW, 300)
    assert status.code is Code.STOPPED
    assert word in status.message


@pytest.mark.parametrize("platform", ["notebook-al1-v1", "notebook-al2-v1", "notebook-al2-v3"])
def test_a_platform_that_has_no_agent_is_named(platform: str) -> None:
    status = status_of(a_record(unsupported_platform=platform), NOW, 300)
    assert (status.code, status.problem and status.problem.code) == (Code.ERROR, "platform-unsupported")
    assert platform in status.message
    assert "notebook-al2023" in status.message
    # If the agent reports all the same, its word counts.
    assert status_of(a_record(unsupported_platform=platform, report=a_report()), NOW, 300).code is Code.CONNECTED
    off = a_record(unsupported_platform=platform, spec=NotebookSpec())
    assert status_of(off, NOW, 300).code is Code.OFF
