"""`notebook-ssh forward`: a local port for programs with an SSH of their own, whose host key is verified on the way."""

from __future__ import annotations

import base64
import getpass
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.laptop import Laptop, free_port, wait_until

from notebook_ssh_client import forward as module
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.host_key_guard import HostKeyError, HostKeyGuard
from patience import LIMIT_S

ME = getpass.getuser()
KEX = (
    "curve25519-sha256",
    "ecdh-sha2-nistp256",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group-exchange-sha256",
)


@dataclass
class Forward:
    """A running `notebook-ssh forward`."""

    laptop: Laptop
    process: subprocess.Popen[str]
    port: int

    def ssh(self, *options: str, command: str = "echo here") -> subprocess.CompletedProcess[str]:
        """Log in as a program does that accepts every host key."""
        blind = [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "GlobalKnownHostsFile=/dev/null",
        ]
        return self.laptop.run("ssh", *(options or blind), "-p", str(self.port), f"{ME}@127.0.0.1", command)


@pytest.fixture
def notebook(laptop: Any, api: Any, sshd: Callable[..., Any]) -> Any:
    server = sshd()
    api.notebooks["demo"] = server.notebook_json("Demo")
    laptop.setup(api)
    return server


@pytest.fixture
def forward(laptop: Any, notebook: Any) -> Iterator[Callable[..., Forward]]:
    """A function that starts `notebook-ssh forward demo` and waits until it listens."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, name: str = "demo") -> Forward:
        port = free_port()
        command = [laptop.python, "-I", "-m", "notebook_ssh_client", "forward", name, "--port", str(port), "--shared"]
        process = subprocess.Popen([*command, *arguments], env=laptop.environment, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert f"127.0.0.1 port {port}" in line, line
        return Forward(laptop, process, port)

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("kex", KEX)
def test_program_that_accepts_every_key_reaches_the_notebook(forward: Any, kex: str) -> None:
    running = forward()
    result = running.ssh(
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", f"KexAlgorithms={kex}"
    )
    assert (result.stdout, result.returncode) == ("here\n", 0), result.stderr


@pytest.mark.parametrize("kex", KEX)
def test_another_server_is_refused_although_the_program_accepts_every_key(
    forward: Any, api: Any, sshd: Any, kex: str
) -> None:
    api.notebooks["demo"]["port"] = sshd().port
    running = forward()
    result = running.ssh(
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", f"KexAlgorithms={kex}"
    )
    assert (result.stdout, result.returncode) == ("", 255)
    assert "Permanently added" not in result.stderr  # its key never arrived
    running.process.send_signal(signal.SIGINT)
    assert "presented a host key that the notebook never reported" in running.process.communicate()[1]


def test_known_hosts_has_the_lines_of_the_port(laptop: Any, forward: Any) -> None:
    running = forward()
    strict = ["-o", "StrictHostKeyChecking=yes", "-o", f'UserKnownHostsFile="{laptop.home}/known_hosts"']
    assert running.ssh(*strict).stdout == "here\n"
    other = forward(name="demo.team")
    assert other.ssh(*strict).stdout == "here\n"
    assert running.ssh(*strict).stdout == "here\n"


def test_forward_follows_a_new_address_and_host_key(
    laptop: Any, api: Any, forward: Any, notebook: Any, sshd: Any
) -> None:
    running = forward()
    assert running.ssh().stdout == "here\n"
    notebook.stop()
    assert running.ssh().returncode == 255
    api.notebooks["demo"] = sshd().notebook_json("Demo")
    assert running.ssh().stdout == "here\n"
    assert running.process.poll() is None


def test_forward_through_a_bastion_carries_large_data(laptop: Any, api: Any, forward: Any, sshd: Any) -> None:
    bastion = sshd()
    laptop.config.write_text(f"StrictHostKeyChecking no\n{laptop.config.read_text()}")
    api.notebooks["demo"] |= {"modes": ["bastion"], "jump": f"{ME}@127.0.0.1:{bastion.port}"}
    size = 3_000_001
    result = forward().ssh(command=f"head -c {size} /dev/zero | wc -c; head -c {size} /dev/zero")
    assert len(result.stdout) == len(f"{size}\n") + size


def test_port_is_the_same_each_time_and_on_loopback_only(laptop: Any, notebook: Any) -> None:
    ports = set()
    for _ in range(2):
        command = [laptop.python, "-I", "-m", "notebook_ssh_client", "forward", "demo", "--shared"]
        process = subprocess.Popen(command, env=laptop.environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        ports.add(process.stderr.readline().split(" port ")[1].split()[0].rstrip(","))
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 130
    (port,) = map(int, ports)
    assert 20000 <= port < 30000


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_taken_port_is_an_error(laptop: Any, notebook: Any, address: str) -> None:
    with socket.create_server((address, 0)) as listener:
        port = str(listener.getsockname()[1])
        result = laptop.run_client("forward", "demo", "--port", port, "--shared")
    assert (result.returncode, f"port {port} is taken" in result.stderr) == (1, True), result.stderr


def test_unknown_notebook_is_an_error(laptop: Any, notebook: Any) -> None:
    assert laptop.run_client("forward", "other", "--shared").returncode == 4


@pytest.mark.parametrize("shared", [False, True])
def test_other_users_of_the_machine_are_named(
    laptop: Any, notebook: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shared: bool
) -> None:
    monkeypatch.setattr(module, "other_users", lambda: ["ana", "mario"])
    monkeypatch.setattr(module.Listener, "accept_forever", lambda listener: listener._socket.close())
    for name, value in laptop.environment.items():
        monkeypatch.setenv(name, value)
    if shared:
        module.run(str(laptop.home), "demo", port=free_port(), shared=True)
        assert "ana, mario are logged in on this machine and can use this port too" in capsys.readouterr().err
    else:
        with pytest.raises(CliError, match=r"ana, mario are logged in .* add --shared"):
            module.run(str(laptop.home), "demo", port=free_port(), shared=False)


@pytest.mark.posix
@pytest.mark.needs_root
def test_other_users_are_found_by_their_processes() -> None:
    process = subprocess.Popen(["sleep", str(LIMIT_S)], user=23456)
    try:
        wait_until(lambda: os.stat(f"/proc/{process.pid}").st_uid == 23456)
        assert "23456" in module.other_users()
    finally:
        process.kill()
        process.wait()
    assert "23456" not in module.other_users()


# ---- the reading of the key exchange -------------------------------------------------------------

KEY = b"\0\0\0\x0bssh-ed25519\0\0\0\x04abcd"
REPORTED = ("ssh-ed25519 " + base64.b64encode(KEY).decode(),)


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def packet(kind: int, payload: bytes = b"") -> bytes:
    body = bytes([kind]) + payload
    padding = 8 - (5 + len(body)) % 8 + 4
    return struct.pack(">IB", 1 + len(body) + padding, padding) + body + b"\0" * padding


def kexinit(*algorithms: str) -> bytes:
    lists = [",".join(algorithms), *["x"] * 9]
    return packet(20, b"c" * 16 + b"".join(string(names.encode()) for names in lists) + b"\0" * 5)


def exchange(client: list[str], server: list[str], *messages: bytes) -> bytes:
    """Return what a server's messages pass on after both sides have announced these algorithms."""
    guard = HostKeyGuard(REPORTED)
    guard.from_client(b"SSH-2.0-client\r\n" + kexinit(*client))
    return b"".join(guard.from_server(data) for data in (b"SSH-2.0-server\r\n", kexinit(*server), *messages))


GOOD, BAD = string(KEY), string(KEY[:-1] + b"x")
ECDH, GEX = ["curve25519-sha256"], ["diffie-hellman-group-exchange-sha256"]
CASES: dict[str, tuple[list[str], list[str], list[bytes], bool]] = {
    "the reported key": (ECDH, ECDH, [packet(31, GOOD), packet(21), b"encrypted"], True),
    "another key": (ECDH, ECDH, [packet(31, BAD)], False),
    "no key": (ECDH, ECDH, [packet(21)], False),
    "a group, then the key": (GEX, GEX, [packet(31, BAD), packet(33, GOOD), packet(21)], True),
    "a group that looks like the key, then another": (GEX, GEX, [packet(31, GOOD), packet(33, BAD)], False),
    "a group that looks like the key, then none": (GEX, GEX, [packet(31, GOOD), packet(21)], False),
    "another key, then the reported one": (ECDH, ECDH, [packet(31, BAD), packet(33, GOOD)], False),
    "the reported key, then another": (ECDH, ECDH, [packet(31, GOOD), packet(31, BAD)], False),
    "a group by a server that offers both": (ECDH + GEX, GEX + ECDH, [packet(31, BAD)], False),
    "no algorithm in common": (ECDH, GEX, [packet(31, GOOD)], False),
    "Kerberos, which has no host key": (["gss-group14-sha256-x"], ["gss-group14-sha256-x"], [packet(32, BAD)], False),
    "what may be said in between": (ECDH, ECDH, [packet(2, GOOD), packet(4, GOOD), packet(31, GOOD), packet(21)], True),
    "a login before the keys": (ECDH, ECDH, [packet(31, GOOD), packet(52)], False),
    "no packet": (ECDH, ECDH, [b"HTTP/1.1 400 Bad Request\r\n\r\n"], False),
}


@pytest.mark.parametrize("case", CASES)
def test_only_a_reported_key_is_passed_on(case: str) -> None:
    client, server, messages, is_passed = CASES[case]
    if is_passed:
        assert exchange(client, server, *messages).endswith(b"".join(messages))
    else:
        with pytest.raises(HostKeyError):
            exchange(client, server, *messages)


@given(st.data())
def test_pieces_of_any_size_are_read_alike(data: st.DataObject) -> None:
    client = b"SSH-2.0-client\r\n" + kexinit(*GEX)
    server = b"hello\r\nSSH-2.0-s\n" + kexinit(*GEX) + packet(31, BAD) + packet(33, GOOD) + packet(21) + b"encrypted"
    guard, passed = HostKeyGuard(REPORTED), b""
    for stream, pass_on in ((client, guard.from_client), (server, guard.from_server)):
        rest = stream
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            passed += pass_on(rest[:size]) or b""
            rest = rest[size:]
    assert passed == server


@given(st.binary(max_size=300))
def test_no_bytes_of_a_server_are_more_than_an_error(noise: bytes) -> None:
    guard = HostKeyGuard(REPORTED)
    guard.from_client(b"SSH-2.0-client\r\n" + kexinit(*ECDH))
    guard.from_server(b"SSH-2.0-s\r\n")
    try:
        assert packet(21) not in guard.from_server(noise + packet(21))
    except HostKeyError:
        return
