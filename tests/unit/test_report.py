"""A report is data from a stranger: what passes, what is refused by name, what is kept and what is answered."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.builders import BASTION, HOST_KEY, NOW, RSA_KEY, SETTINGS, a_body, a_record, a_report, wire

from notebook_ssh.errors import InvalidReportError, PayloadTooLargeError, Problem
from notebook_ssh.http_api.diagnosis import doctor_text
from notebook_ssh.http_api.views import connection_for, details, fleet_known_hosts, known_hosts, ssh_command, ssh_config
from notebook_ssh.model.caller import role_of_caller
from notebook_ssh.model.checks import run_checks
from notebook_ssh.model.record import (
    Endpoint,
    PathReport,
    Phase,
    Record,
    RejectedKey,
    Report,
    Route,
    is_notebook_name,
)
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.text import printable
from notebook_ssh.reports.accept import Accepted, OutOfOrder, RoleMismatch, Unregistered, accept
from notebook_ssh.reports.parse import CLOCK_SKEW, MAX_BODY_BYTES, read_report
from notebook_ssh.reports.reply import reply
from notebook_ssh.reports.tokens import Token


def read(**parts: Any) -> Report:
    return read_report(json.dumps(a_body(**parts)).encode(), NOW).report


# Reading -------------------------------------------------------------------------------------------------------------


def test_the_usual_report() -> None:
    told = read_report(json.dumps(a_body(token_version="v1")).encode(), NOW)
    assert told.report == a_report(received_at=NOW, connected_since=None, phase_since=0)
    assert told.token_version == "v1"


def test_everything_that_can_be_reported() -> None:
    report = read(
        host="0.TCP.ngrok.io",
        host_keys=[RSA_KEY, HOST_KEY, RSA_KEY],
        keys={"own": 2, "central": 1, "rejected": [{"line": 3, "reason": "not base64"}]},
        sessions={"open": 2, "active_at": NOW - 5},
        problem={"code": "ngrok-monthly-limit", "message": "No more\r\n\x1b[31m  connections\u202e this month."},
    )
    assert report == a_report(
        received_at=NOW,
        connected_since=None,
        phase_since=0,
        host_keys=(RSA_KEY, HOST_KEY),
        keys_own=2,
        keys_central=1,
        rejected=(RejectedKey(3, "not base64"),),
        sessions=2,
        active_at=NOW - 5,
        problem=Problem("ngrok-monthly-limit", "No more [31m connections this month."),
    )


def test_the_least_that_must_be_logged() -> None:
    body = {"boot": "b", "booted_at": 1, "sequence": 1, "mode": "off", "phase": "off"}
    assert read_report(json.dumps(body).encode(), NOW).report == Report("b", 1, 1, NOW, (), Phase.OFF)


def test_the_block_and_a_worker_from_before_modes_report_one_mode() -> None:
    assert read(modes=None, mode="ngrok") == read()
    assert read(modes=None, mode="bastion").modes == (Mode.BASTION,)
    assert read(modes=None, mode="off", phase="off", host=None, port=None).modes == ()
    assert read(modes=["bastion"], mode="ngrok").modes == (Mode.BASTION,), "modes are read, if there are any"


@pytest.mark.parametrize("phase", ["connecting", "connected", "failed"])
def test_a_mode_that_this_version_does_not_know_is_left_out(phase: str) -> None:
    """After a rollback, agents still report the mode that the newer stack replied."""
    elsewhere = {"phase": phase, "host": None, "port": None}
    assert read(modes=["carrier-pigeon"], **elsewhere).modes == ()
    assert read(modes=["carrier-pigeon", "bastion"], **elsewhere).modes == (Mode.BASTION,)
    assert read(modes=None, mode="carrier-pigeon", **elsewhere).modes == ()
    assert read(modes=None, mode="carrier-pigeon bastion", **elsewhere).modes == (Mode.BASTION,)


def test_several_modes_are_reported_in_their_order() -> None:
    assert read(modes=["bastion", "ngrok"]).modes == (Mode.BASTION, Mode.NGROK)


def test_only_a_tunnel_has_an_address_to_tell() -> None:
    report = read(modes=["bastion"], host="evil.example.com", port=22)
    assert (report.host, report.port) == (None, None)


def test_a_field_that_is_not_known_yet_does_no_harm() -> None:
    assert read(colour="blue") == read()


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"boot": ""}, "boot"),
        ({"boot": "a b"}, "boot"),
        ({"boot": "a" * 65}, "boot"),
        ({"boot": "a\n"}, "boot"),
        ({"boot": None}, "boot"),
        ({"booted_at": -1}, "booted_at"),
        ({"booted_at": 1.5}, "booted_at"),
        ({"booted_at": True}, "booted_at"),
        ({"booted_at": NOW + CLOCK_SKEW + 1}, "booted_at"),
        ({"sequence": 0}, "sequence"),
        ({"sequence": "5"}, "sequence"),
        ({"sequence": 10**40}, "sequence"),
        ({"modes": None, "mode": "NGROK"}, "mode"),
        ({"modes": None, "mode": ["ngrok"]}, "mode"),
        ({"modes": None}, "mode"),
        ({"modes": "ngrok"}, "modes"),
        ({"modes": ["NGROK"]}, "modes"),
        ({"modes": ["off"]}, "modes"),
        ({"modes": [["ngrok"]]}, "modes"),
        ({"modes": ["ngrok", "ngrok"]}, "modes"),
        ({"phase": "happy"}, "phase"),
        ({"agent": 1}, "agent"),
        ({"host": None, "port": None}, "host"),
        ({"host": None}, "host"),
        ({"port": None}, "port"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"host_keys": HOST_KEY}, "host_keys"),
        ({"host_keys": [HOST_KEY] * 9}, "host_keys"),
        ({"host_keys": [HOST_KEY, 1]}, "host_keys[1]"),
        ({"host_keys": [f"{HOST_KEY} comment"]}, "host_keys[0]"),
        ({"host_keys": [f"{HOST_KEY}\nHost *"]}, "host_keys[0]"),
        ({"host_keys": [f"* {HOST_KEY}"]}, "host_keys[0]"),
        ({"host_keys": [f"ssh-ed25519 {wire(b'ssh-rsa', bytes(32))}"]}, "host_keys[0]"),
        ({"keys": 3}, "keys"),
        ({"keys": {"own": -1}}, "keys.own"),
        ({"keys": {"central": 1.0}}, "keys.central"),
        ({"keys": {"rejected": [{"line": 1}] * 21}}, "keys.rejected"),
        ({"keys": {"rejected": [{"line": 0}]}}, "keys.rejected[0].line"),
        ({"keys": {"rejected": [{"line": 1, "reason": None}]}}, "keys.rejected[0].reason"),
        ({"sessions": []}, None),
        ({"sessions": [1]}, "sessions"),
        ({"sessions": {"open": "1"}}, "sessions.open"),
        ({"sessions": {"active_at": "now"}}, "sessions.active_at"),
        ({"problem": "bad"}, "problem"),
        ({"problem": {"code": "Not a code"}}, "problem.code"),
        ({"problem": {"code": "a" * 41}}, "problem.code"),
        ({"problem": {"code": "bad", "message": 1}}, "problem.message"),
        ({"token_version": 1}, "token_version"),
    ],
)
def test_a_wrong_field_is_named(parts: dict[str, Any], field: str | None) -> None:
    if field is None:  # an empty value of any kind counts as not told
        assert read(**parts) == read()
        return
    with pytest.raises(InvalidReportError) as bad:
        read(**parts)
    assert bad.value.field == field
    assert str(bad.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    "host", ["0.tcp.ngrok.io", "0.tcp.jp.ngrok.io", "xn--caf-dma.example", "8.8.8.8", "a-1.b2.c3d"]
)
def test_a_public_host_passes(host: str) -> None:
    assert read(host=host).host == host


@pytest.mark.parametrize(
    "host",
    [
        # This machine, this network, the metadata service (RFC 6890; EC2 User Guide, "Instance metadata").
        *(
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
        ),
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "localhost", "a.localhost", "ip-10-0-0-1.ec2.internal"),
        *("instance-data", "printer.local", "::1", "fd00:ec2::254", "[::1]", "1.0.0.127.in-addr.arpa"),
        # What resolvers read as one of these.
        *(
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "a.0x7f",
            "127.0.0.1.",
            "127.0.0.01",
            "..",
            "1.2.3.4.5",
        ),
        # What is no host at all.
        *(
            "",
            "a",
            "a..b",
            "-a.b",
            "a-.b",
            "a b.c",
            "a.b\n",
            "a.b\nHost *",
            "a.b -oProxyCommand=x",
            "-oProxyCommand=x.y",
        ),
        *(
            "$(id).io",
            "a.b;id",
            "user@a.b",
            "a_b.c",
            "café.example",
            "a" * 64 + ".b",
            "a." * 127 + "b",
            "a.b:22",
            "a.b/c",
            "١.١.١.١",
        ),
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    with pytest.raises(InvalidReportError) as bad:
        read(host=host)
    assert bad.value.field == "host"


def test_the_local_run_may_be_on_this_very_machine_and_nowhere_else() -> None:
    def local(host: str) -> Report:
        return read_report(json.dumps(a_body(host=host)).encode(), NOW, allow_loopback=True).report

    assert local("127.0.0.1").host == "127.0.0.1"
    for host in ("10.0.0.1", "169.254.169.254", "localhost"):
        with pytest.raises(InvalidReportError):
            local(host)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"\xff",
        b'{"sequence": NaN}',
        b"[" * 9000,
        b'{"sequence": ' + b"9" * 9000 + b"}",
    ],
)
def test_what_is_not_an_object_in_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidReportError) as bad:
        read_report(body, NOW)
    assert bad.value.field == "body"


def test_the_limit_is_exact() -> None:
    body = json.dumps(a_body()).encode()
    assert read_report(body.ljust(MAX_BODY_BYTES), NOW).report == read()
    with pytest.raises(PayloadTooLargeError, match="16,385 bytes"):
        read_report(body.ljust(MAX_BODY_BYTES + 1), NOW)


def name_of_field(bad: InvalidReportError) -> None:
    assert bad.field
    assert str(bad).isprintable()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = list(a_body())
nasty = st.text(alphabet=st.sampled_from("\n\r\t\x00\x1b\x9b\u2028\u202e\ud800 *?!#$`\"'\\;-=@:/.aA0"), max_size=30)


@given(
    st.one_of(anything, st.dictionaries(st.sampled_from(FIELDS), anything | nasty).map(lambda parts: a_body(**parts))),
    st.booleans(),
)
def test_whatever_comes_it_is_a_report_or_refused_by_field(told: Any, allow_loopback: bool) -> None:
    try:
        read_report(json.dumps(told).encode(), NOW, allow_loopback=allow_loopback)
    except InvalidReportError as bad:
        name_of_field(bad)


@given(st.binary(max_size=200))
def test_whatever_the_bytes(body: bytes) -> None:
    try:
        read_report(body, NOW)
    except InvalidReportError as bad:
        name_of_field(bad)


words = nasty | st.sampled_from(["0.tcp.ngrok.io", HOST_KEY, RSA_KEY, "1.0", "boot-1"])


@given(
    st.fixed_dictionaries(
        {
            "agent": words,
            "host": words,
            "host_keys": st.lists(words, max_size=3),
            "problem": st.none()
            | st.fixed_dictionaries({"code": st.sampled_from(["ngrok-x", "keys-y"]), "message": nasty}),
            "keys": st.fixed_dictionaries(
                {
                    "own": st.integers(0, 1),
                    "rejected": st.lists(st.fixed_dictionaries({"line": st.just(1), "reason": nasty}), max_size=2),
                }
            ),
            "phase": st.sampled_from(["connected", "failed", "connecting"]),
        }
    )
)
def test_nothing_that_a_notebook_reports_adds_a_line_or_an_option(parts: dict[str, Any]) -> None:
    try:
        report = read_report(json.dumps(a_body(**parts)).encode(), NOW).report
    except InvalidReportError:
        return
    record = a_record(report=replace(report, connected_since=NOW))
    assert_safe(record)


@given(words, words, nasty)
def test_nor_does_what_was_in_the_table_before(host: str, key: str, message: str) -> None:
    """The second line of defence: a table that holds what no parser would have let in."""
    assert_safe(a_record(report=a_report(host=host, host_keys=(key,), problem=Problem("ngrok-x", message))))


def assert_safe(record: Record) -> None:
    text = doctor_text(run_checks(record, NOW, SETTINGS))
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count("\n") <= 14
    assert json.dumps(details(record, NOW, SETTINGS)).isascii()
    connection = connection_for(record, NOW, SETTINGS)
    if connection is None:
        return
    assert ssh_command(connection) == f"ssh -p 17887 ec2-user@{connection.host}"
    assert not connection.host.startswith("-")
    lines = ssh_config([connection], "team-ssh").split("\n")
    assert [line.split(" ")[0] for line in (each.strip() for each in lines)] == [
        *("#", "", "Host", "HostName", "Port", "User", "HostKeyAlias", "UserKnownHostsFile", "StrictHostKeyChecking"),
        "ServerAliveInterval",
    ]
    for line in [*known_hosts(connection), *fleet_known_hosts([connection])]:
        assert line.isascii()
        assert line.isprintable()
        assert len(line.split(" ")) == 3
        assert line.startswith("demo ssh-")


def test_text_keeps_what_can_be_printed() -> None:
    assert printable("  Größe:\t1 \u2028 €\x00 ") == "Größe: 1 €"


# Who ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arn", "role"),
    [
        ("arn:aws:sts::123456789012:assumed-role/demo-role/SageMaker", "demo-role"),
        ("arn:aws-cn:sts::123456789012:assumed-role/demo-role/SageMaker", "demo-role"),
        ("arn:aws:iam::123456789012:user/demo-role", None),
        ("arn:aws:iam::123456789012:role/demo-role", None),
        ("arn:aws:iam::123456789012:root", None),
        ("arn:aws:sts::123456789012:federated-user/demo-role", None),
        ("arn:aws:sts::123456789012:assumed-role/path/demo-role/SageMaker", None),
        ("arn:aws:sts::123456789012:assumed-role/demo-role/", None),
        ("arn:aws:sts::999999999999:assumed-role/demo-role/SageMaker", None),
        ("", None),
    ],
)
def test_the_role_behind_a_caller(arn: str, role: str | None) -> None:
    assert role_of_caller(arn, "123456789012") == role


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a", True),
        ("A-1", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("", False),
        ("-a", False),
        ("a-", False),
        ("a_b", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_a_notebooks_name(name: str, good: bool) -> None:
    assert is_notebook_name(name) is good


# Weighing -------------------------------------------------------------------------------------------------------------

KNOWN = a_record(report=a_report())


@pytest.mark.parametrize(
    ("record", "role", "report", "verdict"),
    [
        (None, "demo-role", a_report(), Unregistered()),
        (KNOWN, "other-role", a_report(sequence=6), RoleMismatch("demo-role")),
        (KNOWN, "Demo-role", a_report(sequence=6), RoleMismatch("demo-role")),
        (KNOWN, "demo-role", a_report(sequence=5), OutOfOrder(a_report())),
        (KNOWN, "demo-role", a_report(sequence=4), OutOfOrder(a_report())),
        (KNOWN, "demo-role", a_report(boot="boot-0", booted_at=NOW - 551, sequence=99), OutOfOrder(a_report())),
        (KNOWN, "demo-role", a_report(boot="boot-2", sequence=99), OutOfOrder(a_report())),
    ],
)
def test_what_is_not_accepted(record: Record | None, role: str, report: Report, verdict: object) -> None:
    assert accept(record, role, report) == verdict


def heard(report: Report, before: Report | None) -> Report:
    verdict = accept(a_record(report=before), "demo-role", report)
    assert isinstance(verdict, Accepted)
    assert verdict.before == before
    return verdict.report


def test_the_moments_that_only_the_stack_knows() -> None:
    first = heard(a_report(received_at=NOW, connected_since=None, phase_since=0), None)
    assert (first.connected_since, first.phase_since) == (NOW, NOW)

    later = replace(first, sequence=6, received_at=NOW + 300, connected_since=None, phase_since=0)
    same = heard(later, first)
    assert (same.connected_since, same.phase_since) == (NOW, NOW)

    moved = heard(replace(later, port=1), first)
    assert (moved.connected_since, moved.phase_since) == (NOW + 300, NOW)

    broken = heard(replace(later, phase=Phase.CONNECTING, host=None, port=None), first)
    assert (broken.connected_since, broken.phase_since) == (NOW, NOW + 300)

    back = heard(replace(later, sequence=7, received_at=NOW + 310), broken)
    assert (back.connected_since, back.phase_since) == (NOW + 310, NOW + 310)

    reboot = heard(replace(later, boot="boot-2", booted_at=NOW, sequence=1, phase=Phase.CONNECTING), first)
    assert (reboot.connected_since, reboot.phase_since) == (None, NOW + 300)


BOTH: dict[str, Any] = {
    "modes": ["eice", "ngrok"],
    "phase": "connecting",
    "phases": {"eice": "connected", "ngrok": "connecting"},
    "host": None,
    "port": None,
}
"""A report in two modes, of which one works; an older stack would read `phase`."""
DOWN = {"code": "ngrok-unreachable", "message": "ngrok cannot be reached"}


def test_each_path_is_read_by_itself() -> None:
    report = read(**BOTH | {"problems": {"ngrok": DOWN}})
    assert report.modes == (Mode.EICE, Mode.NGROK)
    assert report.phase is Phase.CONNECTED, "of the best path"
    assert report.problem is None
    assert report.paths == (
        PathReport(Mode.EICE, Phase.CONNECTED),
        PathReport(Mode.NGROK, Phase.CONNECTING, Problem(**DOWN)),
    )


@pytest.mark.parametrize(
    ("parts", "paths"),
    [
        ({"phases": {}}, []),
        ({"phases": None, "problems": {"ngrok": DOWN}}, []),
        ({"phases": {"eice": "failed"}}, [(Mode.EICE, "failed"), (Mode.NGROK, "connecting")]),
        (
            {"phases": BOTH["phases"] | {"tailnet": "dancing"}, "problems": {"tailnet": 7}},
            [(Mode.EICE, "connected"), (Mode.NGROK, "connecting")],
        ),
        (
            {"modes": ["eice", "tailnet"], "phases": {"eice": "connected", "tailnet": "failed"}},
            [(Mode.EICE, "connected")],
        ),
    ],
    ids=["none", "null", "one alone", "a mode that is not reported", "a mode that this version does not know"],
)
def test_what_is_said_of_paths_may_be_more_or_less(parts: dict[str, Any], paths: list[tuple[Mode, str]]) -> None:
    assert [(path.mode, str(path.phase)) for path in read(**BOTH | parts).paths] == paths


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"phases": ["connected"]}, "phases"),
        ({"phases": {f"m{n}": "failed" for n in range(9)}}, "phases"),
        ({"phases": {"eice": "dancing"}}, "phases.eice"),
        ({"phases": {"eice": 7}}, "phases.eice"),
        ({"problems": {"eice": "broken"}}, "problems.eice"),
        ({"problems": {"eice": {"code": "Bad Code", "message": ""}}}, "problems.eice.code"),
        ({"problems": {f"m{n}": DOWN for n in range(9)}}, "problems"),
        ({"phases": {"eice": "failed", "ngrok": "connected"}}, "host"),
    ],
)
def test_a_path_that_is_not_as_described_is_named(parts: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidReportError) as refused:
        read(**BOTH | parts)
    assert refused.value.field == field


def test_each_path_has_the_time_since_when_it_is_so() -> None:
    first = heard(replace(read(**BOTH), sequence=5), None)
    assert first.paths_since == (NOW, NOW)
    later = replace(
        read(**BOTH | {"phases": {"eice": "connected", "ngrok": "failed"}}), sequence=6, received_at=NOW + 9
    )
    second = heard(later, first)
    assert second.paths_since == (NOW, NOW + 9)
    assert (second.connected_since, second.phase_since) == (NOW, NOW), "the other path works all the time"
    assert second.of_path(Mode.EICE) == (PathReport(Mode.EICE, Phase.CONNECTED), NOW)
    assert second.of_path(Mode.NGROK) == (PathReport(Mode.NGROK, Phase.FAILED), NOW + 9)
    reordered = replace(later, sequence=7, received_at=NOW + 20, modes=later.modes[::-1], paths=later.paths[::-1])
    third = heard(reordered, second)
    assert third.paths_since == (NOW + 9, NOW)
    assert third.connected_since == NOW


def test_a_report_without_paths_is_that_of_each() -> None:
    older = a_report(modes=(Mode.NGROK, Mode.EICE), problem=Problem("agent-outdated", "Restart it."))
    for mode in older.modes:
        assert older.of_path(mode) == (PathReport(mode, older.phase, older.problem), older.phase_since)


# Answering ------------------------------------------------------------------------------------------------------------


def told(record: Record, now: int = NOW, **parts: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "sync_seconds": 300,
        "bastion": BASTION,
        "token": Token("v2", "secret"),
        "held_version": "v2",
        "keys": [("mario", [HOST_KEY])],
    }
    return reply(record, now, **(usual | parts))


def test_the_token_is_logged_only_when_it_changed() -> None:
    assert told(KNOWN)["ngrok"] == {"url": None, "token_version": "v2"}
    assert told(KNOWN, held_version="v1")["ngrok"] == {"url": None, "token_version": "v2", "token": "secret"}
    assert told(KNOWN, held_version=None)["ngrok"]["token"] == "secret"
    assert told(KNOWN, token=None)["ngrok"] == {"url": None, "token_version": None}
    assert "secret" not in repr(Token("v2", "secret"))


@pytest.mark.parametrize("modes", [(Mode.NGROK,), (Mode.BASTION,)])
def test_the_modes_are_replied_as_a_list_and_in_one_word(modes: tuple[Mode, ...]) -> None:
    """The block compares the word with `off`; a worker from before the list knows the word alone."""
    said = told(replace(KNOWN, spec=NotebookSpec(modes)))
    assert (said["modes"], said["mode"]) == ([str(modes[0])], str(modes[0]))


def test_each_of_several_modes_has_its_part() -> None:
    endpoint = Endpoint("eice-0123", "eice-0123.example.com")
    routes = {
        Mode.BASTION: Route(open=True, private_ip="10.0.1.5"),
        Mode.EICE: Route(open=True, private_ip="10.0.1.5", endpoint=endpoint),
    }
    modes = (Mode.EICE, Mode.NGROK, Mode.BASTION)
    said = told(replace(KNOWN, spec=NotebookSpec(modes), routes=routes))
    assert (said["modes"], said["mode"]) == (["eice", "ngrok", "bastion"], "eice ngrok bastion")
    assert said["eice"] == {
        "id": "eice-0123",
        "dns_name": "eice-0123.example.com",
        "private_ip": "10.0.1.5",
    }
    assert said["bastion"]["private_ip"] == "10.0.1.5"
    assert said["ngrok"]["token_version"] == "v2"


def test_an_endpoint_that_is_not_known_yet_is_null() -> None:
    record = replace(KNOWN, spec=NotebookSpec((Mode.EICE,)))
    assert told(record)["eice"] == {
        "id": None,
        "dns_name": None,
        "private_ip": None,
    }
    gone = Route(problem=Problem("endpoint-gone", "It is gone."))
    assert told(replace(record, routes={Mode.EICE: gone}))["problem"]["code"] == "endpoint-gone"


def test_off_takes_all_with_it() -> None:
    for record in (
        replace(KNOWN, spec=NotebookSpec()),
        replace(KNOWN, spec=NotebookSpec(modes=(Mode.NGROK,), until=NOW)),
    ):
        said = told(record, held_version=None)
        assert (said["modes"], said["mode"]) == ([], "off")
        assert said["authorized_keys"] == []
        assert "ngrok" not in said
        assert "bastion" not in said


def test_through_the_bastion() -> None:
    record = replace(
        KNOWN, spec=NotebookSpec(modes=(Mode.BASTION,)), routes={Mode.BASTION: Route(open=True, private_ip="10.0.1.5")}
    )
    said = told(record)
    assert said["bastion"] == {"host": "bastion.example.com", "user": "jumper", "private_ip": "10.0.1.5"}
    assert said["authorized_keys"] == [{"user": "mario", "keys": [HOST_KEY]}]
    assert "ngrok" not in said
    assert told(replace(record, routes={}))["bastion"]["private_ip"] is None


@pytest.mark.parametrize(
    ("record", "seconds"),
    [
        (KNOWN, 300),
        (a_record(report=a_report(phase=Phase.FAILED)), 300),
        (a_record(report=a_report(phase=Phase.CONNECTING)), 15),
        (a_record(report=a_report(modes=(), phase=Phase.OFF)), 15),
        (a_record(spec=NotebookSpec(), report=a_report()), 15),
        (a_record(spec=NotebookSpec(), report=a_report(modes=(), phase=Phase.OFF)), 300),
        (a_record(spec=NotebookSpec(modes=(Mode.NGROK,), until=NOW + 100), report=a_report()), 100),
        (a_record(spec=NotebookSpec(modes=(Mode.NGROK,), until=NOW + 1000), report=a_report()), 300),
        (a_record(spec=NotebookSpec(modes=(Mode.BASTION,)), report=a_report(modes=(Mode.BASTION,))), 15),
        (
            a_record(
                spec=NotebookSpec(modes=(Mode.BASTION,)),
                routes={Mode.BASTION: Route(open=True)},
                report=a_report(modes=(Mode.BASTION,)),
            ),
            300,
        ),
    ],
)
def test_the_next_report_comes_sooner_while_something_is_under_way(record: Record, seconds: int) -> None:
    assert told(record)["sync_after"] == seconds
    assert told(record, sync_seconds=5)["sync_after"] == 5


@pytest.mark.parametrize(
    ("record", "own", "code"),
    [
        (KNOWN, None, None),
        (KNOWN, Problem("ngrok-token-missing", "x"), "ngrok-token-missing"),
        (replace(KNOWN, problem=Problem("config-too-large", "x")), None, "config-too-large"),
        (replace(KNOWN, spec=NotebookSpec(problem=Problem("invalid-tag", "x"))), None, "invalid-tag"),
        (
            replace(
                KNOWN,
                spec=NotebookSpec(modes=(Mode.BASTION,)),
                routes={Mode.BASTION: Route(problem=Problem("other-vpc", "x"))},
            ),
            None,
            "other-vpc",
        ),
    ],
)
def test_the_notebook_learns_what_the_stack_found_wrong(record: Record, own: Problem | None, code: str | None) -> None:
    problem = told(record, problem=own)["problem"]
    assert (problem and problem["code"]) == code
