"""The experiments on OpenSSH for Windows: what they decide, and with the ssh of this machine, whatever system it has."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from notebook_ssh_verify.experiments.laptop import (
    KnownHosts,
    Machine,
    MatchExec,
    decide_known_hosts,
    decide_match_exec,
    host_key_algorithms,
    this_machine,
    try_known_hosts,
    try_match_exec,
)
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from support.needs import program

SSH = "OpenSSH_for_Windows_9.5p1, LibreSSL 3.8.2"
RSA_FIRST = ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519")
USUAL = ("ssh-ed25519", "rsa-sha2-512")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (KnownHosts(SSH, True, RSA_FIRST, ""), Holds(f"{SSH} runs the command, and uses the key that it prints")),
        (KnownHosts(SSH, True, USUAL, ""), Refuted(f"{SSH} runs the command, and does not use the key that it prints")),
        (KnownHosts(SSH, False, USUAL, ""), Refuted(f"{SSH} does not run the command")),
        (
            KnownHosts(SSH, False, (), "/tmp/config: terminating, 1 bad configuration options"),
            Refuted(f"{SSH} does not know the option"),
        ),
        (
            KnownHosts(SSH, False, (), "Connection refused"),
            Undecided(f"{SSH} ended before its first packet: Connection refused"),
        ),
        (KnownHosts("", False, (), "", "this machine is no Windows"), Undecided("this machine is no Windows")),
    ],
)
def test_a_known_hosts_command_works_if_its_key_counts(seen: KnownHosts, expected: Decision) -> None:
    assert decide_known_hosts(seen) == expected


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (MatchExec(SSH, (True, False), ""), Holds(f"{SSH} runs a program by its path with slashes")),
        (MatchExec(SSH, (False, False), ""), Refuted(f"{SSH} does not run a program by its path with slashes")),
        (MatchExec(SSH, (True, True), ""), Refuted(f"{SSH} does not heed how the program ends")),
        (MatchExec(SSH, (False, True), ""), Refuted(f"{SSH} does not heed how the program ends")),
        (
            MatchExec(SSH, (False, False), "Bad Match condition"),
            Undecided(f"{SSH} did not say its configuration: Bad Match condition"),
        ),
        (MatchExec("", (False, False), "", "this machine is no Windows"), Undecided("this machine is no Windows")),
    ],
)
def test_a_match_exec_works_if_its_status_counts(seen: MatchExec, expected: Decision) -> None:
    assert decide_match_exec(seen) == expected


# ---- with the ssh of this machine, as if it were a Windows -----------------------------------------


def as_windows(ssh: str) -> Machine:
    return Machine("win32", ssh, sys.executable)


def fake(folder: Path, text: str) -> str:
    """An ssh that does something else first; "$@" is what it was called with, $CONFIG its configuration."""
    path = folder / "ssh"
    path.write_text(f'#!/bin/sh\nfor CONFIG in "$@"; do [ -f "$CONFIG" ] && break; done\n{text}\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.posix
def test_an_ssh_that_works() -> None:
    machine = as_windows(program("ssh"))
    assert isinstance(decide_known_hosts(try_known_hosts(machine)), Holds)
    assert isinstance(decide_match_exec(try_match_exec(machine)), Holds)


@pytest.mark.posix
def test_an_ssh_that_ignores_the_command(tmp_path: Path) -> None:
    ssh = fake(tmp_path, f'exec {program("ssh")} -o KnownHostsCommand=none "$@"')
    decision = decide_known_hosts(try_known_hosts(as_windows(ssh)))
    assert isinstance(decision, Refuted)
    assert decision.seen.endswith("does not run the command")


@pytest.mark.posix
def test_an_ssh_that_does_not_read_what_the_command_prints(tmp_path: Path) -> None:
    ssh = fake(tmp_path, f'sed -i \'s/ %H$/ elsewhere/\' "$CONFIG"; exec {program("ssh")} "$@"')
    decision = decide_known_hosts(try_known_hosts(as_windows(ssh)))
    assert isinstance(decision, Refuted)
    assert decision.seen.endswith("does not use the key that it prints")


@pytest.mark.posix
def test_an_ssh_that_does_not_know_the_option(tmp_path: Path) -> None:
    ssh = fake(tmp_path, f'sed -i s/KnownHostsCommand/KnownHostsMagic/ "$CONFIG"; exec {program("ssh")} "$@"')
    decision = decide_known_hosts(try_known_hosts(as_windows(ssh)))
    assert isinstance(decision, Refuted)
    assert decision.seen.endswith("does not know the option")


@pytest.mark.posix
def test_an_ssh_that_fails_decides_nothing(tmp_path: Path) -> None:
    ssh = fake(tmp_path, "echo out of memory >&2; exit 1")
    assert isinstance(decide_known_hosts(try_known_hosts(as_windows(ssh))), Undecided)
    assert isinstance(decide_match_exec(try_match_exec(as_windows(ssh))), Undecided)


@pytest.mark.posix
def test_an_ssh_whose_shell_finds_no_program(tmp_path: Path) -> None:
    ssh = fake(tmp_path, f'sed -i \'s,exec "/,exec "/nowhere/,\' "$CONFIG"; exec {program("ssh")} "$@"')
    assert isinstance(decide_match_exec(try_match_exec(as_windows(ssh))), Refuted)


@pytest.mark.posix
def test_an_ssh_that_does_not_heed_the_status(tmp_path: Path) -> None:
    ssh = fake(tmp_path, f'sed -i \'s/^Match exec .*/Match all/\' "$CONFIG"; exec {program("ssh")} "$@"')
    assert isinstance(decide_match_exec(try_match_exec(as_windows(ssh))), Refuted)


@pytest.mark.parametrize("attempt", [try_known_hosts, try_match_exec])
def test_elsewhere_nothing_is_tried(attempt: Callable[[Machine], KnownHosts | MatchExec]) -> None:
    assert attempt(Machine("linux", "/nowhere/ssh", sys.executable)).why_not == "this machine is no Windows"
    assert attempt(Machine("win32", "", sys.executable)).why_not == "there is no ssh on this machine"


def test_a_path_that_needs_quotes_is_not_tried() -> None:
    seen = try_match_exec(Machine("win32", "ssh", r"C:\Program Files\Python\python.exe"))
    assert seen.why_not.endswith("C:/Program Files/Python/python.exe")


def test_this_machine_is_the_one_that_runs() -> None:
    assert this_machine({}) == Machine(sys.platform, shutil.which("ssh", path=None) or "", sys.executable)


@pytest.mark.parametrize(
    "received", [b"", b"SSH-2.0-x\r\n", b"SSH-2.0-x\r\n\x00\x00\x00\xff\x04\x14", b"SSH-2.0-x\n" + b"\x00" * 64]
)
def test_a_packet_that_is_not_whole_has_no_algorithms(received: bytes) -> None:
    assert host_key_algorithms(received) == ()
