"""A laptop, a stack's API and notebooks with real sshd, all on 127.0.0.1: what the client's tests are made of."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import processes
from patience import LIMIT_S
from sshd import start_sshd

CLIENT = Path(__file__).resolve().parents[1] / "client"
REGION = "eu-west-1"


def wait_until(condition: Callable[[], Any]) -> Any:
    """The first true answer of `condition`, asked again and again for a limited time."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if answer := condition():
            return answer
        threading.Event().wait(0.02)
    raise AssertionError(f"did not come true in {LIMIT_S:g} s")


@dataclass
class FakeApi:
    """The stack's API as docs/api.md describes it, answering from `notebooks`."""

    server: ThreadingHTTPServer
    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    on_start: Callable[[dict[str, Any]], None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def asked(self, path: str) -> int:
        """How often `path` was asked for."""
        return sum(one == path for _, one, _ in self.requests)

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        if self.refusals:
            return self.refusals.pop(0)
        if path == "/notebooks":
            fields = ("name", "mode", "status", "address", "since")
            return 200, [{key: notebook[key] for key in fields} for notebook in self.notebooks.values()]
        _, _, name, *rest = path.split("/")
        notebook = self.notebooks.get(name.lower())
        if notebook is None:
            return 404, {"error": "unknown-notebook", "message": f"No notebook {name} is known here."}
        if rest == ["start"] and method == "POST":
            assert self.on_start is not None
            self.on_start(notebook)
            return 202, {"name": notebook["name"]}
        if rest == ["doctor"]:
            return 200, {"hops": [{"hop": "tag", "state": "ok"}]}
        return 200, notebook


def described(name: str, status: str = "connected", **more: Any) -> dict[str, Any]:
    """What the API answers about a notebook; `more` replaces fields."""
    host, port = more.get("host"), more.get("port")
    return {
        "name": name,
        "mode": "ngrok",
        "status": status,
        "since": "2026-07-01T08:00:00Z",
        "message": f"{name} is {status}.",
        "next_step": "Do the next thing.",
        "address": f"{host}:{port}" if host else None,
        "host": None,
        "port": None,
        "user": "ec2-user",
        "jump": None,
        "host_keys": [],
        "wake": False,
        **more,
    }


class Sshd:
    """A real sshd with a host key of its own, as a notebook has after each start."""

    def __init__(self, folder: Path, client_key: Path, port: int | None = None) -> None:
        folder.mkdir(parents=True)
        self.folder, self.port = folder, port or free_port()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
        self.key = " ".join((folder / "host.pub").read_text().split()[:2])
        (folder / "authorized_keys").write_text(client_key.with_suffix(".pub").read_text())
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"StrictModes no\nAuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nAllowAgentForwarding yes\nSubsystem sftp internal-sftp\n"
        )
        self.start()

    def start(self) -> None:
        self.process = start_sshd("the test's sshd", self.folder / "config", self.folder / "log", self.port)

    def stop(self) -> None:
        processes.dismiss(self.process, LIMIT_S)

    def described(self, name: str, **more: Any) -> dict[str, Any]:
        return described(name, **{"host": "127.0.0.1", "port": self.port, "host_keys": [self.key], **more})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Laptop:
    """A person's machine: a home, the client installed in an environment of its own, and an ssh that reads this home.

    OpenSSH finds `~` by the password file and not by HOME, so the `ssh` on this PATH is told its configuration.
    """

    folder: Path
    python: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / ".ssh" / "notebook-ssh"

    @property
    def config(self) -> Path:
        return self.folder / ".ssh" / "config"

    @property
    def key(self) -> Path:
        return self.folder / ".ssh" / "id_ed25519"

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `command` without a terminal: whatever prompts fails."""
        return subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            **{"stdin": subprocess.DEVNULL, "cwd": self.folder, "timeout": LIMIT_S, **options},
        )

    def client(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `notebook-ssh words…`."""
        return self.run(self.python, "-I", "-m", "notebook_ssh_client", *words, **options)

    def set_up(self, api: FakeApi, stack: str = "team") -> None:
        """`notebook-ssh setup` for `api`."""
        done = self.client(
            "setup", "--ssh-config", str(self.config), "--stack", stack, "--region", REGION, "--api", api.url
        )
        assert done.returncode == 0, done.stderr


def make_client_environment(folder: Path) -> Path:
    """An environment that holds the client and botocore, as pipx and uv make one; its interpreter.

    CLIENT_PYTHON names one in which the client is installed, to try another version of Python or botocore.
    """
    if "CLIENT_PYTHON" in os.environ:
        return Path(os.environ["CLIENT_PYTHON"])
    venv.create(folder, symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(packages, "client.pth").write_text(f"{CLIENT}\n{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / Path(sys.executable).name


WAITS = f"""\
from notebook_ssh_client import proxy
proxy.PATIENCE_REMEMBERED = proxy.PATIENCE_FRESH = {LIMIT_S}
"""


def let_wait(python: Path) -> Path:
    """Let the client in this environment wait longer for a greeting: a busy machine is not a notebook that has moved."""
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(python.parent.parent)}))
    if "CLIENT_PYTHON" not in os.environ:
        (packages / "waits.py").write_text(WAITS)
        (packages / "waits.pth").write_text("import waits\n")  # run whenever this Python starts (site)
    return python


def make_laptop(folder: Path, python: Path, variables: dict[str, str]) -> Laptop:
    """A person's machine below `folder`, with a key and a configuration of ssh, and `variables` in its environment."""
    home = folder / "home of a person"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    programs = folder / "bin"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{home}/.ssh/config" "$@"\n')
    ssh.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "USER", "LOGNAME", "SHELL")}
    laptop = Laptop(
        home,
        python,
        {
            **kept,
            "PATH": f"{programs}{os.pathsep}{kept['PATH']}",
            "HOME": str(home),
            "NOTEBOOK_SSH_HOME": str(home / ".ssh" / "notebook-ssh"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            **variables,
        },
    )
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", laptop.key], check=True)
    laptop.config.write_text(f'IdentityFile "{laptop.key}"\nIdentitiesOnly yes\nUser {getpass.getuser()}\n')
    return laptop


def serve_api() -> FakeApi:
    """A running API; `server.shutdown()` and `server.server_close()` end it."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            path = self.path.removeprefix("/v1")
            fake.requests.append((self.command, path, dict(self.headers)))
            status, answer = fake.answer(self.command, path)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = respond  # noqa: N815 (the names are http.server's)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = FakeApi(server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return fake


class FakeCloudFormation:
    """DescribeStacks, answering from `outputs` by stack name."""

    def __init__(self) -> None:
        self.outputs: dict[str, dict[str, str]] = {}

    def answer(self, name: str) -> tuple[int, str]:
        if name not in self.outputs:
            message = f"Stack with id {name} does not exist"
            error = f"<Error><Type>Sender</Type><Code>ValidationError</Code><Message>{message}</Message></Error>"
            return 400, f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"
        members = "".join(
            f"<member><OutputKey>{key}</OutputKey><OutputValue>{value}</OutputValue></member>"
            for key, value in self.outputs[name].items()
        )
        stack = f"<member><StackName>{name}</StackName><Outputs>{members}</Outputs></member>"
        result = f"<DescribeStacksResult><Stacks>{stack}</Stacks></DescribeStacksResult>"
        return 200, f"<DescribeStacksResponse>{result}</DescribeStacksResponse>"

    @classmethod
    def handler(cls) -> type[BaseHTTPRequestHandler]:
        made = cls()

        class Handler(BaseHTTPRequestHandler):
            fake = made

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status, text = made.answer(form["StackName"][0])
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
