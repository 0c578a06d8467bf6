"""A notebook that lies in its report, all the way to a person's ssh: report, lookup, the files, OpenSSH itself, the client.

Whatever it says, ssh's configuration differs in the address alone, known_hosts has the keys that were accepted and
nothing for any other host, and the client hands on nothing that is not a plain word.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, strategies as st
from support.api_env import ApiEnv, Said, api_env
from support.builders import HOST_KEY, NOW, RSA_KEY, a_record
from support.examples import examples

from notebook_ssh_client.api import ApiClient
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.lookup import NotebookInfo, parse_address
from notebook_ssh_client.settings import Stack

LIES = (
    *("\n", "\r\n", "\0", "\t", " ", "\x1b[2J", "\u202e", "\u2028", "\ufeff", "\ud800"),
    *(
        "$(reboot)",
        "`reboot`",
        "%h",
        "%r",
        "%%",
        "${HOME}",
        "~",
        "'",
        '"',
        "\\",
        "#",
        ";",
        "|",
        "&",
        "*",
        "?",
        "!",
        ",",
    ),
    *("\n  ProxyCommand reboot", "\nHost *\n  LocalCommand reboot", " -oProxyCommand=reboot", "\nInclude /etc/passwd"),
    *("@cert-authority * ", "* ", "github.com ", "|1|aaaa|bbbb ", "\ngithub.com ", "ssh-ed25519 ", "==", "AAAA"),
    *(
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "0x7f.1",
        "2130706433",
        "localhost",
        "[::ffff:127.0.0.1]",
        "@",
        ":22",
        "/",
    ),
)


def spoilt(good: str) -> st.SearchStrategy[str]:
    """`good` with a lie somewhere in it, or twice, or a lie alone."""
    lie = st.one_of(st.sampled_from(LIES), st.text(max_size=6))
    somewhere = st.integers(0, len(good))
    within = st.builds(lambda at, lie: good[:at] + lie + good[at:], somewhere, lie)
    at_an_end = st.builds(lambda lie, first: lie + good if first else good + lie, lie, st.booleans())
    return st.one_of(st.just(good), within, at_an_end, lie)


PROBLEMS = st.fixed_dictionaries({"code": spoilt("ngrok-x"), "message": spoilt("no")})
REPORTS = st.fixed_dictionaries(
    {
        "host": st.one_of(spoilt("0.tcp.ngrok.io"), spoilt("203.0.113.7")),
        "port": st.one_of(st.just(17887), st.integers(), st.sampled_from(["22", 22.0, True, None, "22\nHost *"])),
        "host_keys": st.lists(st.one_of(spoilt(HOST_KEY), spoilt(RSA_KEY)), max_size=3),
        "agent": spoilt("1.0"),
        "problem": st.one_of(st.none(), PROBLEMS),
        "phases": st.one_of(st.just({}), st.dictionaries(spoilt("ngrok"), spoilt("connected"), max_size=3)),
        "problems": st.dictionaries(spoilt("ngrok"), PROBLEMS, max_size=3),
    }
)

turn = itertools.count()


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        env.knows(a_record())
        yield env


def ssh_would(config: Path, host: str) -> dict[str, str]:
    """Every option that ssh would connect to `host` with (ssh -G)."""
    done = subprocess.run(["ssh", "-G", "-F", config, host], capture_output=True, text=True, check=True)
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


def keys_of(known_hosts: Path, host: str) -> set[str]:
    """The keys that known_hosts has for `host` (ssh-keygen -F)."""
    done = subprocess.run(["ssh-keygen", "-F", host, "-f", known_hosts], capture_output=True, text=True, check=False)
    return {line.partition(" ")[2] for line in done.stdout.splitlines() if not line.startswith("#")}


def saved(said: Said, path: Path) -> Path:
    path.write_text(said.text if said.status == 200 else "")
    return path


@examples(80, HealthCheck.function_scoped_fixture)
@example({"host": "0.tcp.ngrok.io", "port": 17887, "host_keys": [HOST_KEY, RSA_KEY], "agent": "", "problem": None})
@given(lies=REPORTS)
def test_no_report_reaches_more_of_ssh_than_the_address_and_the_keys(
    env: ApiEnv, tmp_path: Path, lies: dict[str, Any]
) -> None:
    number = next(turn)
    told = env.report({**lies, "boot": f"boot-{number}", "booted_at": NOW - 100_000 + number})
    assert told.status in (200, 400), told.text
    config = saved(env.get("/notebooks/{name}/ssh-config"), tmp_path / "config")
    known_hosts = saved(env.get("/notebooks/{name}/known-hosts"), tmp_path / "known_hosts")
    if told.status == 200:
        honest = tmp_path / "honest"
        honest.write_text(config.read_text().replace(lies["host"].lower(), "h.example.com"))
        would = ssh_would(config, "demo")
        assert would | {"hostname": "h.example.com"} == ssh_would(honest, "demo")
        assert (would["hostname"], would["port"]) == (lies["host"].lower(), str(lies["port"]))
        assert would["stricthostkeychecking"] in ("yes", "true")
        assert keys_of(known_hosts, "demo") == set(lies["host_keys"])
    nothing = tmp_path / "nothing"
    nothing.write_text("")
    assert ssh_would(config, "github.com") == ssh_would(nothing, "github.com")
    assert keys_of(known_hosts, "github.com") == set()
    as_the_client_reads_it(env.get("/notebooks/{name}").json)


def as_the_client_reads_it(answer: dict[str, Any]) -> None:
    stack = Stack("team", "team", "us-east-1", "https://example.com")
    try:
        address = parse_address(NotebookInfo(stack, ApiClient(stack), "demo", answer))
    except CliError:
        return
    assert re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9.:_-]{0,254}", address.host)
    assert all(re.fullmatch(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}", key) for key in address.host_keys)


@examples(150)
@given(host=spoilt("0.tcp.ngrok.io"), key=spoilt(HOST_KEY), jump=spoilt("ec2-user@bastion.example.com:22"))
def test_the_client_believes_no_stack_that_lies(host: str, key: str, jump: str) -> None:
    """Were the stack taken over, its answers would still be plain words to ssh: the client looks for itself."""
    stack = Stack("team", "team", "us-east-1", "https://example.com")
    answer = {"status": "connected", "host": host, "port": 22, "host_keys": [key], "jump": jump}
    try:
        address = parse_address(NotebookInfo(stack, ApiClient(stack), "demo", answer))
    except CliError:
        return
    words = [address.host, *address.host_keys, *((address.bastion or ())[:2])]
    assert all(word.isascii() and word.isprintable() for word in words)
    assert not any(character in word for word in words for character in "\n\"'`$\\;|&*?!,#%()<>{}~")
    assert not any(word.startswith("-") for word in words)
    assert " " not in address.host


BODIES = {
    "two hosts": ('"host": "0.tcp.ngrok.io", "host": "127.0.0.1"', 400),
    "a number that is none": ('"port": NaN', 400),
    "a number without an end": ('"port": Infinity', 400),
    "a number of ten thousand digits": (f'"port": {"9" * 10_000}', 400),
    "a deep list": ('"host_keys": ' + "[" * 7_000 + "]" * 7_000, 400),
    "a key that looks like another": ('"h\u043est": "127.0.0.1"', 200),
    "a lone half of a character": ('"agent": "\\ud800"', 200),
    "our own words": ('"received_at": 1, "role": "other", "spec": "off", "pk": "backup#team"', 200),
}


@pytest.mark.parametrize("trick", BODIES)
def test_json_has_tricks_and_none_of_them_works(trick: str, env: ApiEnv) -> None:
    more, status = BODIES[trick]
    usual = {
        "boot": '"b"', "booted_at": str(NOW - 500), "sequence": "1", "modes": '["ngrok"]', "phase": '"connected"',
        "host": '"0.tcp.ngrok.io"', "port": "17887",
    }  # fmt: skip
    fields = [f'"{name}": {value}' for name, value in usual.items() if f'"{name}"' not in more]
    said = env.report("{" + ", ".join([*fields, more]) + "}")
    assert said.status == status, said.text
    kept = env.table.record("demo")
    assert kept is not None
    assert (kept.role, kept.spec) == (a_record().role, a_record().spec)
    if status == 400:
        assert kept.report is None
    else:
        assert kept.report is not None
        assert (kept.report.host, kept.report.received_at) == ("0.tcp.ngrok.io", NOW)
    assert env.table.item("backup#team", "demo") is None


NAMES = (
    "../start",
    "..%2Fstart",
    "demo%2Fstart",
    "demo%00",
    "demo%0a",
    "%64emo",
    "demo;x",
    "dem\u043e",
    "demo.",
    "ｄｅｍｏ",
)


@pytest.mark.parametrize("name", [*NAMES, *(quote(name) for name in NAMES)])
def test_a_name_is_taken_as_it_stands_or_not_at_all(name: str, env: ApiEnv) -> None:
    """However a path was encoded or normalised on its way, what arrives is a name of SageMaker's or is refused."""
    answers = (env.report({}, name=name), env.start(name), env.get("/notebooks/{name}", name))
    assert [said.status for said in answers] == [400, 400, 400]
    assert env.report_of("demo") is None


def test_no_caller_names_itself_in_a_header(env: ApiEnv) -> None:
    owner = "arn:aws:sts::123456789012:assumed-role/demo-role/SageMaker"
    headers = {
        "X-Amzn-Iam-Arn": owner,
        "X-Forwarded-User": owner,
        "X-Notebook": "demo",
        "X-HTTP-Method-Override": "GET",
    }
    context = {
        "requestId": "r",
        "accountId": "123456789012",
        "identity": {"userArn": owner.replace("demo", "other")},
    }
    said = env.report({}, headers=headers, requestContext=context)
    assert (said.status, said.json["error"]) == (403, "other-role")


def test_the_programs_are_there() -> None:
    assert shutil.which("ssh")
    assert shutil.which("ssh-keygen")
