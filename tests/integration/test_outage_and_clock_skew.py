"""The API away for an hour, and clocks that are wrong: real agents and the deployed functions, in an account of their own."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import processes
from emulator.process import Emulator
from environment import OWNERS_SCRIPT, LocalEnv

HOUR = 3_600


class Line:
    """The notebooks' way to the API: it carries requests, answers 503 to all, or nobody listens at its end."""

    def __init__(self) -> None:
        self.port, self.target = processes.free_port(), 0
        self.busy = False
        self.carried: Counter[str] = Counter()
        """Requests that were answered by the API, by path."""
        self.refused = 0
        """Requests that were answered with 503."""

    def has_carried(self, path: str, number: int) -> bool:
        """Whether more than `number` requests for `path` were answered by the API."""
        return self.carried[path] > number

    def open(self) -> None:
        """Listen. Requests are carried to the port `target`."""
        line = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if line.busy:
                    line.refused += 1
                    self.send_error(503)
                    return
                further = http.client.HTTPConnection("127.0.0.1", line.target, timeout=30)
                with contextlib.closing(further):
                    further.request("POST", self.path, body, dict(self.headers.items()))
                    answer = further.getresponse()
                    told = answer.read()
                line.carried[self.path] += 1
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """From now on a connection is refused."""
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    line = Line()
    line.open()
    yield line
    line.close()


@pytest.fixture(scope="module")
def account(line: Line) -> Iterator[LocalEnv]:
    env = LocalEnv(Emulator(api_port=line.port))
    line.target = env.emulator.port
    try:
        env.start()
        env.deploy()
        env.move_in()
        yield env
    finally:
        env.close()


def connect(env: LocalEnv, *names: str) -> None:
    """Notebooks with the user's key: created, tagged, stopped, started once their script has the block, connected."""
    for name in names:
        env.create_lifecycle_config(name, OWNERS_SCRIPT)
        env.create_notebook(name, name)
    for name in names:
        processes.wait_until(f"{name} runs", partial(env.is_in, name, "InService"))
        env.leave_key(name)
        env.tag(name, ssh="ngrok")
        env.sagemaker.stop_notebook_instance(NotebookInstanceName=name)
    for name in names:
        processes.wait_until(f"{name} is stopped", partial(env.is_in, name, "Stopped"))
        processes.wait_until("the block is in", partial(holds_the_block, env, name))
        env.sagemaker.start_notebook_instance(NotebookInstanceName=name)
    for name in names:
        wait_for(env, name, "connected")


def wait_for(env: LocalEnv, name: str, status: str) -> None:
    processes.wait_until(f"{name} is {status}", lambda: env.status(name) == status)


def log_of(env: LocalEnv, name: str) -> str:
    return (env.emulator.notebook_home(name) / "disk/var/log/notebook-ssh.log").read_text()


def test_an_hour_without_the_api(account: LocalEnv, line: Line) -> None:
    name = "patient"
    connect(account, name)
    before = account.curl(f"/notebooks/{name}/address").body
    account.save_ssh_config(name)

    line.close()
    processes.wait_until("the agent is refused", lambda: "refused" in log_of(account, name))
    account.set_functions_clocks(HOUR)
    assert account.status(name) == "stale"
    assert account.curl(f"/notebooks/{name}/address").status == 409
    assert account.ssh(name, "echo hello").stdout == "hello\n", "users who have the address still connect"

    line.busy = True
    line.open()
    processes.wait_until("the agent hears 503", lambda: line.refused > 0)
    line.busy = False
    wait_for(account, name, "connected")
    assert account.curl(f"/notebooks/{name}/address").body == before


@pytest.fixture
def functions_on_time(account: LocalEnv) -> None:
    account.set_functions_clocks(0)


@pytest.mark.nightly(sibling="tests/agent/test_agent_ngrok.py::test_a_clock_that_is_wrong_by_hours_is_corrected")
def test_clocks_of_notebooks_may_be_wrong(account: LocalEnv, line: Line, functions_on_time: None) -> None:
    """By twenty minutes, with which no signature is good, and by nearly as much as a signature may be old.

    An end of access comes when it is time, whatever the notebook's clock says.
    """
    clocks = {"slow": -1_200, "fast": 1_200, "nearly-right": -290}
    for name, ahead in clocks.items():
        account.set_clock(name, ahead)
    connect(account, *clocks)
    for name, skewed in {"slow": True, "fast": True, "nearly-right": False}.items():
        assert ("Signature" in log_of(account, name)) is skewed

    places = {name: account.curl(f"/notebooks/{name}/address").body.split() for name in clocks}
    end_access(account, 600, *clocks)
    heard = line.carried.copy()
    for name in clocks:
        path = next(path for path in heard if f"/{name}/" in path)
        processes.wait_until("it has heard of it", partial(line.has_carried, path, heard[path] + 2))
    assert {account.status(name) for name in clocks} == {"connected"}
    assert [name for name in clocks if not is_open(*places[name])] == []

    end_access(account, 5, *clocks)
    for name in clocks:
        processes.wait_until(f"{name} ends", partial(is_shut, *places[name]))
        assert account.status(name) == "expired"


def end_access(env: LocalEnv, seconds: int, *names: str) -> None:
    """Let access end in so many seconds from now."""
    end = datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for name in names:
        env.tag(name, ssh_until=end)


def holds_the_block(env: LocalEnv, configuration: str) -> bool:
    return env.on_start(configuration) != OWNERS_SCRIPT


def is_shut(host: str, port: str) -> bool:
    return not is_open(host, port)


def is_open(host: str, port: str) -> bool:
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True
