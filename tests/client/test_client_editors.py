"""The way of VS Code's Remote-SSH: `ssh -T -D PORT HOST bash` with a script on standard input, and its server through PORT."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.endpoints import Endpoint
from support.laptop import FakeApi, Laptop, Sshd, free_port, notebook_json, wait_until
from support.recipes import recipe

from patience import LIMIT_S

pytestmark = pytest.mark.posix

SERVER = f"""\
echo "1234: running"
exec {sys.executable} -Ic '
import select, socket
server = socket.create_server(("127.0.0.1", 0))
print(f"listeningOn=={{server.getsockname()[1]}}==", flush=True)
while 0 not in select.select([server, 0], [], [])[0]:  # until the connection ends
    connection, _ = server.accept()
    connection.sendall(b"the server on the notebook")
    connection.close()
'
"""


@contextmanager
def remote_ssh(laptop: Laptop, socks: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start ssh as VS Code does, and give it the script."""
    command = ["ssh", "-T", "-D", str(socks), "-o", "ConnectTimeout=15", *options, "my-notebook", "bash"]
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=laptop.environment, text=True, start_new_session=True, **streams) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(SERVER)
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def answer_through(socks: int, port: int) -> bytes:
    """Return what the server at `port` of the notebook sends through the SOCKS proxy (RFC 1928)."""
    with socket.create_connection(("127.0.0.1", socks), timeout=LIMIT_S) as connection:
        connection.sendall(b"\x05\x01\x00")
        assert connection.recv(2) == b"\x05\x00"
        connection.sendall(b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + struct.pack(">H", port))
        with connection.makefile("rb") as file:
            assert file.read(10)[1] == 0
            return file.read()


@pytest.mark.parametrize("by_endpoint", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_server_of_an_editor(
    laptop: Laptop, api: FakeApi, notebook: Sshd, endpoint: Endpoint, shared: bool, by_endpoint: bool
) -> None:
    """shared: with the ControlMaster of docs/connect.md; the second window then comes through the first's connection."""
    if by_endpoint:
        api.notebooks["my-notebook"] = endpoint.notebook_json(notebook, "my-notebook")
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket may have about 100 characters
        if shared:
            (block,) = recipe("Your own settings for notebooks", "")
            own = block.replace("~/.ssh/%C", f"{folder}/%C")
            assert "ControlMaster auto" in own
            laptop.config.write_text(f"{laptop.config.read_text()}{own}")
        first, second = free_port(), free_port()
        with remote_ssh(laptop, first) as window:
            ports = [check_server(window, first)]
            assert bool(list(Path(folder).iterdir())) is shared
            with remote_ssh(laptop, second) as another:
                ports.append(check_server(another, second))
    wait_until(lambda: not any(map(listens, ports)))
    assert len(endpoint.server.opened) == (2 - shared) * by_endpoint


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def check_server(window: subprocess.Popen[str], socks: int) -> int:
    """Check that the server can be reached, and return its port on the notebook."""
    assert window.stdout is not None
    assert window.stdout.readline() == "1234: running\n"
    found = re.fullmatch(r"listeningOn==(\d+)==\n", window.stdout.readline())
    assert found
    assert answer_through(socks, int(found[1])) == b"the server on the notebook"
    return int(found[1])


@pytest.mark.parametrize("options", [(), ("-o", "ControlMaster=auto", "-o", "ControlPath=none")])
def test_an_editor_shows_why_there_is_no_connection(
    laptop: Laptop, api: FakeApi, notebook: Sshd, options: tuple[str, ...]
) -> None:
    api.notebooks["my-notebook"] = notebook_json("my-notebook", "stopped")
    with remote_ssh(laptop, free_port(), *options) as window:
        assert window.stderr is not None
        assert window.stderr.readline() == "notebook-ssh: my-notebook is stopped. Do the next thing.\n"
        assert window.wait(LIMIT_S) == 255
