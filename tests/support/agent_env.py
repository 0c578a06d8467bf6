"""The agent's environment in its tests: a notebook in a directory, the stack's API, sshd, and ngrok's download.

Nothing here depends on how the agent works; it follows docs/protocol.md, OpenSSH and ngrok.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
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
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import processes
from notebook.metadata_service import MetadataService
from notebook_ssh.controllers.agent_layer import worker_program
from notebook_ssh.errors import InvalidReportError
from notebook_ssh.reports.parse import read_report
from patience import LIMIT_S
from sshd import start_sshd

PROJECT = Path(__file__).resolve().parents[2]
PROGRAMS = PROJECT / "layers" / "notebook_agent"
STAND_IN = PROJECT / "local" / "notebook" / "ngrok_stand_in.py"
NAME = "Research-1"
ARN = f"arn:aws:sagemaker:eu-west-1:111122223333:notebook-instance/{NAME.lower()}"
ACCESS, SECRET, SESSION = "AKIAEXAMPLE", "secret-of-the-role", "session-of-the-role"
TOKEN = "2abcDEFghiJKLmnoPQRstuVWXyz_3T5yQ7example"

MACHINE = os.environ.get("AGENT_MACHINE", "")
"""What is unusual about the notebook in every test (test_agent_machines.py): `late proxy`, `clock ahead`, `clock behind`."""
CLOCKS = {"clock ahead": -86_400, "clock behind": 86_400}
"""Seconds by which the stack's clock is ahead of such a notebook's."""

T = TypeVar("T")


class HasLogs(Protocol):
    """An object that can return what was logged."""

    def logs(self) -> str:
        """Return all of it, for the message of a failed test."""


def wait_until(condition: Callable[[], T | None], description: str, source: HasLogs | None = None) -> T:
    """Return the first true value of `condition`; fail with `description` and the logs if there is none (patience.py)."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {LIMIT_S:g} s: {description}\n{source.logs() if source else ''}")


WORKER = worker_program(PROGRAMS)
"""The worker's program, as the stack sends it."""


def load_agent() -> ModuleType:
    """Load agent.py as a new module, with the settings of the environment."""
    return _load("agent", PROGRAMS / "agent.py")


class WorkerModules:
    """The modules of the package worker/, new ones, which use the agent that was loaded last.

    An attribute is that of the module which has it; setting one sets it in every module that has it.
    """

    __slots__ = ("modules",)  # no __dict__, which monkeypatch would take for the attributes
    modules: list[ModuleType]

    def __init__(self) -> None:
        for name in [each for each in sys.modules if each.split(".")[0] == "worker"]:
            del sys.modules[name]
        package = _load("worker", PROGRAMS / "worker" / "__init__.py")
        names = sorted(path.stem for path in (PROGRAMS / "worker").glob("[!_]*.py"))
        modules = [package, *(importlib.import_module(f"worker.{name}") for name in names)]
        object.__setattr__(self, "modules", modules)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._having(name)[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        for module in self._having(name):
            setattr(module, name, value)

    def _having(self, name: str) -> list[ModuleType]:
        having = [module for module in self.modules if hasattr(module, name)]
        if not having or name.startswith("__"):
            raise AttributeError(f"no module of the worker has {name}")
        return having


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def metadata_address() -> str:
    """Return the address of an instance-metadata service with the role's credentials; it runs as long as the tests."""
    service = MetadataService("role", {"key": ACCESS, "secret": SECRET, "token": SESSION, "expires": time.time() + 1e6})
    service.start()
    return service.address


def write_identity(root: Path) -> None:
    """Write the file that identifies the notebook, as SageMaker does."""
    path = root / "opt/ml/metadata/resource-metadata.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"ResourceArn": ARN, "ResourceName": NAME}))


def create_file_system(root: Path) -> None:
    """Create the files of a notebook that starts: all but the volume is new. Without host keys."""
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
    write_identity(root)
    shutil.copy(PROGRAMS / "agent.py", root / "opt/notebook-ssh")
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    for name in ("systemctl", "systemd-run"):  # the agent must start nothing of this machine
        (root / "usr/bin" / name).write_text("#!/bin/sh\nexit 1\n")
        (root / "usr/bin" / name).chmod(0o755)


def make_reply(mode: str = "ngrok", **changes: Any) -> dict[str, Any]:
    """Return the stack's reply (docs/protocol.md) to a notebook in `mode`, in several (`eice ngrok`), or off."""
    modes = [] if mode == "off" else mode.split()
    reply: dict[str, Any] = {"notebook": NAME, "modes": modes, "mode": mode, "sync_after": 60}
    reply |= {"until": None, "problem": None}
    reply["authorized_keys"] = []
    if "ngrok" in modes:
        reply["ngrok"] = {"url": None, "token_version": "v1", "token": TOKEN}
    if "bastion" in modes:
        reply["bastion"] = {"host": "bastion.example.com", "user": "jump", "private_ip": "10.0.3.7"}
    if "eice" in modes:
        reply["eice"] = {
            "id": "eice-0123456789abcdef0",
            "dns_name": "eice-0123456789abcdef0.0123.ec2-instance-connect-endpoint.eu-west-1.amazonaws.com",
            "private_ip": "10.0.3.7",
        }
    return reply | changes


def build_reply(report: dict[str, Any], reply: dict[str, Any], now: float, worker: str) -> dict[str, Any]:
    """Return `reply` to `report`, with the program `worker` if it is requested, and the token only if it is another one."""
    complete = reply | {"server_time": int(now)}
    if report.get("worker") and complete["mode"] != "off":
        complete["worker"] = worker
    if "ngrok" in complete and complete["ngrok"]["token_version"] == report.get("token_version"):
        complete["ngrok"] = {name: value for name, value in complete["ngrok"].items() if name != "token"}
    return complete


def make_public_key(comment: str) -> str:
    """Return a new Ed25519 public key, as a line."""
    data = b"\0\0\0\x0bssh-ed25519\0\0\0 " + os.urandom(32)
    return f"ssh-ed25519 {base64.b64encode(data).decode()} {comment}\n"


class Server:
    """An HTTP server on a free port of 127.0.0.1, in a thread. Subclasses implement `respond`.

    clock_offset: seconds by which its clock is ahead.
    """

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def handle_request(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                status, content = outer.respond(self.command, self.path, dict(self.headers), body)
                self.send_response_only(status)
                self.send_header("Date", formatdate(outer.now(), usegmt=True))
                self.send_header("Content-Length", str(len(content)))
                if status // 100 == 3:
                    self.send_header("Location", f"{outer.url}/elsewhere")
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = handle_request  # noqa: N815  (http.server names them)

            def log_message(self, *args: Any) -> None:
                """Log nothing: the tests check what was received."""

        self.clock_offset = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def now(self) -> float:
        """Return the time that its responses show."""
        return time.time() + self.clock_offset

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Return (status, body) for one request."""
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

    reply: the reply from now on. status: another HTTP status than 200, with `error_body` as its body.
    reports: the reports received, oldest first. tags: what ListTags returns, or None if it is down too; signed_tags: of
    each request for them, whether it is the role's.
    gate: if set, each report waits for it; waiting: how many have waited. address: the one that callers use, if it is
    not the server's own.
    """

    def __init__(self) -> None:
        self.reply = make_reply("off")
        self.status, self.error_body = 200, b'{"error": "later", "message": "later"}'
        self.reports: list[dict[str, Any]] = []
        self.received_at: list[float] = []
        self.waiting = 0
        self.bodies: list[bytes] = []
        self.tags: dict[str, str] | None = None
        self.signed_tags: list[bool] = []
        self.gate: threading.Event | None = None
        self.worker = WORKER
        super().__init__()
        self.clock_offset = CLOCKS.get(MACHINE, 0)
        self.address = self.url

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if headers.get("X-Amz-Target") == "SageMaker.ListTags":
            return self._list_tags(headers, body)
        assert (method, path) == ("POST", f"/v1/notebooks/{NAME}/report")
        if not self._is_signed(path, headers, body):
            return 403, b'{"message": "The request signature we calculated does not match"}'
        if self.gate:
            self.waiting += 1
            self.gate.wait(LIMIT_S)
        self.bodies.append(body)
        self.received_at.append(time.monotonic())
        report = json.loads(body)
        self.reports.append(report)
        try:
            read_report(body, int(time.time() + self.clock_offset), allow_loopback=True)
        except InvalidReportError as error:
            return 400, json.dumps({"error": error.field, "message": str(error)}).encode()
        if self.status != 200 or "mode" not in self.reply:
            return self.status, self.error_body
        return 200, json.dumps(build_reply(report, self.reply, time.time() + self.clock_offset, self.worker)).encode()

    def _list_tags(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Return one page of tags, 50 in each, as SageMaker does."""
        if self.tags is None:
            return 503, b"{}"
        self.signed_tags.append(
            "/sagemaker/aws4_request" in headers["Authorization"] and ACCESS in headers["Authorization"]
        )
        if not self.signed_tags[-1]:
            return 403, b'{"__type": "UnrecognizedClientException"}'
        start = int(json.loads(body).get("NextToken") or 0)
        page = list(self.tags.items())[start : start + 50]
        answer: dict[str, Any] = {"Tags": [{"Key": key, "Value": value} for key, value in page]}
        if start + 50 < len(self.tags):
            answer["NextToken"] = str(start + 50)
        return 200, json.dumps(answer).encode()

    def _is_signed(self, path: str, headers: dict[str, str], body: bytes) -> bool:
        date = headers["X-Amz-Date"]
        signed_at = time.mktime(time.strptime(date, "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(signed_at - time.time() - self.clock_offset) > 300:
            return False
        request = AWSRequest("POST", self.address + path, data=body, headers={"Content-Type": headers["Content-Type"]})
        request.context["timestamp"] = date
        signer = SigV4Auth(Credentials(ACCESS, SECRET, SESSION), "execute-api", "eu-west-1")
        request.headers["X-Amz-Date"] = date
        request.headers["X-Amz-Security-Token"] = SESSION
        expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        return headers["Authorization"].endswith(f"Signature={expected}")

    def last_report(self) -> dict[str, Any]:
        """Return the last report, or {}."""
        return self.reports[-1] if self.reports else {}


class Download(Server):
    """The server that ngrok's agent is downloaded from. archive: its bytes, b"" for 404. requests: how many there were."""

    def __init__(self) -> None:
        self.archive, self.requests = ngrok_archive(), 0
        super().__init__()

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self.requests += 1
        return (200, self.archive) if self.archive else (404, b"no such page")


class Proxy(Server):
    """An HTTP proxy for the `servers`, by host, the stack first. requested: the hosts that were requested through it."""

    def __init__(self, servers: dict[str, Server]) -> None:
        self.servers, self.requested = servers, list[str]()
        super().__init__()

    def now(self) -> float:
        """Return the stack's time: a proxy passes the Date of a response on."""
        return next((server.now() for server in self.servers.values()), time.time())

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        address = urlsplit(path)
        self.requested.append(address.netloc)
        return self.servers[address.netloc].respond(method, address.path, headers, body)


def ngrok_archive(program: str | None = None) -> bytes:
    """Return a .tgz as ngrok ships it, with the stand-in (or `program`) as `ngrok`."""
    text = (program or "#!/bin/sh\n" + stand_in_command()).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("ngrok")
        entry.size, entry.mode = len(text), 0o755
        archive.addfile(entry, io.BytesIO(text))
    return packed.getvalue()


def stand_in_command() -> str:
    """Return the shell line that executes the stand-in."""
    return f"exec '{sys.executable}' '{STAND_IN}' \"$@\"\n"


class Sshd:
    """A real sshd of this user on a free port of 127.0.0.1. keys: the file that it reads keys from."""

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


def scan_host_key(port: int) -> str:
    """Return the output of ssh-keyscan for a port of 127.0.0.1."""
    command = ["ssh-keyscan", "-p", str(port), "-t", "ed25519", "127.0.0.1"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout


def free_port() -> int:
    """Return a port of 127.0.0.1 on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NotebookHost:
    """A notebook instance whose root directory is a folder; the agent runs in it as on a real one."""

    def __init__(self, root: Path, stack: Stack, sshd: Sshd, scratch: Path | None = None) -> None:
        """scratch: a folder for the test's own files; by default the root itself."""
        self.root, self.stack, self.sshd, self.scratch = root, stack, sshd, scratch or root
        self.home = root / "home" / "ec2-user"
        self.volume = self.home / "SageMaker"
        self.instructions = self.volume / "SSH_INSTRUCTIONS"
        self.config = self.volume / ".ngrok" / "config.yml"
        self.own_config = self.volume / ".notebook-ssh" / "ngrok.yml"
        self.authorized_keys = self.home / ".ssh" / "authorized_keys"
        self.own_keys = self.volume / "ssh" / "authorized_keys"
        self.log = root / "var" / "log" / "notebook-ssh.log"
        self.ngrok_log = root / "var" / "log" / "ngrok.log"
        self.ngrok_cloud = self.scratch / "ngrok's cloud"
        self.ngrok_cloud.mkdir(parents=True)
        self.download = Download()
        self.environment: dict[str, str] = {}
        self.settings: dict[str, str] = {}
        self.agents: list[subprocess.Popen[bytes]] = []
        self.proxy: Proxy | None = None
        if MACHINE == "late proxy":
            own = {f"127.0.0.1:{server.port}": server for server in (stack, self.download)}
            self.proxy = Proxy({"stack.example.com": stack, **own})
            self.settings["API"], stack.address = "http://stack.example.com/v1", "http://stack.example.com"
        self.boot()

    def boot(self) -> None:
        """Start the instance: all but the volume is new, including the host keys."""
        create_file_system(self.root)
        shutil.copy(self.sshd.folder / "ssh_host_ed25519_key.pub", self.root / "etc/ssh")

    def start(self, python: str = os.environ.get("AGENT_PYTHON") or sys.executable) -> subprocess.Popen[bytes]:
        """Start the agent as the block does; it keeps running until the test ends.

        $AGENT_PYTHON is the path of another interpreter, to test the agent with an older Python.
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
            "WORKER": hashlib.sha256(WORKER.encode()).hexdigest(),
            **self.settings,
        }
        environment = {
            "PATH": f"{self.root}/usr/bin:{os.environ['PATH']}",
            "AWS_ACCESS_KEY_ID": "another-identity-of-the-user",
            "AWS_SECRET_ACCESS_KEY": "which-does-not-report",
            "AWS_ENDPOINT_URL_SAGEMAKER": self.stack.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata_address(),
            "NGROK_STAND_IN": str(self.ngrok_cloud),
            "LC_ALL": "C.UTF-8",
            **self.environment,
        }
        program = self.root / "opt/notebook-ssh/agent.py"
        words = [f"NOTEBOOK_SSH_{name}={value}" for name, value in settings.items()]
        with (self.scratch / "stderr").open("ab") as errors:
            agent = subprocess.Popen([python, "-I", program, *words], env=environment, stderr=errors, cwd="/")
        self.agents.append(agent)
        if self.proxy:
            # As the owner's script does, below the block: the agent has failed to report by then.
            wait_until(lambda: "no reply: " in self.logs(), "the stack cannot be reached directly", self)
            (self.root / "etc/environment").write_text(f"http_proxy={self.proxy.url}\nno_proxy=169.254.169.254\n")
        return agent

    def set_ngrok_faults(self, **faults: Any) -> None:
        """Set the faults of ngrok (local/notebook/ngrok_stand_in.py); without arguments, clear them."""
        new = self.ngrok_cloud / "new"
        new.write_text(json.dumps(faults))
        new.replace(self.ngrok_cloud / "faults.json")

    def set_ngrok_error(self, number: int | None) -> None:
        """Let ngrok refuse every session with this error number; None: accept them again."""
        (self.ngrok_cloud / "refusal").write_text(str(number or ""))

    def stop(self) -> None:
        """Terminate every agent, and wait for its exit."""
        for agent in self.agents:
            if agent.poll() is None:
                agent.send_signal(signal.SIGTERM)
        for agent in self.agents:
            agent.wait(LIMIT_S)

    def run_command(self, command: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of the user's commands as the user does, from the home directory or from `cwd`."""
        program = self.root / "usr/local/bin" / command
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, cwd=cwd or self.home, timeout=LIMIT_S, check=False
        )

    def status(self) -> dict[str, Any]:
        """Return what `ssh-status` reads, or {}."""
        try:
            text = (self.root / "run/notebook-ssh/worker/status.json").read_text()
            return dict(json.loads(text))
        except FileNotFoundError:
            return {}

    def wait_connected(self) -> dict[str, Any]:
        """Wait for a report with the phase `connected`, and return the first."""
        return wait_until(
            lambda: next((r for r in self.stack.reports if r["phase"] == "connected"), None),
            "connected",
            self,
        )

    def logs(self) -> str:
        """Return everything that was logged, for the message of a failed test."""
        files = [self.scratch / "stderr", self.log, self.ngrok_log]
        return "\n".join(f"--- {file.name}\n{file.read_text()}" for file in files if file.is_file())

    def __enter__(self) -> NotebookHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.download.__exit__(None, None, None)
        if self.proxy:
            self.proxy.__exit__(None, None, None)


def processes_of(notebook: NotebookHost) -> dict[int, str]:
    """Return the processes, by id, whose command line has this notebook's folder; without report senders and zombies."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(notebook.root) in line and not line.endswith("send-report "):
            found[int(entry.parent.name)] = line
    return found


def tunnels_of(notebook: NotebookHost) -> int:
    """Return how many ngrok agents run for this notebook."""
    return sum("start --all" in line for line in processes_of(notebook).values())
