"""Starting and ending the embedded AWS from another process, and being a client of it."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import botocore.session
from botocore.config import Config

import processes
from patience import LIMIT_S

LOCAL = Path(__file__).resolve().parent.parent
PROJECT = LOCAL.parent
BUILT = PROJECT / ".build" / "local"
"""What later runs need not make again: the artifacts, and in UNPACKED what the layers hold."""
UNPACKED = BUILT / "unpacked"
PYTHON = PROJECT / ".venv" / "emulator" / "bin" / "python"
"""The interpreter of the emulator's own environment (`make environments` makes it)."""

ACCOUNT = "123456789012"
REGION = "us-east-1"
ROOT_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
"""The account's root user, whom the emulator lets do anything. Only the admin of a run uses them."""


class Emulator:
    """An embedded AWS with state of its own, on a free port of 127.0.0.1.

    home: everything it writes is below this directory, a new one in the system's temporary folder unless one is given.
    `close` removes it, unless told to keep the logs. machines: whether notebooks boot; without, they have their statuses alone.
    api_port: where notebooks reach the API, when that is not the emulator's own port.
    """

    def __init__(
        self, tag_events: str = "both", *, machines: bool = True, api_port: int = 0, home: Path | None = None
    ) -> None:
        # Short, because a notebook's agent has a socket below it and such a path has at most 107 bytes (unix(7)).
        self.home = home or Path(tempfile.mkdtemp(prefix="notebook-ssh-"))
        self.log = self.home / "emulator.log"
        self.tag_events, self.machines = tag_events, machines
        self.port = processes.free_port()
        self.api_port = api_port or self.port
        self.endpoint_port = processes.free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._session, self._making = botocore.session.Session(), threading.Lock()
        self._clients: dict[tuple[str, str, str, str | None], Any] = {}

    def start(self) -> Self:
        """Return when it answers. Raises processes.DidNotStartError."""
        processes.reach_the_loopback_directly()
        program = [str(PYTHON), "-X", "utf8", "-m", "emulator.serve", "--port", str(self.port)]
        command = [
            *program,
            "--home",
            str(self.home),
            "--tag-events",
            self.tag_events,
            "--api-port",
            str(self.api_port),
            "--endpoint-port",
            str(self.endpoint_port),
        ]
        if not self.machines:
            command.append("--no-machines")
        self._process = processes.start(
            "the emulated AWS", command, self._answers, log=self.log, bound=False, cwd=LOCAL
        )
        return self

    @property
    def id(self) -> int:
        """The id of its process, below which is whatever it started; 0 when there is none."""
        return self._process.pid if self._process else 0

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process is not None and self._process.poll() is None

    def ended(self) -> str | None:
        """How it ended by itself, with its last words; None while it runs, or when it was never started."""
        status = self._process.poll() if self._process else None
        return (
            None
            if status is None
            else f"the emulated AWS ended {processes.how(status)}{processes.last_words(self.log)}"
        )

    def _answers(self) -> bool:
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            asked.request("GET", "/_ministack/health")
            return asked.getresponse().status == 200
        except OSError:
            return False
        finally:
            asked.close()

    def client(self, service: str, keys: dict[str, str] | None = None) -> Any:
        """A botocore client of `service`, with the `keys` of a user (environment variables), or else the root user's."""
        keys = keys or ROOT_KEYS
        key, secret, token = keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys.get("AWS_SESSION_TOKEN")
        # To read a service's model takes longer than most calls; clients are thread-safe, making them is not.
        with self._making:
            if (service, key, secret, token) not in self._clients:
                self._clients[service, key, secret, token] = self._session.create_client(
                    service,
                    region_name=REGION,
                    endpoint_url=self.endpoint,
                    aws_access_key_id=key,
                    aws_secret_access_key=secret,
                    aws_session_token=token,
                    config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
                )
            return self._clients[service, key, secret, token]

    def waiting(self, queue: str) -> int:
        """Messages in the queue with the address `queue`: visible, in work or held back."""
        told = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
        return sum(int(number) for name, number in told.items() if name.startswith("ApproximateNumberOfMessages"))

    @contextmanager
    def faults(self, *faults: dict[str, Any]) -> Iterator[None]:
        """Let calls fail, or kill their callers, while inside; `faults` are the fields of `emulator.faults.Fault`."""
        self._ask_for(faults)
        try:
            yield
        finally:
            self._ask_for(())

    def faults_met(self) -> list[int]:
        """How often each of the faults asked for was met."""
        return [fault["met"] for fault in self._ask_for(None)]

    def answer(self, fact: str, value: str) -> None:
        """Give the answer `value` to a fact of docs/facts.md from now on (`emulator.answers`).

        Raises ValueError for an unknown one.
        """
        self._change_answers({fact: value})

    @contextmanager
    def answering(self, changes: dict[str, str]) -> Iterator[None]:
        """Give these answers while inside, and then those from before."""
        before = self.answers()
        self._change_answers(changes)
        try:
            yield
        finally:
            self._change_answers({fact: before[fact] for fact in changes})

    def answers(self) -> dict[str, str]:
        """The answers to all facts, as they are given now."""
        return dict(self._request("GET", "/_answers")[1])

    @property
    def answers_file(self) -> Path:
        """The file in which programs that are not the emulator find the answers."""
        return self.home / "answers.json"

    def _change_answers(self, changes: dict[str, str]) -> None:
        status, content = self._request("PUT", "/_answers", changes)
        if status != 200:
            raise ValueError(content["message"])

    def _ask_for(self, faults: tuple[dict[str, Any], ...] | None) -> Any:
        return self._request("GET" if faults is None else "PUT", "/_faults", faults or ())[1]

    def _request(self, method: str, path: str, content: object = None) -> tuple[int, Any]:
        """Status and content of the emulator's own answer."""
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            asked.request(method, path, json.dumps(content))
            answer = asked.getresponse()
            return answer.status, json.load(answer)
        finally:
            asked.close()

    @property
    def private_ports(self) -> Path:
        """The folder that says where port 22 of a private address is (`network.Gate`), as ssh_config(5) says it."""
        return self.home / "private_ports"

    @property
    def authorities(self) -> Path:
        """The file with the authority of the endpoints' certificates."""
        return self.home / "endpoint-authority.pem"

    def notebook_home(self, name: str) -> Path:
        """Where the simulated notebook `name` has its disk and its logs."""
        return self.home / "notebooks" / name.lower()

    def close(self, *, keep_logs: bool = False) -> Path | None:
        """End it and everything it started; remove `home`, or leave only the logs and say where they are, if anywhere."""
        process, self._process = self._process, None
        if process is not None:
            processes.dismiss(process, patience=20)
        kept = self._kept_logs() if keep_logs else None
        shutil.rmtree(self.home, ignore_errors=True)
        return kept

    def _kept_logs(self) -> Path | None:
        """The logs of this run, copied to the project's .build folder; None where nothing can be written."""
        target = PROJECT / ".build" / "logs" / time.strftime("%Y%m%dT%H%M%S")
        try:
            for log in self.home.rglob("*.log"):
                place = target / log.relative_to(self.home)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(log, place)
        except OSError:  # a full disk may be what ended the run
            shutil.rmtree(target, ignore_errors=True)
            return None
        return target
