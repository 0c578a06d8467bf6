"""Fixtures of the client's tests: a laptop, a stack's API and notebooks with a real sshd, all on 127.0.0.1."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import logins
import processes
from patience import LIMIT_S
from sshd import start_sshd

CLIENT = Path(__file__).resolve().parents[2] / "client"
REGION = "eu-west-1"


def wait_until(condition: Callable[[], Any]) -> Any:
    """Poll `condition` and return its first true value. Raises AssertionError after LIMIT_S."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        threading.Event().wait(0.02)
    raise AssertionError(f"did not come true in {LIMIT_S:g} s")


@dataclass
class FakeApi:
    """The stack's API as docs/api.md describes it."""

    server: ThreadingHTTPServer
    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name, in lower case
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path and headers
    queued_responses: list[tuple[int, Any]] = field(default_factory=list)  # status and body, returned first
    on_start: Callable[[dict[str, Any]], None] | None = None
    clock_ahead_s: float = 0  # of this machine's, in the header Date
    doctor_text: str = "tag  ok\n"  # what the doctor answers unless JSON is asked for
    doctor: dict[str, Any] | None = None  # and what it answers then
    compares_capitals: bool = True  # as a stack does, unless it is an older one
    authority: Authority | None = None  # signs certificates, if the stack has them
    bodies: list[bytes] = field(default_factory=list)  # of the requests

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def request_count(self, path: str) -> int:
        """Return how many requests for `path` were received."""
        return sum(requested == path for _, requested, _ in self.requests)

    def respond(self, method: str, path: str) -> tuple[int, Any]:
        if self.queued_responses:
            return self.queued_responses.pop(0)
        if not path.startswith("/notebooks"):
            return 403, {"message": "Missing Authentication Token"}
        if path == "/notebooks":
            fields = ("name", "modes", "status", "address", "since", "last_used")
            offer = {"certificates": True} if self.authority else {}
            return 200, [{key: notebook[key] for key in fields} | offer for notebook in self.notebooks.values()]
        _, _, name, *rest = path.split("/")
        notebook = self.notebooks.get(name.lower())
        if notebook is None:
            return 404, {"error": "unknown-notebook", "message": f"No notebook {name} is known here."}
        if self.compares_capitals and name != notebook["name"]:
            message = f"The notebook's name is {notebook['name']}: ask for it with these capitals."
            return 409, {"error": "other-spelling", "message": message, "name": notebook["name"]}
        if rest == ["start"] and method == "POST":
            assert self.on_start is not None
            self.on_start(notebook)
            return 202, {"name": notebook["name"]}
        if rest == ["certificate"] and method == "POST":
            return self._certificate(notebook)
        if rest == ["doctor"]:
            check = {"check": "tag", "result": "ok", "since": None, "reason": "ssh=ngrok", "remedy": ""}
            status = {key: notebook[key] for key in ("name", "status", "since", "message", "next_step")}
            return 200, self.doctor or {**status, "checks": [check]}
        return 200, notebook

    def _certificate(self, notebook: dict[str, Any]) -> tuple[int, Any]:
        if self.authority is None:
            return 403, {"message": "Missing Authentication Token"}
        asked = json.loads(self.bodies[-1])
        return 201, {"certificate": self.authority.sign(asked["public_key"], notebook["name"])}


class Authority:
    """A key that signs certificates, as the stack's in KMS does."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.key, self.seconds, self.principal = folder / "authority", 3600, "team/{}/1"
        create_host_key(self.key, "ecdsa")

    def line(self, name: str) -> str:
        """Return what a notebook has in its authorized_keys."""
        return f'cert-authority,principals="{self.principal.format(name)}" {self.key.with_suffix(".pub").read_text()}'

    def sign(self, public_key: str, name: str, key_id: str = "arn:aws:iam::111122223333:user/mario AIDA1") -> str:
        """Return a certificate for a notebook, as `ssh-keygen -s` makes it."""
        with tempfile.TemporaryDirectory(dir=self.key.parent) as folder:
            Path(folder, "key.pub").write_text(f"{public_key}\n")
            options = ["-I", key_id, "-n", self.principal.format(name), "-V", f"-60s:+{self.seconds}s", "-z", "7"]
            subprocess.run(["ssh-keygen", "-q", "-s", self.key, *options, Path(folder, "key.pub")], check=True)
            return Path(folder, "key-cert.pub").read_text().strip()


def notebook_json(name: str, status: str = "connected", **overrides: Any) -> dict[str, Any]:
    """Return what the API returns for a notebook, with `overrides` of its fields."""
    host, port = overrides.get("host"), overrides.get("port")
    return {
        "name": name,
        "modes": ["ngrok"],
        "status": status,
        "since": "2026-07-01T08:00:00Z",
        "last_used": None,
        "message": f"{name} is {status}.",
        "next_step": "Do the next thing.",
        "address": f"{host}:{port}" if host else None,
        "host": None,
        "port": None,
        "user": "ec2-user",
        "jump": None,
        "host_keys": [],
        "wake": False,
        **overrides,
    }


class Sshd:
    """A real sshd with its own host key, as a notebook has one after each start.

    login: the name that this machine's user has there, at home in `home`; by default their own. options: more lines of
    its sshd_config.
    """

    def __init__(
        self,
        folder: Path,
        client_key: Path,
        port: int | None = None,
        login: str | None = None,
        options: str = "",
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self.port, self.home = folder, port or free_port(), folder / "home"
        self.home.mkdir()
        self.environment = logins.as_user(login, self.home, folder / "users") if login else None
        types = ["ecdsa", "ed25519"] if login or options else ["ed25519"]  # a notebook has several
        self.host_keys = [create_host_key(folder / kind, kind) for kind in types]
        self.host_key = self.host_keys[-1]
        (folder / "authorized_keys").write_text(client_key.with_suffix(".pub").read_text())
        (folder / "config").write_text(
            "".join(f"HostKey {folder}/{kind}\n" for kind in types)
            + f"ListenAddress 127.0.0.1\nPort {self.port}\nPidFile none\nUsePAM no\n"
            f"StrictModes no\nAuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\n"
            # OpenSSH 10 offers neither by itself, and other servers do.
            "KexAlgorithms +diffie-hellman-group14-sha256,diffie-hellman-group-exchange-sha256\n"
            f"KbdInteractiveAuthentication no\nAllowAgentForwarding yes\nSubsystem sftp internal-sftp\n{options}"
        )
        self.start()

    def start(self) -> None:
        config, log = self.folder / "config", self.folder / "log"
        self.process = start_sshd("the test's sshd", config, log, self.port, env=self.environment)

    def stop(self) -> None:
        processes.dismiss(self.process, LIMIT_S)

    def notebook_json(self, name: str, **overrides: Any) -> dict[str, Any]:
        """Return what the API returns for a notebook with this sshd."""
        defaults = {"host": "127.0.0.1", "port": self.port, "host_keys": self.host_keys}
        return notebook_json(name, **{**defaults, **overrides})


def create_host_key(path: Path, kind: str) -> str:
    """Create a host key of an sshd; return the public key without a comment."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Laptop:
    """The user's machine: a home directory, the client in its own virtual environment, and an ssh that reads this home.

    OpenSSH finds `~` in the password database and not by HOME, so the `ssh` on this PATH sets the path of ssh_config.
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
        """Run `command` without a terminal, so that a prompt fails."""
        return subprocess.run(
            [str(argument) for argument in command],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            **{"stdin": subprocess.DEVNULL, "cwd": self.folder, "timeout": LIMIT_S, **options},
        )

    def run_client(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `notebook-ssh arguments…`."""
        return self.run(self.python, "-I", "-m", "notebook_ssh_client", *arguments, **options)

    def imported_modules(self, *arguments: str) -> set[str]:
        """Return the modules that Python imports when it runs with `arguments`."""
        result = self.run(self.python, "-I", "-X", "importtime", *arguments)
        return {
            line.rsplit("|", 1)[1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")
        }

    def setup(self, api: FakeApi, stack: str = "team") -> None:
        """Run `notebook-ssh setup` for `api`, in half the time that it takes otherwise: most tests begin with it."""
        words = ["setup", "--ssh-config", str(self.config), "--stack", stack, "--region", REGION, "--api", api.url]
        loaded = _client_loaded(self.python)
        assert loaded.stdin is not None
        assert loaded.stdout is not None
        loaded.stdin.write(json.dumps([words, self.environment, str(self.folder)]) + "\n")
        loaded.stdin.flush()
        status, output = json.loads(loaded.stdout.readline())
        assert status == 0, output


LOADED = f"""\
import gc, json, os, runpy, signal, sys
import botocore.auth
from notebook_ssh_client import api, cli, discovery, lookup
gc.freeze()
for line in sys.stdin:
    words, environment, folder = json.loads(line)
    output, written = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm({int(LIMIT_S)})
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(written, 1)
        os.dup2(written, 2)
        os.close(output)
        os.close(written)
        sys.argv = ["notebook-ssh", *words]
        runpy.run_module("notebook_ssh_client", run_name="__main__")
    os.close(written)
    with open(output) as file:
        said = file.read()
    status = os.waitpid(child, 0)[1]
    print(json.dumps([status, said]), flush=True)
"""
"""Runs commands of the client, one a line, each in a child process of its own; it ends with its standard input."""


@cache
def _client_loaded(python: Path) -> subprocess.Popen[str]:
    """A Python that has loaded what most commands load, which takes longer than most of them do."""
    return subprocess.Popen([python, "-I", "-c", LOADED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@dataclass(frozen=True)
class Forward:
    """A running `notebook-ssh forward`, and what it prints: its port, and the fingerprint of the notebook's Ed25519 key."""

    process: subprocess.Popen[str]
    port: int
    fingerprint: str

    def stop(self) -> None:
        with self.process:
            self.process.kill()


def start_forward(laptop: Laptop, name: str) -> Forward:
    """Start `notebook-ssh forward NAME` for a connectable notebook, at a port of its own: another test may use the usual one."""
    port = free_port()
    command = [str(laptop.python), "-I", "-m", "notebook_ssh_client", "forward", name, "--port", str(port), "--shared"]
    process = subprocess.Popen(command, env=laptop.environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"ssh-ed25519 (SHA256:[\w+/]+)", line):
            return Forward(process, port, found[1])
    raise AssertionError(f"it has ended with {process.wait()}")


def create_client_venv(folder: Path) -> Path:
    """Create a virtual environment with the client and botocore, as pipx and uv do; return its interpreter.

    CLIENT_PYTHON names an existing one to use instead, for another version of Python or botocore.
    """
    if "CLIENT_PYTHON" in os.environ:
        return Path(os.environ["CLIENT_PYTHON"])
    venv.create(folder, symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(packages, "client.pth").write_text(f"{CLIENT}\n{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / Path(sys.executable).name


LONG_TIMEOUTS = f"""\
import os
import time
if "CLOCK_AHEAD" in os.environ:
    time.time = lambda now=time.time: now() + int(os.environ["CLOCK_AHEAD"])
from notebook_ssh_client import transport
transport.CACHED_CONNECT_TIMEOUT_S = transport.CONNECT_TIMEOUT_S = {LIMIT_S}
transport.PATH_TIMEOUT_S = float(os.environ.get("PATH_TIMEOUT_S", "{LIMIT_S}"))
"""


def extend_timeouts(python: Path) -> Path:
    """Raise the connect timeouts of the client in this environment, for a busy machine; return its interpreter.

    Its clock is ahead by the variable CLOCK_AHEAD, in seconds; PATH_TIMEOUT_S is the time limit of a path that others follow.
    """
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(python.parent.parent)}))
    if "CLIENT_PYTHON" not in os.environ:
        (packages / "long_timeouts.py").write_text(LONG_TIMEOUTS)
        (packages / "long_timeouts.pth").write_text("import long_timeouts\n")  # run when this Python starts (site)
    return python


def create_laptop(folder: Path, python: Path, variables: dict[str, str]) -> Laptop:
    """Create a laptop in `folder`, with a key, an ssh_config, and `variables` in its environment."""
    home = folder / "home of the user"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    programs = folder / "bin"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{home}/.ssh/config" "$@"\n')
    ssh.chmod(0o755)
    inherited = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "USER", "LOGNAME", "SHELL")}
    laptop = Laptop(
        home,
        python,
        {
            **inherited,
            "PATH": f"{programs}{os.pathsep}{inherited['PATH']}",
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


def start_api() -> FakeApi:
    """Start an API. Stop it with `server.shutdown()` and `server.server_close()`."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            path = self.path.removeprefix("/v1")
            api.requests.append((self.command, path, dict(self.headers)))
            api.bodies.append(self.rfile.read(int(self.headers["Content-Length"] or 0)))
            status, content = api.respond(self.command, path)
            body = json.dumps(content).encode()
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + api.clock_ahead_s, usegmt=True))
            content_type = "application/json"
            if path.endswith("/doctor") and status == 200 and self.headers["Accept"] == "text/plain":
                content_type, body = "text/plain; charset=utf-8", api.doctor_text.encode()
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = respond  # noqa: N815 (the names are http.server's)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api = FakeApi(server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return api


class FakeCloudFormation:
    """CloudFormation's DescribeStacks."""

    def __init__(self) -> None:
        self.outputs: dict[str, dict[str, str]] = {}  # by stack name

    def describe_stacks(self, name: str) -> tuple[int, str]:
        """Return the status and the XML of the response."""
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
        """Return a handler class of a new service, its attribute `service`."""
        new = cls()

        class Handler(BaseHTTPRequestHandler):
            service = new

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status, text = new.describe_stacks(form["StackName"][0])
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
