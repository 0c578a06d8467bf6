"""The doctor makes obvious what stands in the way: the failures people really have, each at its hop, with the remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.builders import NOW, SETTINGS, a_record, a_report

from notebook_ssh import __version__
from notebook_ssh.errors import Problem
from notebook_ssh.http_api.diagnosis import doctor_json, doctor_text
from notebook_ssh.model.checks import CheckState, run_checks
from notebook_ssh.model.problems import no_endpoint
from notebook_ssh.model.record import NotebookState, PathReport, Phase, Record, RejectedKey, Route
from notebook_ssh.model.spec import Mode, NotebookSpec

OK, WAITING, FAILED = CheckState.OK, CheckState.WAITING, CheckState.FAILED
VIA_BASTION: dict[str, Any] = {
    "spec": NotebookSpec(modes=(Mode.BASTION,)),
    "report": a_report(modes=(Mode.BASTION,), host=None, port=None),
}


def failing(code: str, message: str = "It does not work.") -> Any:
    return a_report(phase=Phase.FAILED, host=None, port=None, problem=Problem(code, message))


REAL_FAILURES: list[tuple[str, Record, str, CheckState, str]] = [
    ("not restarted yet", a_record(block_since=NOW - 100), "restart", WAITING, "stop-notebook-instance"),
    ("stopped", a_record(state=NotebookState.STOPPED, started_at=None), "restart", WAITING, "start-notebook-instance"),
    (
        "could not start",
        a_record(state=NotebookState.FAILED, started_at=None),
        "restart",
        FAILED,
        "start-notebook-instance",
    ),
    (
        "configuration too large",
        a_record(block_since=None, problem=Problem("config-too-large", "12,000 bytes and 5,000.")),
        "configuration",
        FAILED,
        "the stack does the rest",
    ),
    (
        "configuration to be attached",
        a_record(lifecycle_config=None, block_since=None),
        "configuration",
        WAITING,
        "Stop it",
    ),
    ("configuration to be written", a_record(block_since=None), "configuration", WAITING, "Wait"),
    (
        "a stack that only plans",
        a_record(block_since=None, planned=("write the block into demo-configuration",)),
        "configuration",
        WAITING,
        "DryRun=false",
    ),
    ("token missing", a_record(report=failing("ngrok-token-missing")), "tunnel", FAILED, "next report"),
    ("token refused", a_record(report=failing("ngrok-token-invalid")), "tunnel", FAILED, "next report"),
    ("card required", a_record(report=failing("ngrok-card-required")), "tunnel", FAILED, "card"),
    ("agent silent from the start", a_record(started_at=NOW - 1000), "agent", FAILED, "LifecycleConfigOnStart"),
    ("agent silent since", a_record(report=a_report(received_at=NOW - 5000)), "agent", FAILED, "notebook-ssh.log"),
    (
        "agent that never comes to an end and does not say why",
        a_record(report=a_report(phase=Phase.CONNECTING, connected_since=None, phase_since=NOW - 5000)),
        "agent",
        FAILED,
        "notebook-ssh.log",
    ),
    ("agent not heard of yet", a_record(), "agent", WAITING, "Wait"),
    ("agent cannot run sshd", a_record(report=failing("sshd-unreachable")), "agent", FAILED, "message"),
    (
        "notebook in no VPC",
        a_record(**VIA_BASTION, routes={Mode.BASTION: Route(problem=Problem("not-in-vpc", "demo is in no VPC."))}),
        "rule",
        FAILED,
        "the stack does the rest",
    ),
    ("no bastion", a_record(**VIA_BASTION, problem=Problem("no-bastion", "No bastion.")), "rule", FAILED, "the rest"),
    (
        "rule missing",
        a_record(**VIA_BASTION, routes={Mode.BASTION: Route(open=False, private_ip="10.0.1.5")}),
        "rule",
        WAITING,
        "automatically",
    ),
    ("no rule was ever looked at", a_record(**VIA_BASTION), "rule", WAITING, "automatically"),
    ("no keys present", a_record(report=a_report(keys_own=0)), "keys", FAILED, "message"),
    (
        "key lines rejected",
        a_record(report=a_report(rejected=(RejectedKey(2, "not base64"), RejectedKey(7, "cut")))),
        "keys",
        FAILED,
        "authorized_keys",
    ),
    (
        "tag misspelt",
        a_record(
            spec=NotebookSpec(
                problem=Problem("invalid-tag", "The tag ssh is “ngrk”, but it can only be ngrok, bastion or off.")
            )
        ),
        "tag",
        FAILED,
        "Correct the tag",
    ),
    ("no tag", a_record(spec=NotebookSpec()), "tag", FAILED, "ssh=ngrok"),
    ("time is over", a_record(spec=NotebookSpec(modes=(Mode.NGROK,), until=NOW - 1)), "tag", FAILED, "ssh-until"),
    ("connecting", a_record(report=a_report(phase=Phase.CONNECTING, host=None, port=None)), "tunnel", WAITING, "Wait"),
]


@pytest.mark.parametrize(
    ("record", "check", "verdict", "remedy"),
    [case[1:] for case in REAL_FAILURES],
    ids=[case[0] for case in REAL_FAILURES],
)
def test_the_failure_stands_at_its_hop_with_its_remedy(
    record: Record, check: str, verdict: CheckState, remedy: str
) -> None:
    checks = run_checks(record, NOW, SETTINGS).checks
    first = next(each for each in checks if each.state is not OK)
    assert (first.name, first.state) == (check, verdict)
    assert remedy in first.remedy
    assert first.reason


def test_all_is_well() -> None:
    record = a_record(report=a_report(), spec_changed_at=NOW - 9000)
    assert doctor_text(run_checks(record, NOW, SETTINGS)) == (
        "demo: connected since 2027-01-15T07:53:20Z\n"
        "  ok      tag            ssh=ngrok (since 2027-01-15T05:30:00Z)\n"
        "  ok      configuration  the block is installed in demo-configuration (since 2027-01-15T06:36:40Z)\n"
        "  ok      restart        the notebook has started with it (since 2027-01-15T07:50:00Z)\n"
        "  ok      agent          last report at 2027-01-15T07:59:50Z (since 2027-01-15T07:50:50Z)\n"
        "  ok      tunnel         0.tcp.ngrok.io:17887 (since 2027-01-15T07:53:20Z)\n"
        "  ok      keys           1 from the notebook's file, 0 central\n"
        "Next: Connect: `ssh demo` with the client, or the line that /notebooks/demo/ssh answers."
    )


def test_what_cannot_be_judged_waits_for_the_hop_that_can() -> None:
    checks = doctor_json(run_checks(a_record(lifecycle_config=None, block_since=None), NOW, SETTINGS))["checks"]
    assert [(check["check"], check["result"], check["reason"]) for check in checks[2:]] == [
        (name, "waiting", "waits for: configuration") for name in ("restart", "agent", "tunnel", "keys")
    ]


def test_a_running_agent_is_judged_though_the_next_start_is_in_danger() -> None:
    record = a_record(report=a_report(), problem=Problem("config-too-large", "Too large."))
    verdicts = {check.name: check.state for check in run_checks(record, NOW, SETTINGS).checks}
    assert verdicts == {"tag": OK, "configuration": FAILED, "restart": OK, "agent": OK, "tunnel": OK, "keys": OK}


def test_the_way_through_the_bastion() -> None:
    route = Route(open=True, private_ip="10.0.1.5", since=NOW - 60)
    checks = run_checks(a_record(**VIA_BASTION, routes={Mode.BASTION: route}), NOW, SETTINGS).checks
    assert [(check.name, check.state) for check in checks] == [
        (name, OK) for name in ("tag", "configuration", "restart", "agent", "rule", "keys")
    ]
    assert checks[4].reason == "the bastion may reach 10.0.1.5"
    unknown = run_checks(
        a_record(**VIA_BASTION, routes={Mode.BASTION: replace(route, private_ip=None)}), NOW, SETTINGS
    ).checks[4]
    assert unknown.state is WAITING


TWO = NotebookSpec(modes=(Mode.NGROK, Mode.EICE))
BY_ENDPOINT = Route(open=True, private_ip="10.0.3.7", since=NOW - 60)


def of_two(ngrok: PathReport, eice: PathReport, **parts: Any) -> Any:
    """The checks of a notebook with `ssh=ngrok eice`, by name."""
    report = a_report(modes=TWO.modes, paths=(ngrok, eice), paths_since=(NOW - 70, NOW - 80), **parts)
    checks = run_checks(a_record(spec=TWO, report=report, routes={Mode.EICE: BY_ENDPOINT}), NOW, SETTINGS).checks
    return {check.name: check for check in checks}


def test_each_path_has_a_check() -> None:
    checks = of_two(PathReport(Mode.NGROK, Phase.CONNECTED), PathReport(Mode.EICE, Phase.CONNECTED))
    assert {name: check.state for name, check in checks.items()} == dict.fromkeys(
        ("tag", "configuration", "restart", "agent", "tunnel", "endpoint", "keys"), OK
    )
    assert list(checks)[4:6] == ["tunnel", "endpoint"]
    assert checks["tag"].reason == "ssh=ngrok eice"
    assert (checks["tunnel"].reason, checks["tunnel"].since) == ("0.tcp.ngrok.io:17887", NOW - 70)
    assert checks["endpoint"].reason.startswith("the endpoint may reach 10.0.3.7; ")


def test_the_path_that_failed_has_the_failed_check_and_no_other() -> None:
    no_card = Problem("ngrok-card-required", "ngrok wants a card.")
    checks = of_two(
        PathReport(Mode.NGROK, Phase.FAILED, no_card), PathReport(Mode.EICE, Phase.CONNECTED), host=None, port=None
    )
    assert [name for name, check in checks.items() if check.state is FAILED] == ["tunnel"]
    assert (checks["tunnel"].problem, checks["tunnel"].since) == (no_card, NOW - 70)
    taken = Problem("sshd-port-taken", "Another program has port 22.")
    checks = of_two(PathReport(Mode.NGROK, Phase.CONNECTED), PathReport(Mode.EICE, Phase.FAILED, taken))
    assert [name for name, check in checks.items() if check.state is FAILED] == ["endpoint"]
    assert (checks["endpoint"].problem, checks["endpoint"].since) == (taken, NOW - 80)


def test_a_stack_without_an_endpoint_is_named_at_its_check() -> None:
    record = a_record(
        spec=NotebookSpec(modes=(Mode.EICE,)),
        report=a_report(modes=(Mode.EICE,), host=None, port=None),
        routes={Mode.EICE: Route(problem=no_endpoint())},
    )
    (failed,) = [check for check in run_checks(record, NOW, SETTINGS).checks if check.state is FAILED]
    assert (failed.name, failed.problem) == ("endpoint", no_endpoint())


def test_json_says_the_same_with_times() -> None:
    told = doctor_json(run_checks(a_record(report=a_report()), NOW, SETTINGS))
    assert told["status"] == "connected"
    assert told["checks"][4] == {
        "check": "tunnel",
        "result": "ok",
        "since": "2027-01-15T07:53:20Z",
        "reason": "0.tcp.ngrok.io:17887",
        "remedy": "",
    }


def test_every_rejected_line_is_named() -> None:
    record = a_record(report=a_report(rejected=(RejectedKey(2, "not base64"), RejectedKey(7, "cut"))))
    assert "line 2: not base64; line 7: cut" in doctor_text(run_checks(record, NOW, SETTINGS))


@pytest.mark.parametrize(
    ("running", "named"), [(__version__, False), ("0.9.0", True), ("9.0.0", True), ("", False), ("x; rm -rf", False)]
)
def test_an_agent_of_another_version_is_named_and_nothing_is_wrong_with_it(running: str, named: bool) -> None:
    diagnosis = run_checks(a_record(report=a_report(agent=running)), NOW, SETTINGS)
    (agent,) = [check for check in diagnosis.checks if check.name == "agent"]
    assert (agent.state, agent.remedy) == (OK, "")
    assert (f"it is of version {running}: " in agent.reason and f" brings {__version__}" in agent.reason) is named
    assert agent.reason.startswith("last report at ")
