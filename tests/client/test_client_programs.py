"""The recipes of docs/connect.md for programs that `make test-nightly` installs, each typed into the real program."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.laptop import FakeApi, Forward, Laptop, Sshd, free_port, start_forward, wait_until
from support.recipes import ENVIRONMENTS, recipe

if sys.platform != "win32":
    import pty

ON_THE_NOTEBOOK = "/home/ec2-user/anaconda3/envs/"
"""Where the recipes have a notebook's Python; here it is that of .venv/compute."""

COMPUTE = str(ENVIRONMENTS / "compute")

by_name = pytest.mark.nightly(sibling="tests/client/test_client_real_ssh.py::test_ssh_by_name")
by_forward = pytest.mark.nightly(
    sibling="tests/client/test_client_forward.py::test_program_that_accepts_every_key_reaches_the_notebook"
)
pytestmark = pytest.mark.posix


@pytest.fixture
def background(laptop: Laptop, notebook: Sshd) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a command of a shell on the laptop; all are ended, with their children, after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(command: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["sh", "-c", command],
            env=laptop.environment,
            cwd=laptop.folder,
            text=True,
            start_new_session=True,
            **{"stdin": subprocess.DEVNULL, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process, contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def forward(laptop: Laptop, notebook: Sshd) -> Iterator[Forward]:
    forward = start_forward(laptop, "my-notebook")
    yield forward
    forward.stop()


def fill_in(text: str, forward: Forward) -> str:
    return text.replace("PORT", str(forward.port)).replace("FINGERPRINT", forward.fingerprint)


def type_shell(laptop: Laptop, text: str) -> subprocess.CompletedProcess[str]:
    result = laptop.run("sh", "-e", "-c", text)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def use_another_server(api: FakeApi, sshd: Callable[..., Sshd]) -> None:
    """Let the notebook's address lead to a server with another host key."""
    api.notebooks["my-notebook"]["port"] = sshd(login="ec2-user").port


def restart(api: FakeApi, notebook: Sshd, sshd: Callable[..., Sshd]) -> Sshd:
    """Restart the notebook: it has another address and other host keys, and the same disk."""
    notebook.stop()
    after = sshd(login="ec2-user")
    after.home.rmdir()
    after.home.symlink_to(notebook.home)
    api.notebooks["my-notebook"] = after.notebook_json("my-notebook")
    return after


@by_forward
def test_rclone(laptop: Laptop, notebook: Sshd, forward: Forward) -> None:
    block = recipe("Programs with an SSH of their own", "sh")[1]
    (laptop.folder / "data").mkdir()
    (laptop.folder / "data" / "table.csv").write_text("1,2\n")
    type_shell(laptop, fill_in(block, forward))
    assert (notebook.home / "SageMaker/data/table.csv").read_text() == "1,2\n"


@by_forward
def test_plink_and_psftp(laptop: Laptop, notebook: Sshd, forward: Forward) -> None:
    block = fill_in(recipe("Programs with an SSH of their own", "sh")[2], forward)
    puttygen, plink, psftp = block.replace("~", str(laptop.folder).replace(" ", "\\ ")).splitlines()
    type_shell(laptop, puttygen)
    assert type_shell(laptop, f"{plink} -batch echo plink").stdout == "plink\n"
    (laptop.folder / "batch").write_text("put batch SageMaker/batch\n")
    type_shell(laptop, f"{psftp} -batch -b batch")
    assert (notebook.home / "SageMaker/batch").read_text() == "put batch SageMaker/batch\n"


@by_forward
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("program", ["ssh2", "node-ssh"])
def test_node(
    laptop: Laptop, api: FakeApi, sshd: Callable[..., Sshd], forward: Forward, program: str, right: bool
) -> None:
    with_ssh2, with_node_ssh, _ = recipe("Node: ssh2 and node-ssh", "js")
    if not right:
        use_another_server(api, sshd)
    text = with_ssh2 if program == "ssh2" else with_ssh2.split("\nconst client")[0] + with_node_ssh
    laptop.environment["NODE_PATH"] = str(ENVIRONMENTS / "node" / "node_modules")
    result = laptop.run("node", "-e", fill_in(text, forward))
    assert result.stdout == (f"{program}\n" if right else ""), result.stderr


@by_name
def test_ssh_config_of_npm(laptop: Laptop, notebook: Sshd) -> None:
    block = recipe("Node: ssh2 and node-ssh", "js")[2]
    laptop.environment["NODE_PATH"] = str(ENVIRONMENTS / "node" / "node_modules")
    assert laptop.run("node", "-e", block).stdout == "ec2-user\n"


@by_name
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="this machine has no FUSE")
def test_sshfs_survives_a_restart(laptop: Laptop, api: FakeApi, notebook: Sshd, sshd: Callable[..., Sshd]) -> None:
    block = recipe("A folder of the notebook on your machine", "sh")[0]
    mounted = laptop.folder / "notebook"
    mounted.mkdir()
    (notebook.home / "SageMaker" / "here").write_text("before\n")
    type_shell(laptop, block)
    try:
        assert (mounted / "here").read_text() == "before\n"
        after = restart(api, notebook, sshd)
        (notebook.home / "SageMaker" / "here").write_text("after the restart\n")
        assert wait_until(lambda: read(mounted / "here")) == "after the restart\n"
        assert after.port != notebook.port
        type_shell(laptop, "fusermount3 -u notebook")
    finally:
        subprocess.run(["fusermount3", "-u", "-z", mounted], check=False, capture_output=True)


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@by_name
def test_lftp(laptop: Laptop, notebook: Sshd) -> None:
    block = recipe("A folder of the notebook on your machine", "sh")[1]
    (laptop.folder / "data").mkdir()
    (laptop.folder / "data" / "table.csv").write_text("1,2\n")
    type_shell(laptop, block)
    assert (notebook.home / "SageMaker/data/table.csv").read_text() == "1,2\n"


@by_name
def test_autossh_survives_a_restart(
    laptop: Laptop,
    api: FakeApi,
    notebook: Sshd,
    sshd: Callable[..., Sshd],
    background: Callable[..., subprocess.Popen[str]],
) -> None:
    (block,) = recipe("A tunnel that comes back", "sh")
    port = free_port()
    laptop.environment["AUTOSSH_PATH"] = str(
        laptop.folder.parent / "bin" / "ssh"
    )  # else /usr/bin/ssh, with the user's ~
    with socket.create_server(("127.0.0.1", 0)) as server:
        served = server.getsockname()[1]
        background(f"exec {block.replace('6006:', f'{port}:', 1).replace(':6006', f':{served}')}")
        wait_until(lambda: passes_through(port, server))
        restart(api, notebook, sshd)
        end_sessions(notebook)
        wait_until(lambda: passes_through(port, server))


def passes_through(port: int, server: socket.socket) -> bool:
    """Return whether a connection to `port` arrives at `server`."""
    server.settimeout(1)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as near:
            far, _ = server.accept()
            with far:
                far.sendall(b"here")
                near.settimeout(1)
                return near.recv(4) == b"here"
    except OSError:
        return False


def end_sessions(notebook: Sshd) -> None:
    """End the connections of an sshd that has ended: its children outlive it."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"NSS_WRAPPER_PASSWD={notebook.folder}".encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue  # it has ended by itself


# ---- computing on the notebook -------------------------------------------------------------------


@by_name
def test_dask_cluster_through_a_port(laptop: Laptop, background: Callable[..., subprocess.Popen[str]]) -> None:
    (shell,) = recipe("Python: asyncssh and dask", "sh")
    python = recipe("Python: asyncssh and dask", "python")[1]
    near, far = free_port(), free_port()
    shell = (
        shell.replace("8786:", f"{near}:", 1).replace("8786", str(far)).replace(f"{ON_THE_NOTEBOOK}python3", COMPUTE)
    )
    cluster = background(f"exec {shell}", stdin=subprocess.PIPE)
    wait_until(lambda: greets(near))
    result = laptop.run(f"{COMPUTE}/bin/python", "-I", "-c", python.replace("8786", str(near)))
    assert result.stdout == "6\n", result.stderr
    cluster.stdin.close()  # type: ignore[union-attr]
    cluster.wait()
    wait_until(lambda: not listens(far))


def greets(port: int) -> bool:
    """Return whether a server at `port` speaks first, as a dask scheduler does."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return bool(connection.recv(1))
    except OSError:
        return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@by_name
def test_dask_by_asyncssh(laptop: Laptop, notebook: Sshd) -> None:
    text = (Path(__file__).parents[2] / "docs/connect.md").read_text("utf-8")
    (call,) = re.findall(r"`dask\.distributed\.(SSHCluster\(.*?\))`", text)
    call = call.replace(f"{ON_THE_NOTEBOOK}python3", COMPUTE)
    call = f"{call[:-1]}, scheduler_options={{'port': 0, 'dashboard_address': '127.0.0.1:0', 'host': '127.0.0.1'}})"
    assert laptop.run_client("address", "my-notebook").returncode == 0
    program = (
        "from dask.distributed import Client, SSHCluster\n"
        f"with {call} as cluster, Client(cluster) as client: print(client.submit(sum, [1, 2, 3]).result())\n"
    )
    result = laptop.run(f"{COMPUTE}/bin/python", "-I", "-c", program)
    assert result.stdout == "6\n", result.stderr


@by_name
def test_jupyter_server(laptop: Laptop, background: Callable[..., subprocess.Popen[str]]) -> None:
    """A kernel on the notebook, by the addresses that the server prints, as VS Code and PyCharm use them."""
    (block,) = recipe("A Jupyter server of your own", "sh")
    near, far, (master, slave) = free_port(), free_port(), pty.openpty()
    block = block.replace("8890:", f"{near}:", 1).replace("8890", str(far))
    block = block.replace(f"{ON_THE_NOTEBOOK}JupyterSystemEnv", COMPUTE)
    allowed = "--allow-root" if os.getuid() == 0 else ""  # ec2-user is not root
    with os.fdopen(master), os.fdopen(slave):
        server = background(f"exec {block.strip()} {allowed}", stdin=slave, stdout=subprocess.PIPE)
        assert server.stdout is not None
        found = None
        while not found:
            line = server.stdout.readline()
            assert line, "it has ended"
            found = re.search(rf"http://(?:localhost|127\.0\.0\.1):{far}/\S*\?token=(\w+)", line)
        python = f"{COMPUTE}/bin/python"
        result = laptop.run(python, "-I", "-c", KERNEL, str(near), found[1])
        assert result.stdout == "6\n", result.stderr
    server.kill()
    wait_until(lambda: not listens(far))


KERNEL = """\
import json, sys, uuid
import urllib.request
import tornado.ioloop, tornado.websocket
port, token = sys.argv[1:]
request = urllib.request.Request(f"http://127.0.0.1:{port}/api/kernels?token={token}", data=b"{}", method="POST")
kernel = json.load(urllib.request.urlopen(request))["id"]
async def run():
    address = f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels?token={token}"
    connection = await tornado.websocket.websocket_connect(address)
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
    content = {"code": "print(sum([1, 2, 3]))", "silent": False}
    await connection.write_message(json.dumps(
        {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}))
    while True:
        message = json.loads(await connection.read_message())
        if message["msg_type"] == "stream":
            print(message["content"]["text"], end="")
            return
tornado.ioloop.IOLoop.current().run_sync(run)
"""
