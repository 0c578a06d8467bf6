"""What surrounds the agent in its tests: a notebook in a folder, the stack's API, sshd, and ngrok's download.

Nothing here knows how the agent works; it knows docs/protocol.md, OpenSSH and ngrok.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import processes
from notebook_ssh.errors import InvalidReportError
from notebook_ssh.reports.report import read_report
from patience import LIMIT_S
from sshd import start_sshd

PROJECT = Path(__file__).resolve().parent.parent
PROGRAMS = PROJECT / "layers" / "notebook_agent"
STAND_IN = PROJECT / "local" / "notebook" / "ngrok_stand_in.py"
NAME = "Research-1"
ARN = f"arn:aws:sagemaker:eu-west-1:111122223333:notebook-instance/{NAME.lower()}"
ACCESS, SECRET, SESSION = "AKIAEXAMPLE", "secret-of-the-role", "session-of-the-role"
TOKEN = "2abcDEFghiJKLmnoPQRstuVWXyz_3T5yQ7example"

T = TypeVar("T")


class Logging(Protocol):
    """What can say what was logged."""

    def told(self) -> str:
        """All of it, for the message of a test that fails."""


def until(what: Callable[[], T | None], said: str, logging: Logging | None = None) -> T:
    """The first true value of `what`; fails with `said` and what was logged when none comes (patience.py)."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if value := what():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {LIMIT_S:g} s: {said}\n{logging.told() if logging else ''}")


def program(name: str) -> ModuleType:
    """`agent` or `worker` as a module of its own, with the settings of the environment; a worker has the last agent's."""
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lay_identity(root: Path) -> None:
    """Write down which notebook this is, as SageMaker does."""
    path = root / "opt/ml/metadata/resource-metadata.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"ResourceArn": ARN, "ResourceName": NAME}))


def lay_out(root: Path) -> None:
    """The files of a notebook that starts: all but the volume is new. Without host keys."""
    home = root / "home/ec2-user"
    for folder in ("opt", "run", "etc", "var", "usr"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for path in home.glob("*"):
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path != home / "SageMaker":
            shutil.rmtree(path)
    for folder in ("opt/notebook-ssh", "run", "etc/ssh", "home/ec2-user/SageMaker/ssh"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    lay_identity(root)
    shutil.copy(PROGRAMS / "agent.py", root / "opt/notebook-ssh")


def an_answer(mode: str = "ngrok", **changes: Any) -> dict[str, Any]:
    """The stack's answer (docs/protocol.md) to a notebook in `mode`."""
    reply: dict[str, Any] = {"notebook": NAME, "mode": mode, "sync_after": 60, "until": None, "problem": None}
    reply["authorized_keys"] = []
    if mode == "ngrok":
        reply["ngrok"] = {"url": None, "token_version": "v1", "token": TOKEN}
    if mode == "bastion":
        reply["bastion"] = {"host": "bastion.example.com", "user": "jump", "private_ip": "10.0.3.7"}
    return reply | changes


def reply_to(told: dict[str, Any], reply: dict[str, Any], now: float, worker: str) -> dict[str, Any]:
    """The stack's whole reply to the report `told`: `answer`, the program `worker` when wanted, the token when unknown."""
    reply = reply | {"server_time": int(now)}
    if told.get("wants_worker") and reply["mode"] != "off":
        reply["worker"] = worker
    if "ngrok" in reply and reply["ngrok"]["token_version"] == told.get("token_version"):
        reply["ngrok"] = {name: value for name, value in reply["ngrok"].items() if name != "token"}
    return reply


def a_key(comment: str) -> str:
    """A fresh Ed25519 public key, as a line."""
    data = b"\0\0\0\x0bssh-ed25519\0\0\0 " + os.urandom(32)
    return f"ssh-ed25519 {base64.b64encode(data).decode()} {comment}\n"


class Server:
    """An HTTP server on a free port of 127.0.0.1, in a thread. `answer(method, path, headers, body)` is the whole of it."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                status, content = outer.reply(self.command, self.path, dict(self.headers), body)
                self.send_response_only(status)
                self.send_header("Date", formatdate(time.time() + outer.ahead, usegmt=True))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = respond  # noqa: N815  (http.server names them)

            def log_message(self, *args: Any) -> None:
                """Nothing: the tests look at what arrived."""

        self.ahead = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def reply(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """(status, body) for one request."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class Stack(Server):
    """The API's report route, and SageMaker's ListTags. Signatures are checked as API Gateway does.

    answers: what is told from now on. status: another HTTP status than 200, with `refusal` as its body.
    reports: what was told to it, oldest first. tags: what ListTags says, or None when it is away too.
    slow: nothing is answered until it is set; waiting: how many reports have been kept waiting. address: what
    callers know it by, when that is not its own.
    """

    def __init__(self) -> None:
        self.answers = an_answer("off")
        self.status, self.refusal = 200, b'{"error": "later", "message": "later"}'
        self.reports: list[dict[str, Any]] = []
        self.received: list[float] = []
        self.waiting = 0
        self.raw: list[bytes] = []
        self.tags: dict[str, str] | None = None
        self.slow: threading.Event | None = None
        self.worker = (PROGRAMS / "worker.py").read_text()
        super().__init__()
        self.address = self.url

    def reply(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if headers.get("X-Amz-Target") == "SageMaker.ListTags":
            if self.tags is None:
                return 503, b"{}"
            return 200, json.dumps({"Tags": [{"Key": k, "Value": v} for k, v in self.tags.items()]}).encode()
        assert (method, path) == ("POST", f"/v1/notebooks/{NAME}/report")
        if not self._signed(path, headers, body):
            return 403, b'{"message": "The request signature we calculated does not match"}'
        if self.slow:
            self.waiting += 1
            self.slow.wait(LIMIT_S)
        self.raw.append(body)
        self.received.append(time.monotonic())
        told = json.loads(body)
        self.reports.append(told)
        try:
            read_report(body, int(time.time() + self.ahead), allow_loopback=True)
        except InvalidReportError as bad:
            return 400, json.dumps({"error": bad.field, "message": str(bad)}).encode()
        if self.status != 200 or "mode" not in self.answers:
            return self.status, self.refusal
        return 200, json.dumps(reply_to(told, self.answers, time.time() + self.ahead, self.worker)).encode()

    def _signed(self, path: str, headers: dict[str, str], body: bytes) -> bool:
        at = headers["X-Amz-Date"]
        moment = time.mktime(time.strptime(at, "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(moment - time.time() - self.ahead) > 300:
            return False
        request = AWSRequest("POST", self.address + path, data=body, headers={"Content-Type": headers["Content-Type"]})
        request.context["timestamp"] = at
        signer = SigV4Auth(Credentials(ACCESS, SECRET, SESSION), "execute-api", "eu-west-1")
        request.headers["X-Amz-Date"] = at
        request.headers["X-Amz-Security-Token"] = SESSION
        expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        return headers["Authorization"].endswith(f"Signature={expected}")

    def last(self) -> dict[str, Any]:
        """The last report, or {}."""
        return self.reports[-1] if self.reports else {}


class Download(Server):
    """Where ngrok's agent comes from. content: the archive's bytes; fetched: how often it was asked for."""

    def __init__(self) -> None:
        self.content, self.fetched = ngrok_archive(), 0
        super().__init__()

    def reply(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self.fetched += 1
        return (200, self.content) if self.content else (404, b"no such page")


class Proxy(Server):
    """An HTTP proxy. seen: the hosts that were asked for through it, which are the servers `behind` it alone."""

    def __init__(self, behind: dict[str, Server]) -> None:
        self.behind, self.seen = behind, list[str]()
        super().__init__()

    def reply(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        address = urlsplit(path)
        self.seen.append(address.netloc)
        return self.behind[address.netloc].reply(method, address.path, headers, body)


def ngrok_archive(program: str | None = None) -> bytes:
    """A .tgz as ngrok ships it, with the stand-in (or `program`) as `ngrok`."""
    text = (program or "#!/bin/sh\n" + stand_in_call()).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("ngrok")
        entry.size, entry.mode = len(text), 0o755
        archive.addfile(entry, io.BytesIO(text))
    return packed.getvalue()


def stand_in_call() -> str:
    """The shell line that becomes the stand-in."""
    return f"exec '{sys.executable}' '{STAND_IN}' \"$@\"\n"


class Sshd:
    """A real sshd of this user on a free port of 127.0.0.1. `admit(file)` says where it reads keys."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.keys = folder / "authorized_keys"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "ssh_host_ed25519_key"], check=True
        )
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/ssh_host_ed25519_key\n"
            f"AuthorizedKeysFile {self.keys}\nUsePAM no\nStrictModes no\nPidFile none\n"
        )
        self.host_key = " ".join((folder / "ssh_host_ed25519_key.pub").read_text().split()[:2])
        self._process = start_sshd("the test's sshd", folder / "config", folder / "log", self.port)

    def __enter__(self) -> Sshd:
        return self

    def __exit__(self, *_: object) -> None:
        processes.dismiss(self._process, LIMIT_S)


def key_shown_at(port: int) -> str:
    """What ssh-keyscan sees at a port of 127.0.0.1."""
    command = ["ssh-keyscan", "-p", str(port), "-t", "ed25519", "127.0.0.1"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Notebook:
    """A notebook whose root directory is a folder. Its files have people's names: `home`, `volume`, `instructions`."""

    def __init__(self, root: Path, stack: Stack, sshd: Sshd, aside: Path | None = None) -> None:
        """aside: a folder for what is no part of the notebook; the root itself, if none is named."""
        self.root, self.stack, self.sshd, self.aside = root, stack, sshd, aside or root
        self.home = root / "home" / "ec2-user"
        self.volume = self.home / "SageMaker"
        self.instructions = self.volume / "SSH_INSTRUCTIONS"
        self.config = self.volume / ".ngrok" / "config.yml"
        self.authorized = self.home / ".ssh" / "authorized_keys"
        self.own_keys = self.volume / "ssh" / "authorized_keys"
        self.log = root / "var" / "log" / "notebook-ssh.log"
        self.ngrok_log = root / "var" / "log" / "ngrok.log"
        self.clouds = self.aside / "ngrok's cloud"
        self.clouds.mkdir(parents=True)
        self.download = Download()
        self.environment: dict[str, str] = {}
        self.settings: dict[str, str] = {}
        self.agents: list[subprocess.Popen[bytes]] = []
        self.boot()

    def boot(self) -> None:
        """Start the instance: all but the volume is new, the host keys too."""
        lay_out(self.root)
        shutil.copy(self.sshd.folder / "ssh_host_ed25519_key.pub", self.root / "etc/ssh")

    def start(self, python: str = os.environ.get("AGENT_PYTHON") or sys.executable) -> subprocess.Popen[bytes]:
        """Start the agent as the block does; it keeps running until the test ends.

        $AGENT_PYTHON names another interpreter that has botocore, to try the agent with an older Python.
        """
        settings = {
            "STACK": "notebook-ssh",
            "API": f"{self.stack.url}/v1",
            "REGION": "eu-west-1",
            "VERSION": "1.2.3",
            "TAG_KEY": "ssh",
            "NGROK_DOWNLOAD": f"{self.download.url}/ngrok-{{arch}}.tgz",
            "NGROK_SHA256": "",
            "ROOT": str(self.root),
            "PORT": str(self.sshd.port),
            "WORKER": hashlib.sha256((PROGRAMS / "worker.py").read_bytes()).hexdigest(),
            **self.settings,
        }
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": SESSION,
            "AWS_ENDPOINT_URL_SAGEMAKER": self.stack.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NGROK_STAND_IN": str(self.clouds),
            "LC_ALL": "C.UTF-8",
            **self.environment,
        }
        program = self.root / "opt/notebook-ssh/agent.py"
        words = [f"NOTEBOOK_SSH_{name}={value}" for name, value in settings.items()]
        with (self.aside / "stderr").open("ab") as errors:
            agent = subprocess.Popen([python, "-I", program, *words], env=environment, stderr=errors, cwd="/")
        self.agents.append(agent)
        return agent

    def cloud(self, **faults: Any) -> None:
        """What goes wrong at ngrok from now on (local/notebook/ngrok_stand_in.py); nothing, when nothing is named."""
        new = self.clouds / "new"
        new.write_text(json.dumps(faults))
        new.replace(self.clouds / "faults.json")

    def refuse(self, number: int | None) -> None:
        """ngrok refuses every session with this error number; None admits them again."""
        (self.clouds / "refusal").write_text(str(number or ""))

    def stop(self) -> None:
        """End every agent, and see that it ends."""
        for agent in self.agents:
            if agent.poll() is None:
                agent.send_signal(signal.SIGTERM)
        for agent in self.agents:
            agent.wait(LIMIT_S)

    def run(self, command: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of people's commands as they do, from a directory of theirs, or from `cwd`."""
        program = self.root / "usr/local/bin" / command
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, cwd=cwd or self.home, timeout=LIMIT_S, check=False
        )

    def status(self) -> dict[str, Any]:
        """What `ssh-status` reads, or {}."""
        try:
            text = (self.root / "run/notebook-ssh/worker/status.json").read_text()
            return dict(json.loads(text))
        except FileNotFoundError:
            return {}

    def connected(self) -> dict[str, Any]:
        """The first report that says so, waited for."""
        return until(
            lambda: next((r for r in self.stack.reports if r["phase"] == "connected"), None),
            "connected",
            self,
        )

    def told(self) -> str:
        """Everything that was logged, for a failing test's message."""
        files = [self.aside / "stderr", self.log, self.ngrok_log]
        return "\n".join(f"--- {file.name}\n{file.read_text()}" for file in files if file.exists())

    def __enter__(self) -> Notebook:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.download.__exit__(None, None, None)
