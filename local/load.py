"""Load on the local API: a fleet that reports and people who look things up, at a given pace, and what that costs.

    make load NOTEBOOKS=1000 LOOKUPS=50 SECONDS=60      (its first part)

Every request is signed, goes over HTTP to the deployed API, and is answered by the deployed functions. Requests leave
when they are due, whether or not earlier ones were answered, and their time counts from that moment.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import math
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import processes
from emulator.process import REGION, Emulator
from emulator.stack import Stack, deploy
from environment import LocalEnv
from notebook_ssh.adapters.attributes import key, to_attribute
from notebook_ssh.adapters.codec import encode_record
from notebook_ssh.adapters.table import NOTEBOOK
from notebook_ssh.model.record import NotebookState, Record
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.reports.parse import read_report
from patience import LIMIT_S

ROLE = "fleet"
ROUND = 60
"""Seconds in which every notebook reports once; by default they do so every 300."""

ROUTES = ("", "/ssh", "/address", "/ssh-config", "/known-hosts", "/doctor")
CALLERS = 4
"""Connections that are kept open, each with a thread of its own: the emulator starts a process for each that waits."""

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKi4A8Xvhl0zGLGZ5X0yAU4GvB8c5EwCkG5bX2nN3xYz"
BOOTED = int(time.time()) - 500
LOOK = 2
"""Seconds between two looks at memory."""


@dataclass(frozen=True, slots=True)
class Request:
    """due: seconds after the beginning. wanted: what the answer must be; empty: anything."""

    due: float
    kind: str
    method: str
    path: str
    body: bytes = b""
    wanted: bytes = b""


@dataclass(slots=True)
class Outcome:
    """seconds: of every answered request, from the moment when it was due, by kind. wrong: others, by kind and reason."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"report": [], "lookup": []})
    wrong: Counter[tuple[str, str]] = field(default_factory=Counter)
    memory: list[tuple[int, float, float, int]] = field(default_factory=list)
    """Seconds since the beginning, MB of the emulator, MB of the functions, functions' processes."""

    @property
    def growth(self) -> float:
        """MB that the emulator and the functions have grown by since the last function's process was started."""
        most = max(each[3] for each in self.memory)
        whole = [each for each in self.memory if each[3] == most]
        return whole[-1][1] + whole[-1][2] - whole[0][1] - whole[0][2]


def planned(notebooks: int, lookups: float, seconds: float) -> list[Request]:
    """What is to be sent, in order. A notebook's reports are a round apart, and the fleet's are spread over the round."""
    chance = random.Random(1)  # noqa: S311  drawn alike each time, and nothing secret
    requests = []
    for number in range(notebooks):
        first = chance.uniform(0, ROUND)
        for turn in itertools.count():
            due = first + turn * ROUND
            if due >= seconds:
                break
            path = f"/notebooks/box-{number}/report"
            requests.append(Request(due, "report", "POST", path, a_report(number, turn + 2)))
    for turn in range(int(lookups * seconds)):
        path = f"/notebooks/box-{chance.randrange(notebooks)}{chance.choice(ROUTES)}"
        requests.append(Request(turn / lookups, "lookup", "GET", path))
    return sorted(requests, key=lambda each: each.due)


def a_report(number: int, turn: int, booted_at: int = BOOTED) -> bytes:
    """What an agent tells whose tunnel stands (docs/protocol.md). booted_at: epoch seconds."""
    told = {
        "agent": "1.0",
        "boot": f"boot-{number}",
        "booted_at": booted_at,
        "sequence": turn,
        "modes": ["ngrok"],
        "phase": "connected",
        "host": "0.tcp.ngrok.io",
        "port": 10_000 + number,
        "host_keys": [HOST_KEY],
        "keys": {"own": 1, "central": 0, "rejected": []},
        "sessions": {"open": 0, "active_at": None},
        "problem": None,
        "token_version": None,
    }
    return json.dumps(told).encode()


class Fleet:
    """The deployed stack, the role of a fleet of notebooks, and a person who asks for them."""

    def __init__(self, emulator: Emulator, **parameters: str) -> None:
        self.env = LocalEnv(emulator)
        self.emulator: Emulator = self.env.emulator
        self.emulator.start()
        self.stack: Stack = deploy(self.emulator, "load", SweepMinutes="60", **parameters)
        self.emulator.client("secretsmanager").put_secret_value(
            SecretId=self.stack.outputs["SecretArn"], SecretString="token"
        )
        role = self.env.make_role(ROLE, "sagemaker.amazonaws.com")
        given = self.emulator.client("sts").assume_role(RoleArn=role, RoleSessionName="SageMaker")["Credentials"]
        self.notebooks = Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
        person = self.env.make_user("someone")
        self.users = Credentials(person["AWS_ACCESS_KEY_ID"], person["AWS_SECRET_ACCESS_KEY"])

    def fill(self, notebooks: int) -> None:
        """Let the table know `notebooks` notebooks, which connected once."""
        now, table = int(time.time()), self.stack.outputs["TableName"]
        put = [{"PutRequest": {"Item": self._item(number, now)}} for number in range(notebooks)]
        client = self.emulator.client("dynamodb")
        for start in range(0, notebooks, 25):  # as many as one request takes
            client.batch_write_item(RequestItems={table: put[start : start + 25]})

    def _item(self, number: int, now: int) -> dict[str, Any]:
        """A notebook's record with its first report, so that the next one is news of nothing but its time."""
        name = f"box-{number}"
        record = Record(
            name=name,
            arn=self.env.arn(name),
            role=ROLE,
            spec=NotebookSpec(modes=(Mode.NGROK,)),
            state=NotebookState.IN_SERVICE,
            state_since=now - 500,
            started_at=now - 600,
            lifecycle_config="shared",
            block_since=now - 5000,
            observed_at=now,
            report=replace(read_report(a_report(number, 1), now, allow_loopback=False).report, connected_since=now),
        )
        return {**key(NOTEBOOK, name), **{part: to_attribute(value) for part, value in encode_record(record).items()}}

    def warm(self, first: int) -> None:
        """Let each caller ask both functions something, so that their processes run; with notebooks from `first` on."""
        for kind in ("report", "lookup"):
            asked = [
                Request(0, kind, "POST", f"/notebooks/box-{number}/report", a_report(number, 2))
                if kind == "report"
                else Request(0, kind, "GET", f"/notebooks/box-{number}")
                for number in range(first, first + CALLERS)
            ]
            outcome = self.load(asked, seconds=0)
            if outcome.wrong:
                raise SystemExit(f"the functions do not answer: {outcome.wrong}")

    def load(self, requests: list[Request], seconds: float) -> Outcome:
        """Send `requests` when they are due, and read the memory concurrently."""
        outcome, waiting, lock = Outcome(), iter(requests), threading.Lock()
        began = time.monotonic()
        callers = [threading.Thread(target=self._call, args=(waiting, lock, began, outcome)) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for turn in range(int(seconds // LOOK)):
            time.sleep(max(0.0, began + turn * LOOK - time.monotonic()))
            outcome.memory.append((round(time.monotonic() - began), *self._memory()))
        for caller in callers:
            caller.join()
        outcome.memory.append((round(time.monotonic() - began), *self._memory()))
        return outcome

    def _call(self, waiting: Iterator[Request], lock: threading.Lock, began: float, outcome: Outcome) -> None:
        line = self._line()
        while True:
            with lock:
                request = next(waiting, None)
            if request is None:
                line.close()
                return
            time.sleep(max(0.0, began + request.due - time.monotonic()))
            reason = self._ask(line, request)
            took = time.monotonic() - began - request.due
            with lock:
                if reason:
                    outcome.wrong[request.kind, reason] += 1
                else:
                    outcome.seconds[request.kind].append(took)

    def look_up(self, path: str) -> bytes:
        """What the API answers to a person who asks for `path`; empty when it is not 200."""
        with contextlib.closing(self._line()) as line:
            status, told = self._exchange(line, Request(0, "lookup", "GET", path))
        return told if status == 200 else b""

    def _line(self) -> http.client.HTTPConnection:
        address = urlsplit(self.stack.api)
        return http.client.HTTPConnection(address.hostname or "", address.port, timeout=LIMIT_S)

    def _ask(self, line: http.client.HTTPConnection, request: Request) -> str:
        """Empty when it was answered as it should be, else what happened."""
        try:
            status, told = self._exchange(line, request)
        except (OSError, http.client.HTTPException) as error:
            line.close()
            return type(error).__name__
        good = status == 200 and request.wanted in (b"", told.strip())
        return "" if good else f"{status} {told[:80]!r}"

    def _exchange(self, line: http.client.HTTPConnection, request: Request) -> tuple[int, bytes]:
        url = self.stack.api + request.path
        headers = {"Content-Type": "application/json"} if request.body else {}
        signed = AWSRequest(request.method, url, headers, request.body)
        SigV4Auth(self.users if request.kind == "lookup" else self.notebooks, "execute-api", REGION).add_auth(signed)
        line.request(request.method, urlsplit(url).path, request.body, dict(signed.headers.items()))
        reply = line.getresponse()
        return reply.status, reply.read()

    def _memory(self) -> tuple[float, float, int]:
        """MB of the emulator and of the functions below it, and how many those are."""
        below = [megabytes(process) for process in processes.descendants(self.emulator.id)]
        return megabytes(self.emulator.id), sum(below), len(below)


def megabytes(process: int) -> float:
    """Resident memory of a process (proc(5), VmRSS); 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0)


def at(part: float, values: list[float]) -> float:
    """The value that `part` of all are below or at."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def show(outcome: Outcome, took: float) -> None:
    """The table that `make load` prints."""
    print(f"{'':8}{'requests':>10}{'errors':>8}{'per second':>12}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'most ms':>9}")
    for kind, seconds in outcome.seconds.items():
        errors = sum(number for (each, _), number in outcome.wrong.items() if each == kind)
        times = "".join(f"{at(part, seconds) * 1000:9.0f}" for part in (0.5, 0.9, 0.99, 1)) if seconds else ""
        print(f"{kind:8}{len(seconds) + errors:10,}{errors:8,}{len(seconds) / took:12.1f}{times}")
    for (kind, reason), number in outcome.wrong.most_common(5):
        print(f"{number:,} × {kind}: {reason}")
    print(f"\n{'second':>8}{'emulator MB':>14}{'functions MB':>14}{'processes':>11}")
    step = max(1, len(outcome.memory) // 8)
    for second, emulator, functions, number in [*outcome.memory[:-1:step], outcome.memory[-1]]:
        print(f"{second:8}{emulator:14.0f}{functions:14.0f}{number:11}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="local/load.py")
    parser.add_argument("--notebooks", type=int, default=1000)
    parser.add_argument("--lookups", type=float, default=50, help="a second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--most-growth", type=float, default=math.inf, help="MB; more is a failure")
    given = parser.parse_args()
    emulator = Emulator()
    try:
        fleet = Fleet(emulator)
        fleet.fill(given.notebooks + CALLERS)  # the last ones warm up
        fleet.warm(given.notebooks)
        began = time.monotonic()
        outcome = fleet.load(planned(given.notebooks, given.lookups, given.seconds), given.seconds)
        show(outcome, time.monotonic() - began)
    except processes.DidNotStartError as problem:
        print(f"It stopped here: {problem}")
        return 1
    finally:
        emulator.close()
    print(f"\nGrown by {outcome.growth:.0f} MB since the last function was started.")
    return 1 if outcome.wrong or outcome.growth > given.most_growth else 0


if __name__ == "__main__":
    sys.exit(main())
