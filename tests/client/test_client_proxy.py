"""The relay between ssh and a notebook: who is taken for a notebook, and that no byte and no end is lost."""

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
from laptop import described, wait_until

from notebook_ssh_client import known_hosts, lookup, proxy, remembered
from notebook_ssh_client.failures import Failure
from notebook_ssh_client.remembered import Place
from patience import LIMIT_S

GREETING = b"SSH-2.0-Test\r\n"
Serve = Callable[[Callable[[socket.socket], None]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that hands each connection to a function; answers its port."""
    listeners: list[socket.socket] = []

    def start(behave: Callable[[socket.socket], None]) -> int:
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
                    behave(connection)

        threading.Thread(target=accept, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def greet(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    connection.recv(1)


def place(port: int, **more: Any) -> Place:
    fields: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "host_keys": ("ssh-ed25519 AAAA",),
        "bastion": None,
        "looked_up": int(time.time()),
    }
    return Place(**{**fields, **more})


def test_a_name_that_leads_inwards_gets_a_connection_and_not_a_byte(serve: Serve) -> None:
    """Names are not looked up before they are believed, since they may change at once; what they lead to hears nothing."""
    heard = [b""]

    def listen(connection: socket.socket) -> None:
        connection.settimeout(0.3)
        with contextlib.suppress(OSError):  # a timeout, which is no TimeoutError on Python 3.9
            heard.append(connection.recv(1))
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(ConnectionError, match="without an SSH greeting"):
        proxy.reach(place(serve(listen), host="localhost"), LIMIT_S)
    assert heard == [b""]


def test_a_greeting_may_come_in_pieces_and_after_other_lines(serve: Serve) -> None:
    def slowly(connection: socket.socket) -> None:
        for piece in (b"welcome\r\n", b"SS", b"H-2.0-Test\r\n"):
            connection.sendall(piece)
        connection.recv(1)

    link, said = proxy.reach(place(serve(slowly)), LIMIT_S)
    assert said.startswith(b"welcome\r\nSSH-")
    link.close()


@pytest.mark.parametrize(
    "other",
    [
        lambda connection: None,
        lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        lambda connection: connection.sendall(b"x" * 2 * proxy.GREETING_LIMIT),
    ],
    ids=["closes", "speaks-http", "never-ends"],
)
def test_whoever_does_not_greet_is_no_notebook(serve: Serve, other: Callable[[socket.socket], None]) -> None:
    with pytest.raises(OSError, match=r"without an SSH greeting|reset"):
        proxy.reach(place(serve(other)), LIMIT_S)


def test_silence_ends(serve: Serve) -> None:
    with pytest.raises(OSError, match="timed out"):  # no TimeoutError on Python 3.9
        proxy.reach(place(serve(lambda connection: connection.recv(1))), 0.05)


def test_the_end_of_one_direction_is_passed_on_and_the_other_goes_on(serve: Serve) -> None:
    heard: list[bytes] = []

    def answer_at_the_end(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        while data := connection.recv(65536):
            heard.append(data)
        connection.sendall(b"bye")

    link, said = proxy.reach(place(serve(answer_at_the_end)), LIMIT_S)
    source, feed = os.pipe()
    result, sink = os.pipe()
    os.write(feed, b"hello")
    os.close(feed)
    proxy.relay(link, said, source, sink)
    link.close()
    os.close(sink)
    assert b"".join(heard) == b"hello"
    assert os.read(result, 100) == GREETING + b"bye"


def test_when_ssh_has_gone_the_relay_ends(serve: Serve) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(GREETING + b"x" * 100_000)

    link, said = proxy.reach(place(serve(talk)), LIMIT_S)
    source, _feed = os.pipe()
    result, sink = os.pipe()
    os.close(result)
    proxy.relay(link, said, source, sink)
    link.close()


@pytest.mark.parametrize(
    ("number", "ends"),
    [
        (errno.EPIPE, True),
        (errno.EINVAL, True),
        (errno.ENOSPC, False),
    ],
    ids=["EPIPE", "EINVAL", "ENOSPC"],
)
def test_a_pipe_that_nobody_reads_is_the_end_on_every_system(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, number: int, ends: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    link, said = proxy.reach(place(serve(lambda connection: connection.sendall(GREETING))), 10)
    monkeypatch.setattr(proxy, "_write_all", refuse)
    source, _feed = os.pipe()
    with contextlib.nullcontext() if ends else pytest.raises(OSError, match=os.strerror(number)):
        proxy.relay(link, said, source, 1)
    link.close()


def test_a_remembered_address_that_does_not_greet_is_looked_up_afresh(
    serve: Serve, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, now = str(tmp_path), place(serve(greet))
    remembered.remember(home, "demo.notebook", place(serve(lambda connection: None)))
    monkeypatch.setattr(lookup, "find", lambda *_, **__: now)
    monkeypatch.setattr(lookup, "refresh_names_meanwhile", lambda _: None)
    link, _ = proxy.connect(home, "demo.notebook", 22, 300)
    link.close()
    assert remembered.recall(home, "demo.notebook", now=time.time(), max_age=300) == now


def test_an_address_that_nobody_answers_is_said_and_not_remembered(
    serve: Serve, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "find", lambda *_, **__: place(serve(lambda connection: None)))
    with pytest.raises(Failure, match=r"does not answer .*notebook-ssh doctor demo"):
        proxy.connect(str(tmp_path), "demo.notebook", 22, 300)
    assert remembered.recall(str(tmp_path), "demo.notebook", now=time.time(), max_age=300) is None


def test_through_a_web_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def connect(connection: socket.socket) -> None:
        asked.append(connection.recv(1000))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n" + GREETING)
        connection.recv(1)

    monkeypatch.setenv(proxy.WEB_PROXY, f"http://127.0.0.1:{serve(connect)}")
    link, said = proxy.reach(place(17887, host="0.tcp.ngrok.io"), 10)
    link.close()
    assert said == GREETING
    assert asked == [b"CONNECT 0.tcp.ngrok.io:17887 HTTP/1.1\r\nHost: 0.tcp.ngrok.io:17887\r\n\r\n"]


def test_a_web_proxy_that_refuses_is_named(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    monkeypatch.setenv(proxy.WEB_PROXY, f"http://127.0.0.1:{serve(refuse)}")
    with pytest.raises(ConnectionError, match=r"refuses: HTTP/1\.1 403 Forbidden"):
        proxy.reach(place(17887, host="0.tcp.ngrok.io"), 10)


def test_the_jump_is_words_and_no_shell() -> None:
    assert proxy.jump_command("10.0.1.5", 22, ("bastion.example.com", "me", 22))[-4:] == [
        "-W",
        "10.0.1.5:22",
        "--",
        "bastion.example.com",
    ]
    assert "[fd00::1]:22" in proxy.jump_command("fd00::1", 22, ("bastion", "me", 2222))


WORDS = st.from_regex(r"[A-Za-z0-9.:-]{1,20}", fullmatch=True)
PLACES = st.builds(
    Place,
    host=WORDS,
    port=st.integers(1, 65535),
    host_keys=st.lists(st.builds("ssh-ed25519 {}".format, WORDS)).map(tuple),
    bastion=st.none() | st.tuples(WORDS, WORDS, st.integers(1, 65535)),
    looked_up=st.integers(0, 2**40),
)


@given(PLACES)
def test_what_is_remembered_is_recalled(where: Place) -> None:
    assert remembered.parse(remembered.render(where)) == where


@given(st.text())
def test_a_damaged_memory_is_no_memory(text: str) -> None:
    assert remembered.parse(text) is None


@pytest.mark.parametrize(("age", "known"), [(0, True), (299, True), (300, False), (-5, False)])
def test_memories_fade(tmp_path: Any, age: int, known: bool) -> None:
    remembered.remember(str(tmp_path), "demo.notebook", place(1, looked_up=1000))
    recalled = remembered.recall(str(tmp_path), "Demo.notebook", now=1000 + age, max_age=300)
    assert (recalled is not None) is known


def test_known_hosts_holds_exactly_the_present_keys(tmp_path: Any) -> None:
    home, path = str(tmp_path), tmp_path / "known_hosts"
    known_hosts.update_file(home, "a.notebook", 22, ("ssh-ed25519 OLD", "ssh-rsa OLD"))
    known_hosts.update_file(home, "ab.notebook", 22, ("ssh-ed25519 OTHER",))
    known_hosts.update_file(home, "a.notebook", 2222, ("ssh-ed25519 NEW",))
    assert path.read_text() == "ab.notebook ssh-ed25519 OTHER\na.notebook,[a.notebook]:2222 ssh-ed25519 NEW\n"
    changed = path.stat().st_mtime_ns
    known_hosts.update_file(home, "a.notebook", 2222, ("ssh-ed25519 NEW",))
    assert path.stat().st_mtime_ns == changed


def test_writers_at_the_same_time_lose_nothing(tmp_path: Any) -> None:
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
    ("presented", "looked_up_ago", "asks"),
    [("NONE", 100, False), ("AAAA", 100, False), ("CHANGED", 10, True), ("CHANGED", 9, False)],
)
def test_the_stack_is_asked_once_when_a_key_is_new(
    tmp_path: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    presented: str,
    looked_up_ago: int,
    asks: bool,
) -> None:
    now = 1_800_000_000
    monkeypatch.setattr(known_hosts, "time", SimpleNamespace(time=lambda: now))
    asked: list[str] = []

    def find(host: str) -> Place:
        asked.append(host)
        return place(1, host_keys=("ssh-ed25519 CHANGED",))

    home = str(tmp_path)
    remembered.remember(home, "demo.notebook", place(1, looked_up=now - looked_up_ago))
    told = known_hosts.answer(home, "[demo.notebook]:2222", presented, find)
    assert asked == (["demo.notebook"] if asks else [])
    assert told == f"[demo.notebook]:2222 ssh-ed25519 {'CHANGED' if asks else 'AAAA'}\n"
    assert ("never reported" in capsys.readouterr().err) is (presented == "CHANGED" and not asks)


def test_names_are_refreshed_beside_a_connection(laptop: Any, api: Any, sshd: Any) -> None:
    server = sshd()
    api.notebooks["demo"] = server.described("demo")
    laptop.set_up(api)
    api.notebooks["new"] = described("new")
    names = laptop.home / "names.json"
    os.utime(names, (0, 0))
    assert laptop.run("ssh", f"{os.environ.get('USER', 'root')}@demo", "sleep 1").returncode == 0
    assert wait_until(lambda: "Host new\n" in (laptop.home / "hosts").read_text())


def imports(laptop: Any, *words: str) -> set[str]:
    """The modules that Python loads with `words`."""
    done = laptop.run(laptop.python, "-I", "-X", "importtime", *words)
    return {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_the_quick_path_loads_no_botocore_and_nothing_slow(laptop: Any, api: Any, sshd: Any) -> None:
    server = sshd()
    api.notebooks["demo"] = server.described("demo")
    laptop.set_up(api)
    for command in (["proxy", "demo.notebook", "22"], ["known-hosts", "demo.notebook", "NONE"]):
        laptop.client(*command)  # the first time looks up
        loaded = imports(laptop, "-m", "notebook_ssh_client", *command)
        assert "notebook_ssh_client.remembered" in loaded
        slow = {"botocore", "json", "dataclasses", "typing", "pathlib", "argparse", "subprocess", "asyncio"}
        if sys.version_info < (3, 10):  # noqa: UP036  these tests run on 3.9 too (make oldest)
            slow.discard("typing")  # which `-m` itself loads there
        assert not loaded & slow
