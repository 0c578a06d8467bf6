"""What the client does not trust: host names, its own files, the API's texts, and networks in between."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.laptop import REGION, notebook_json

from notebook_ssh_client import address_cache, files
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.messages import printable
from notebook_ssh_client.ssh_address import SshAddress

GOOD = SshAddress("0.tcp.ngrok.io", 17887, ("ssh-ed25519 AAAA",), ("bastion.example.com", "me", 22), 1_800_000_000)

# Not names of notebooks: paths, separators of every system, and what shells, ssh or files give a meaning to.
INVALID_HOSTS = [
    "/tmp/evil.notebook",
    "../evil.notebook",
    "..\\evil.notebook",
    "c:evil.notebook",
    "a/b.notebook",
    ".notebook",
    "-a.notebook",
    "a-.notebook",
    "a.b.c.notebook",
    "a..notebook",
    "a b.notebook",
    "a\n.notebook",
    "*.notebook",
    "é.notebook",
    "a" * 64 + ".notebook",
    "a." + "b" * 129 + ".notebook",
    "example.com",
    "notebook",
    "",
]


@pytest.mark.parametrize("command", ["proxy", "known-hosts"])
def test_a_path_is_no_host_name(laptop: Any, api: Any, sshd: Any, tmp_path: Path, command: str) -> None:
    """Otherwise `ssh /tmp/evil.notebook` takes address and key from a file of another user, or deletes it."""
    laptop.setup(api)
    server = sshd()
    evil = tmp_path / "evil.notebook"
    evil.write_text(
        address_cache.dumps(SshAddress("127.0.0.1", server.port, (server.host_key,), None, int(time.time())))
    )
    result = laptop.run_client(command, str(evil), "22" if command == "proxy" else server.host_key.split()[1])
    assert (result.stdout, result.returncode) == ("", 4)
    assert "is not a valid notebook name" in result.stderr
    assert evil.exists()


@pytest.mark.parametrize("host", INVALID_HOSTS)
def test_invalid_host_is_refused_before_a_file_is_touched(tmp_path: Path, host: str) -> None:
    home = tmp_path / "home"
    uses: tuple[Callable[[], object], ...] = (
        lambda: address_cache.get(str(home), host, now=0, max_age=300),
        lambda: address_cache.put(str(home), host, GOOD),
        lambda: address_cache.delete(str(home), host),
    )
    for use in uses:
        with pytest.raises(CliError, match="is not a valid notebook name"):
            use()
    assert not home.exists()


@pytest.mark.parametrize("host", ["a.notebook", "My-1.Notebook", "a.My-Stack.notebook", "a" * 63 + ".notebook"])
def test_valid_host_is_cached_under_its_name(tmp_path: Path, host: str) -> None:
    address_cache.put(str(tmp_path), host, GOOD)
    assert [path.name for path in (tmp_path / "addresses").iterdir()] == [host.lower()]


CHANGES: dict[str, Any] = {
    "an option as host": {"host": "-oProxyCommand=x"},
    "an option as bastion": {"bastion": ("-oProxyCommand=x", "me", 22)},
    "an option as user": {"bastion": ("bastion", "-l", 22)},
    "no port": {"port": 0},
    "a port too high": {"port": 65536},
    "no bastion port": {"bastion": ("bastion", "me", 70000)},
    "no key": {"host_keys": ()},
    "a marker as bastion's key": {"bastion_keys": ("@cert-authority * ssh-rsa AAAA",)},
    "a marker as key": {"host_keys": ("@cert-authority * ssh-rsa AAAA",)},
    "a key with a comment": {"host_keys": ("ssh-ed25519 AAAA *",)},
    "a key that is not base64": {"host_keys": ("ssh-ed25519 $(x)",)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_read_back_is_checked_like_what_was_fetched(change: dict[str, Any]) -> None:
    values = {field: getattr(GOOD, field) for field in SshAddress.__slots__}
    assert address_cache.loads(address_cache.dumps(SshAddress(**{**values, **change}))) is None
    assert address_cache.loads(address_cache.dumps(SshAddress(**values))) == GOOD


@pytest.mark.posix
@pytest.mark.parametrize(("folder", "mode"), [(".", 0o777), (".", 0o720), ("addresses", 0o770)])
def test_folder_that_other_users_can_write_is_refused(laptop: Any, api: Any, folder: str, mode: int) -> None:
    api.notebooks["demo"] = notebook_json("demo", host="127.0.0.1", port=9, host_keys=["ssh-ed25519 AAAA"])
    laptop.setup(api)
    address_cache.put(str(laptop.home), "demo.notebook", GOOD)
    writable = laptop.home / folder
    writable.chmod(mode)
    commands = [["proxy", "demo.notebook", "22"], ["known-hosts", "demo.notebook", "AAAA"], ["address", "demo"]]
    for command in commands if folder == "." else commands[:2]:
        result = laptop.run_client(*command)
        assert (result.stdout, result.returncode) == ("", 1)
        assert f"chmod 700 {writable.resolve()}" in result.stderr.replace("'", "")
    writable.chmod(0o750)
    assert laptop.run_client("address", "demo").returncode == 0


@pytest.mark.posix
def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    files.require_private(str(tmp_path))
    files.require_private(str(tmp_path / "missing"))
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        files.require_private(str(tmp_path))  # root can do anything anyway
        monkeypatch.setattr(files, "ROOT", -1)
    with pytest.raises(CliError, match="belongs to another user"):
        files.require_private(str(tmp_path))


# ---- texts of others -----------------------------------------------------------------------------

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\r\x08over\u202eright\u2066\x00"


@pytest.mark.parametrize(
    "command", [["address", "demo"], ["list"], ["doctor", "demo"], ["start", "demo"], ["proxy", "demo.notebook", "22"]]
)
def test_no_control_character_of_an_answer_reaches_the_terminal(laptop: Any, api: Any, command: list[str]) -> None:
    laptop.setup(api)
    api.notebooks["demo"] = {
        key: f"{value}{HOSTILE}" if isinstance(value, str) and key != "name" else value
        for key, value in notebook_json("demo", "error").items()
    }
    api.doctor_text = f"tag: ok{HOSTILE}\n"
    assert_clean(laptop.run_client(*command))


@pytest.mark.parametrize("response", [(403, {"message": HOSTILE}), (400, {"error": "x", "message": HOSTILE})])
def test_no_control_character_of_an_error_reaches_the_terminal(laptop: Any, api: Any, response: Any) -> None:
    laptop.setup(api)
    for command in (["address", "demo"], ["list"]):
        api.queued_responses.append(response)
        assert_clean(laptop.run_client(*command))


def test_no_control_character_of_an_invalid_address_reaches_the_terminal(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    for field in ("host", "jump"):
        api.notebooks["demo"] = notebook_json("demo", host="h", port=1, host_keys=["ssh-ed25519 AAAA"])
        api.notebooks["demo"][field] = HOSTILE
        assert_clean(laptop.run_client("address", "demo"))


def assert_clean(result: Any) -> None:
    output = result.stdout + result.stderr
    assert output.strip(), "nothing was printed"
    unsafe = {character for character in output if not (character.isprintable() or character == "\n")}
    assert unsafe == set()


@given(st.text())
def test_printable_keeps_every_printable_character(text: str) -> None:
    shown = printable(text)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert printable(shown) == shown
    if all(character.isprintable() for character in text):
        assert shown == text


# ---- the network in between ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1/v1", "http://localhost.example.com/v1", "http://127.0.0.1.nip.io/v1"]
)
def test_no_token_is_sent_without_tls(laptop: Any, api: Any, url: str) -> None:
    arguments = ["setup", "--ssh-config", str(laptop.config), "--stack", "team", "--region", REGION, "--api", url]
    refused = laptop.run_client(*arguments)
    assert (refused.returncode, "https://" in refused.stderr) == (2, True), refused.stderr
    assert not laptop.home.exists()
    laptop.setup(api)
    laptop.environment["AWS_ENDPOINT_URL_EXECUTE_API"] = url
    overridden = laptop.run_client("list")
    assert (overridden.returncode, "https://" in overridden.stderr) == (2, True), overridden.stderr


@pytest.mark.parametrize(
    ("jump", "bastion"),
    [
        ("me@[2001:db8::1]", ("2001:db8::1", "me", 22)),
        ("me@[2001:db8::1]:2222", ("2001:db8::1", "me", 2222)),
        ("me@2001:db8::1", ("2001:db8::1", "me", 22)),
    ],
)
def test_ipv6_bastion(laptop: Any, api: Any, jump: str, bastion: tuple[str, str, int]) -> None:
    laptop.setup(api)
    api.notebooks["demo"] = notebook_json("demo", host="10.0.0.1", port=22, host_keys=["ssh-ed25519 AAAA"], jump=jump)
    programs = laptop.folder.parent / "bin"
    (programs / "ssh").write_text(f'#!/bin/sh\necho "$@" > "{laptop.folder}/arguments"\nexit 255\n')
    laptop.run_client("proxy", "demo.notebook", "22")
    arguments = (laptop.folder / "arguments").read_text().split()
    assert arguments[-1] == bastion[0]
    assert arguments[arguments.index("-l") + 1] == bastion[1]
    assert ("-p" in arguments) is (bastion[2] != 22)
