"""The ProxyCommand: banner detection, relaying, the address cache, and the known_hosts file."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.laptop import notebook_json, wait_until

from notebook_ssh_client import address_cache, known_hosts, lookup, name_list, proxy
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.ssh_address import Endpoint, SshAddress
from notebook_ssh_client.transport import HTTP_PROXY_ENV_VAR, MAX_PREAMBLE_SIZE, bastion_command, open_transport
from patience import LIMIT_S

BANNER = b"SSH-2.0-Test\r\n"
Handler = Callable[[socket.socket], None]
Serve = Callable[[Handler], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that starts a server with a handler for each connection, and returns its port."""
    listeners: list[socket.socket] = []

    def start(handler: Handler) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(LIMIT_S)
                    handler(connection)

        threading.Thread(target=accept, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def send_banner(connection: socket.socket) -> None:
    connection.sendall(BANNER)
    connection.recv(1)


def address_at(port: int, **overrides: Any) -> SshAddress:
    fields: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "host_keys": ("ssh-ed25519 AAAA",),
        "bastion": None,
        "fetched_at": int(time.time()),
    }
    return SshAddress(**{**fields, **overrides})


def test_a_host_that_sends_no_banner_receives_no_byte(serve: Serve) -> None:
    """A host name may resolve to any machine: the name is not checked first, but nothing is sent before the banner."""
    from_client = [b""]

    def listen(connection: socket.socket) -> None:
        connection.settimeout(0.3)
        with contextlib.suppress(OSError):  # a timeout, which is no TimeoutError on Python 3.9
            from_client.append(connection.recv(1))
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(ConnectionError, match="sent no SSH banner"):
        open_transport(address_at(serve(listen), host="localhost"), LIMIT_S)
    assert from_client == [b""]


def test_banner_in_pieces_after_other_lines(serve: Serve) -> None:
    def slowly(connection: socket.socket) -> None:
        for piece in (b"welcome\r\n", b"SS", b"H-2.0-Test\r\n"):
            connection.sendall(piece)
        connection.recv(1)

    transport, received = open_transport(address_at(serve(slowly)), LIMIT_S)
    assert received.startswith(b"welcome\r\nSSH-")
    transport.close()


@pytest.mark.parametrize(
    "handler",
    [
        lambda connection: None,
        lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        lambda connection: connection.sendall(b"x" * 2 * MAX_PREAMBLE_SIZE),
    ],
    ids=["closes", "sends-http", "never-ends"],
)
def test_server_without_a_banner_is_rejected(serve: Serve, handler: Handler) -> None:
    with pytest.raises(OSError, match=r"sent no SSH banner|reset"):
        open_transport(address_at(serve(handler)), LIMIT_S)


def _listen_silently(connection: socket.socket) -> None:
    connection.recv(1)


def test_silent_server_times_out(serve: Serve) -> None:
    with pytest.raises(OSError, match="timed out"):  # no TimeoutError on Python 3.9
        open_transport(address_at(serve(_listen_silently)), 0.05)


def test_end_of_stdin_is_passed_on_and_the_other_direction_continues(serve: Serve) -> None:
    from_client: list[bytes] = []

    def reply_at_the_end(connection: socket.socket) -> None:
        connection.sendall(BANNER)
        while data := connection.recv(65536):
            from_client.append(data)
        connection.sendall(b"bye")

    transport, received = open_transport(address_at(serve(reply_at_the_end)), LIMIT_S)
    source, source_write_end = os.pipe()
    output, sink = os.pipe()
    os.write(source_write_end, b"hello")
    os.close(source_write_end)
    proxy.relay(transport, received, source, sink)
    transport.close()
    os.close(sink)
    assert b"".join(from_client) == b"hello"
    assert os.read(output, 100) == BANNER + b"bye"


def test_relay_ends_when_ssh_has_ended(serve: Serve) -> None:
    def send_much(connection: socket.socket) -> None:
        connection.sendall(BANNER + b"x" * 100_000)

    transport, received = open_transport(address_at(serve(send_much)), LIMIT_S)
    source, _source_write_end = os.pipe()
    output, sink = os.pipe()
    os.close(output)
    proxy.relay(transport, received, source, sink)
    transport.close()


@pytest.mark.parametrize(
    ("error_number", "is_end"),
    [
        (errno.EPIPE, True),
        (errno.EINVAL, True),
        (errno.ENOSPC, False),
    ],
    ids=["EPIPE", "EINVAL", "ENOSPC"],
)
def test_relay_ends_at_a_pipe_without_a_reader_on_every_system(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, error_number: int, is_end: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error_number, os.strerror(error_number))

    transport, received = open_transport(address_at(serve(lambda connection: connection.sendall(BANNER))), 10)
    monkeypatch.setattr(proxy, "write_all", refuse)
    source, _source_write_end = os.pipe()
    with contextlib.nullcontext() if is_end else pytest.raises(OSError, match=os.strerror(error_number)):
        proxy.relay(transport, received, source, 1)
    transport.close()


def test_cached_address_without_a_banner_is_fetched_again(
    serve: Serve, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, current = str(tmp_path), address_at(serve(send_banner))
    address_cache.put(home, "demo.notebook", address_at(serve(lambda connection: None)))
    monkeypatch.setattr(lookup, "resolve", lambda *_, **__: current)
    monkeypatch.setattr(name_list, "refresh_names_in_background", lambda _: None)
    _, transport, _ = proxy.connect(home, "demo.notebook", 22, 300, print)
    transport.close()
    assert address_cache.get(home, "demo.notebook", now=time.time(), max_age=300) == current


def test_unreachable_address_is_reported_and_not_cached(
    serve: Serve, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "resolve", lambda *_, **__: address_at(serve(lambda connection: None)))
    with pytest.raises(CliError, match=r"is no SSH server .*notebook-ssh doctor demo"):
        proxy.connect(str(tmp_path), "demo.notebook", 22, 300, print)
    assert address_cache.get(str(tmp_path), "demo.notebook", now=time.time(), max_age=300) is None


def test_connection_through_an_http_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []

    def connect(connection: socket.socket) -> None:
        requests.append(connection.recv(1000))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n" + BANNER)
        connection.recv(1)

    monkeypatch.setenv(HTTP_PROXY_ENV_VAR, f"http://127.0.0.1:{serve(connect)}")
    transport, received = open_transport(address_at(17887, host="0.tcp.ngrok.io"), 10)
    transport.close()
    assert received == BANNER
    assert requests == [b"CONNECT 0.tcp.ngrok.io:17887 HTTP/1.1\r\nHost: 0.tcp.ngrok.io:17887\r\n\r\n"]


def test_refusal_of_the_http_proxy_is_reported(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    monkeypatch.setenv(HTTP_PROXY_ENV_VAR, f"http://127.0.0.1:{serve(refuse)}")
    with pytest.raises(ConnectionError, match=r"refused the connection: HTTP/1\.1 403 Forbidden"):
        open_transport(address_at(17887, host="0.tcp.ngrok.io"), 10)


def test_bastion_command_needs_no_shell() -> None:
    assert bastion_command("10.0.1.5", 22, ("bastion.example.com", "me", 22))[-4:] == [
        "-W",
        "10.0.1.5:22",
        "--",
        "bastion.example.com",
    ]
    assert "[fd00::1]:22" in bastion_command("fd00::1", 22, ("bastion", "me", 2222))


TOKENS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,20}", fullmatch=True)
USERS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
WORDS = st.from_regex(r"[A-Za-z0-9-]{1,20}", fullmatch=True)
KEYS = st.from_regex(r"ssh-[a-z0-9@.-]{1,9} [A-Za-z0-9+/]{1,20}={0,2}", fullmatch=True)
LABELS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)


@st.composite
def addresses(draw: st.DrawFn) -> SshAddress:
    """An address by up to three paths, which share the notebook's keys."""
    host_keys, fetched_at = tuple(draw(st.lists(KEYS, min_size=1))), draw(st.integers(0, 2**40))
    path = st.builds(
        SshAddress,
        host=TOKENS,
        port=st.integers(1, 65535),
        host_keys=st.just(host_keys),
        bastion=st.none() | st.tuples(TOKENS, USERS, st.integers(1, 65535)),
        fetched_at=st.just(fetched_at),
        bastion_keys=st.lists(KEYS).map(tuple),
        endpoint=st.none() | st.builds(Endpoint, WORDS, TOKENS, WORDS, LABELS),
        mode=st.just("") | WORDS,
    )
    address, *others = draw(st.lists(path, min_size=1, max_size=3))
    address.others = tuple(others)
    return address


@given(addresses())
def test_address_round_trips(address: SshAddress) -> None:
    assert address_cache.loads(address_cache.dumps(address)) == address


@given(st.text())
def test_damaged_cache_entry_is_ignored(text: str) -> None:
    assert address_cache.loads(text) is None


@pytest.mark.parametrize(("age", "valid"), [(0, True), (299, True), (300, False), (-5, False)])
def test_cache_entries_expire(tmp_path: Any, age: int, valid: bool) -> None:
    address_cache.put(str(tmp_path), "demo.notebook", address_at(1, fetched_at=1000))
    cached = address_cache.get(str(tmp_path), "Demo.notebook", now=1000 + age, max_age=300)
    assert (cached is not None) is valid


def test_known_hosts_has_exactly_the_current_keys(tmp_path: Any) -> None:
    home, path = str(tmp_path), tmp_path / "known_hosts"
    known_hosts.update_file(home, "a.notebook", 22, ("ssh-ed25519 OLD", "ssh-rsa OLD"))
    known_hosts.update_file(home, "ab.notebook", 22, ("ssh-ed25519 OTHER",))
    known_hosts.update_file(home, "a.notebook", 2222, ("ssh-ed25519 NEW",))
    assert path.read_text() == "ab.notebook ssh-ed25519 OTHER\na.notebook,[a.notebook]:2222 ssh-ed25519 NEW\n"
    modified_at = path.stat().st_mtime_ns
    known_hosts.update_file(home, "a.notebook", 2222, ("ssh-ed25519 NEW",))
    assert path.stat().st_mtime_ns == modified_at


def test_concurrent_updates_of_known_hosts(tmp_path: Any) -> None:
    hosts = [f"n{number}.notebook" for number in range(20)]
    threads = [
        threading.Thread(target=known_hosts.update_file, args=(str(tmp_path), host, 22, (f"ssh-ed25519 {host}",)))
        for host in hosts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {line.split()[0] for line in (tmp_path / "known_hosts").read_text().splitlines()} == set(hosts)


@pytest.mark.parametrize(
    ("server_key", "age", "fetches"),
    [("NONE", 100, False), ("AAAA", 100, False), ("CHANGED", 10, True), ("CHANGED", 9, False)],
)
def test_unknown_server_key_is_fetched_once(
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    server_key: str,
    age: int,
    fetches: bool,
) -> None:
    now = 1_800_000_000
    monkeypatch.setattr(known_hosts, "time", SimpleNamespace(time=lambda: now))
    fetched: list[str] = []
    failures: list[str] = []

    def resolve(host: str) -> SshAddress:
        fetched.append(host)
        return address_at(1, host_keys=("ssh-ed25519 CHANGED",))

    home = str(tmp_path)
    address_cache.put(home, "demo.notebook", address_at(1, fetched_at=now - age))
    lines = known_hosts.lines_for_server_key(home, "[demo.notebook]:2222", server_key, resolve, failures.append)
    assert fetched == (["demo.notebook"] if fetches else [])
    assert lines == f"[demo.notebook]:2222 ssh-ed25519 {'CHANGED' if fetches else 'AAAA'}\n"
    assert any("never reported" in failure for failure in failures) is (server_key == "CHANGED" and not fetches)


def test_names_are_refreshed_during_a_connection(laptop: Any, api: Any, sshd: Any) -> None:
    server = sshd()
    api.notebooks["demo"] = server.notebook_json("demo")
    laptop.setup(api)
    api.notebooks["new"] = notebook_json("new")
    names = laptop.home / "names.json"
    os.utime(names, (0, 0))
    assert laptop.run("ssh", f"{os.environ.get('USER', 'root')}@demo", "sleep 1").returncode == 0
    assert wait_until(lambda: "Host new\n" in (laptop.home / "hosts").read_text())


def test_cached_connection_imports_no_slow_module(laptop: Any, api: Any, sshd: Any) -> None:
    server = sshd()
    api.notebooks["demo"] = server.notebook_json("demo")
    laptop.setup(api)
    for command in (["proxy", "demo.notebook", "22"], ["known-hosts", "demo.notebook", "NONE"]):
        laptop.run_client(*command)  # the first run fetches the address
        imported = laptop.imported_modules("-m", "notebook_ssh_client", *command)
        assert "notebook_ssh_client.address_cache" in imported
        slow = {"botocore", "json", "dataclasses", "typing", "pathlib", "argparse", "subprocess", "asyncio"}
        if sys.version_info < (3, 10):  # noqa: UP036  these tests run on 3.9 too (make oldest)
            slow.discard("typing")  # which `-m` itself imports there
        assert not imported & slow
