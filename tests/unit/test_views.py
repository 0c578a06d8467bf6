"""The formats of the API's answers, one by one."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from support.builders import BASTION, HOST_KEY, NOW, RSA_KEY, SETTINGS, a_record, a_report, wire

from notebook_ssh.errors import Problem
from notebook_ssh.http_api.views import (
    Connection,
    ProxyJump,
    Tunnel,
    address_line,
    connection_for,
    details,
    fleet_known_hosts,
    known_hosts,
    list_entry,
    ssh_command,
    ssh_config,
)
from notebook_ssh.model.record import Endpoint, PathReport, Phase, Record, Route
from notebook_ssh.model.spec import Mode, NotebookSpec
from patience import LIMIT_S

P521 = f"ecdsa-sha2-nistp521 {wire(b'ecdsa-sha2-nistp521', b'nistp521', bytes([4]) + bytes(132))}"
TUNNEL = Connection("Demo", "0.tcp.ngrok.io", 17887, (RSA_KEY, HOST_KEY))
JUMP = ProxyJump("bastion.example.com", "jumper", "bastion.team-ssh")
BEHIND = Connection("inner", "10.0.1.5", 22, (RSA_KEY,), JUMP)


ENDPOINT = Tunnel("eice-0123", "eice-0123.example.com", SETTINGS.region)
BY_ENDPOINT = Connection("Cell", "10.0.3.7", 22, (RSA_KEY,), tunnel=ENDPOINT)
PROXY = (
    "aws ec2-instance-connect open-tunnel --instance-connect-endpoint-id eice-0123"
    " --instance-connect-endpoint-dns-name eice-0123.example.com --private-ip-address 10.0.3.7 --remote-port 22"
    f" --region {SETTINGS.region}"
)
EICE_ROUTE = Route(
    open=True, private_ip="10.0.3.7", since=NOW - 300, endpoint=Endpoint("eice-0123", "eice-0123.example.com")
)


def by(*modes: Mode, phases: dict[Mode, Phase] | None = None, **parts: object) -> Record:
    """A notebook with these modes, whose paths work except for those with another phase."""
    each = dict.fromkeys(modes, Phase.CONNECTED) | (phases or {})
    up = each.get(Mode.NGROK) is Phase.CONNECTED
    why = Problem("ngrok-unreachable", "ngrok cannot be reached.")
    report = a_report(
        modes=modes,
        host="0.tcp.ngrok.io" if up else None,
        port=17887 if up else None,
        paths=tuple(PathReport(mode, phase, why if phase is Phase.FAILED else None) for mode, phase in each.items()),
        paths_since=(NOW - 60,) * len(modes),
    )
    routes = {Mode.BASTION: Route(open=True, private_ip="10.0.1.5", since=NOW - 300), Mode.EICE: EICE_ROUTE}
    return a_record(spec=NotebookSpec(modes=modes), report=report, **{"routes": routes} | parts)


def through_bastion(**parts: object) -> Record:
    return a_record(
        spec=NotebookSpec(modes=(Mode.BASTION,)),
        routes={Mode.BASTION: Route(open=True, private_ip="10.0.1.5", since=NOW - 300)},
        report=a_report(modes=(Mode.BASTION,), host=None, port=None),
        **parts,
    )


@pytest.mark.parametrize(
    ("connection", "command", "address"),
    [
        (TUNNEL, "ssh -p 17887 ec2-user@0.tcp.ngrok.io", "0.tcp.ngrok.io 17887"),
        (BEHIND, "ssh -J jumper@bastion.example.com ec2-user@10.0.1.5", "10.0.1.5 22"),
        (BY_ENDPOINT, f"ssh -o ProxyCommand='{PROXY}' ec2-user@10.0.3.7", "10.0.3.7 22"),
        (
            BEHIND._replace(jump=JUMP._replace(port=2222)),
            "ssh -J jumper@bastion.example.com:2222 ec2-user@10.0.1.5",
            "10.0.1.5 22",
        ),
        (
            BEHIND._replace(jump=JUMP._replace(host="2001:db8::1")),
            "ssh -J jumper@[2001:db8::1] ec2-user@10.0.1.5",
            "10.0.1.5 22",
        ),
    ],
)
def test_the_line_to_type(connection: Connection, command: str, address: str) -> None:
    assert ssh_command(connection) == command
    assert address_line(connection) == address


def test_the_bastion_is_taken_from_the_settings() -> None:
    assert connection_for(through_bastion(), NOW, SETTINGS) == Connection("demo", "10.0.1.5", 22, (HOST_KEY,), JUMP)
    on_a_port = SETTINGS._replace(bastion=replace(BASTION, host="127.0.0.1:2222"))
    there = connection_for(through_bastion(), NOW, on_a_port)
    assert there is not None
    assert there.jump == ProxyJump("127.0.0.1", "jumper", "bastion.team-ssh", 2222)
    ipv6 = connection_for(through_bastion(), NOW, SETTINGS._replace(bastion=replace(BASTION, host="2001:db8::1")))
    assert ipv6 is not None
    assert ipv6.jump == ProxyJump("2001:db8::1", "jumper", "bastion.team-ssh")


def test_each_path_is_listed_in_the_tags_order() -> None:
    told = details(by(Mode.EICE, Mode.NGROK, Mode.BASTION), NOW, SETTINGS)
    assert [(path["mode"], path["state"]) for path in told["paths"]] == [
        ("eice", "ready"),
        ("ngrok", "ready"),
        ("bastion", "ready"),
    ]
    assert told["paths"][0] == {
        "mode": "eice",
        "state": "ready",
        "problem": None,
        "host": "10.0.3.7",
        "port": 22,
        "jump": None,
        "jump_host_keys": [],
        "endpoint": {"id": "eice-0123", "dns_name": "eice-0123.example.com", "region": SETTINGS.region},
    }
    assert (told["paths"][1]["host"], told["paths"][1]["endpoint"]) == ("0.tcp.ngrok.io", None)
    assert (told["paths"][2]["host"], told["paths"][2]["jump"]) == ("10.0.1.5", "jumper@bastion.example.com")


@pytest.mark.parametrize(
    ("record", "status", "host", "through"),
    [
        (by(Mode.EICE, Mode.NGROK), "connected", "10.0.3.7", "endpoint"),
        (by(Mode.NGROK, Mode.EICE), "connected", "0.tcp.ngrok.io", None),
        (by(Mode.NGROK, Mode.EICE, phases={Mode.NGROK: Phase.FAILED}), "ready", "10.0.3.7", "endpoint"),
        (by(Mode.EICE, Mode.NGROK, phases={Mode.EICE: Phase.FAILED}), "connected", "0.tcp.ngrok.io", None),
        (by(Mode.EICE, Mode.BASTION, routes={Mode.EICE: Route()}), "starting", None, None),
        (by(Mode.BASTION, Mode.EICE, phases={Mode.BASTION: Phase.FAILED}), "ready", "10.0.3.7", "endpoint"),
    ],
)
def test_the_notebooks_own_address_is_that_of_the_first_path_that_is_ready(
    record: Record, status: str, host: str | None, through: str | None
) -> None:
    told = details(record, NOW, SETTINGS)
    assert (told["status"], told["host"]) == (status, host)
    assert (told["endpoint"] is not None) is (through == "endpoint")
    assert told["jump"] is None
    connection = connection_for(record, NOW, SETTINGS)
    assert (connection.host if connection else None) == host


def test_the_path_that_failed_is_named() -> None:
    told = details(by(Mode.NGROK, Mode.EICE, phases={Mode.NGROK: Phase.FAILED}), NOW, SETTINGS)
    assert told["message"] == "demo can be reached by eice, but not by ngrok: ngrok cannot be reached."
    assert told["problem"]["code"] == "ngrok-unreachable"
    assert told["paths"][0]["problem"]["code"] == "ngrok-unreachable"
    assert told["paths"][1]["problem"] is None


def test_a_notebook_that_was_not_heard_of_has_paths_that_wait() -> None:
    gone = Route(problem=Problem("endpoint-gone", "It is gone."))
    told = details(by(Mode.NGROK, Mode.EICE, routes={Mode.EICE: gone}), NOW + 9_000, SETTINGS)
    assert told["status"] == "stale"
    assert [(path["mode"], path["state"]) for path in told["paths"]] == [("ngrok", "waiting"), ("eice", "failed")]
    assert told["paths"][0]["host"] == "0.tcp.ngrok.io"


def test_no_path_is_left_once_access_is_over() -> None:
    record = replace(by(Mode.NGROK, Mode.EICE), spec=NotebookSpec(modes=(Mode.NGROK, Mode.EICE), until=NOW))
    assert details(record, NOW, SETTINGS)["paths"] == []
    assert connection_for(record, NOW, SETTINGS) is None


@pytest.mark.parametrize("word", ["eice-0123'; reboot '", "-x", "a b"])
def test_nothing_but_words_is_handed_out_of_an_endpoint(word: str) -> None:
    for endpoint in (Endpoint(word, "eice-0123.example.com"), Endpoint("eice-0123", word)):
        record = by(Mode.EICE, routes={Mode.EICE: replace(EICE_ROUTE, endpoint=endpoint)})
        assert connection_for(record, NOW, SETTINGS) is None


def test_without_a_bastion_there_is_no_way_and_no_address() -> None:
    settings = SETTINGS._replace(bastion=None)
    assert connection_for(through_bastion(), NOW, settings) is None
    assert details(through_bastion(), NOW, settings)["host"] is None
    assert list_entry(through_bastion(), NOW, settings)["address"] is None


def test_ssh_itself_reads_the_blocks_as_meant(tmp_path: Path) -> None:
    """`ssh -G` prints what a name means, by ssh's own reading of the file."""
    file = tmp_path / "config"
    file.write_text(ssh_config([TUNNEL, BEHIND, BY_ENDPOINT], "team-ssh") + "\n")

    def meaning(name: str) -> dict[str, str]:
        told = subprocess.run(
            ["ssh", "-F", str(file), "-G", name], capture_output=True, text=True, check=True, timeout=LIMIT_S
        )
        return dict(line.split(" ", 1) for line in told.stdout.splitlines() if " " in line)

    for name in ("Demo", "demo"):
        tunnel = meaning(name)
        assert (tunnel["hostname"], tunnel["port"], tunnel["user"]) == ("0.tcp.ngrok.io", "17887", "ec2-user")
        assert (tunnel["hostkeyalias"], tunnel["stricthostkeychecking"]) == ("demo", "true")
        assert tunnel["userknownhostsfile"].endswith("/.ssh/team-ssh.known_hosts")
        assert "proxyjump" not in tunnel
    inner = meaning("inner")
    assert (inner["hostname"], inner["port"], inner["proxyjump"]) == ("10.0.1.5", "22", "bastion.team-ssh")
    cell = meaning("cell")
    assert (cell["hostname"], cell["port"], cell["proxycommand"]) == ("10.0.3.7", "22", PROXY)
    bastion = meaning("bastion.team-ssh")
    assert (bastion["hostname"], bastion["user"]) == ("bastion.example.com", "jumper")


def test_ssh_itself_finds_the_host_keys_under_the_name(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text("".join(f"{line}\n" for line in known_hosts(TUNNEL)))
    found = subprocess.run(
        ["ssh-keygen", "-F", "demo", "-f", str(file)], capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    assert [line for line in found.stdout.splitlines() if not line.startswith("#")] == [
        f"demo {RSA_KEY}",
        f"demo {HOST_KEY}",
    ]


BASTION_KEYS = (P521, HOST_KEY)


def test_the_host_keys_of_the_bastion_are_answered_where_ssh_reads_them(tmp_path: Path) -> None:
    settings = SETTINGS._replace(bastion=replace(BASTION, host_keys=BASTION_KEYS))
    connection = connection_for(through_bastion(), NOW, settings)
    assert connection is not None
    lines = [f"bastion.team-ssh {key}" for key in BASTION_KEYS]
    assert known_hosts(connection)[-2:] == lines
    assert list(fleet_known_hosts([connection, TUNNEL, connection]))[-2:] == lines
    assert details(through_bastion(), NOW, settings)["jump_host_keys"] == list(BASTION_KEYS)
    file = tmp_path / "config"
    file.write_text(ssh_config([connection], "team-ssh") + "\n")
    told = subprocess.run(
        ["ssh", "-F", str(file), "-G", "bastion.team-ssh"], capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    assert {"hostkeyalias bastion.team-ssh", "stricthostkeychecking true"} <= set(told.stdout.splitlines())
    assert "/.ssh/team-ssh.known_hosts" in told.stdout


def test_without_host_keys_the_bastion_is_left_to_the_user() -> None:
    connection = connection_for(through_bastion(), NOW, SETTINGS)
    assert connection is not None
    assert not any("bastion" in line for line in known_hosts(connection))
    assert "StrictHostKeyChecking" not in ssh_config([connection], "team-ssh").split("Host bastion.team-ssh")[1]
    assert details(through_bastion(), NOW, SETTINGS)["jump_host_keys"] == []


@pytest.mark.parametrize("key", ["ssh-ed25519", "ssh-ed25519 AAAA\nHost *", "@cert-authority * ssh-rsa AAAA", "a b c"])
def test_a_host_key_that_is_none_is_left_out(key: str) -> None:
    connection = connection_for(
        through_bastion(), NOW, SETTINGS._replace(bastion=replace(BASTION, host_keys=(key, HOST_KEY)))
    )
    assert connection is not None
    assert known_hosts(connection)[-1] == f"bastion.team-ssh {HOST_KEY}"
    assert f"bastion.team-ssh {key}" not in known_hosts(connection)


def test_no_notebook_is_taken_for_the_bastion() -> None:
    """A notebook's name has no dot, so whatever one is called, the way through the bastion leads to the bastion."""
    config = ssh_config([TUNNEL._replace(name="team-ssh-bastion"), BEHIND], "team-ssh")
    hosts = [name for line in config.splitlines() if line.startswith("Host ") for name in line.split()[1:]]
    assert len(hosts) == len(set(hosts))
    assert f"ProxyJump {hosts[-1]}" in config
    assert "." in hosts[-1]


def test_the_bastion_has_one_block_however_many_are_behind_it() -> None:
    blocks = ssh_config([BEHIND, BEHIND._replace(name="other")], "team-ssh")
    assert blocks.count("Host bastion.team-ssh") == 1


def test_the_fleet_has_one_key_for_each_and_the_strongest() -> None:
    fleet = [
        TUNNEL._replace(host_keys=(RSA_KEY, P521, HOST_KEY)),
        BEHIND._replace(host_keys=(RSA_KEY, P521)),
        BEHIND._replace(host_keys=()),
    ]
    assert list(fleet_known_hosts(fleet)) == [f"demo {HOST_KEY}", f"inner {P521}"]


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=x", "-evil", "evil-", ".a", "a b", "a\nb", "", "$(id)", "a;b", "ä.example", "a%h"]
)
def test_a_host_that_is_not_a_word_is_no_connection(host: str) -> None:
    assert connection_for(a_record(report=a_report(host=host)), NOW, SETTINGS) is None


def test_a_stale_address_is_marked_and_not_offered() -> None:
    record = a_record(report=a_report(received_at=NOW - 5000))
    assert connection_for(record, NOW, SETTINGS) is None
    told = details(record, NOW, SETTINGS)
    assert (told["status"], told["since"], told["ssh"]) == ("stale", "2027-01-15T06:36:40Z", None)
    assert (told["address"], told["host"], told["port"]) == ("0.tcp.ngrok.io:17887", "0.tcp.ngrok.io", 17887)
    assert told["next_step"]


def test_a_list_of_ten_thousand_fits_into_one_answer() -> None:
    """6 MB is what a function may answer at once; the longest names there can be."""
    record = a_record(
        name="n" * 63,
        spec=NotebookSpec(modes=(Mode.BASTION,)),
        report=a_report(host="h" * 60 + ".tcp.ap-southeast.ngrok.io"),
    )
    entry = json.dumps(list_entry(replace(record, spec=NotebookSpec(modes=(Mode.NGROK,))), NOW, SETTINGS))
    block = ssh_config([TUNNEL._replace(name="N" * 63)], "team-ssh")
    line = next(fleet_known_hosts([TUNNEL._replace(name="N" * 63)]))
    assert max(len(entry), len(block), len(line)) * 10_000 < 6_000_000
