"""Faults on purpose: a test names a call, and the embedded AWS refuses it, kills the process that makes it, or counts it.

`PUT /_faults` takes a list of `Fault` as JSON in place of the faults before; `GET /_faults` tells how often each was met.
`Emulator.faults` in process.py asks for them.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import processes
from emulator.asgi import Application, Message, Receive, Send, access_key, header, read_body, respond, unread

PATH = "/_faults"


class Effect(StrEnum):
    """What becomes of a call."""

    REFUSE = "refuse"  # it has no effect, and is answered with the fault's code
    KILL_BEFORE = "kill before"  # the process that makes it dies by SIGKILL, and the call has no effect
    KILL_AFTER = "kill after"  # the call has its effect, and the process dies without hearing the answer
    COUNT = "count"  # nothing, but that it is counted


@dataclass(slots=True)
class Fault:
    """call: as `X-Amz-Target` ends, `SageMaker.ListTags`; a name that ends in a dot means all calls to the service.

    by: part of the caller's ARN, such as a function's name. about: part of the request's body. skip: calls that go
    through before. times: calls that meet it. code: the error of REFUSE. met: how many calls have met it.
    """

    call: str
    effect: Effect
    by: str = ""
    about: str = ""
    skip: int = 0
    times: int = 1
    code: str = "ThrottlingException"
    met: int = 0

    def meets(self, call: str, caller: str, body: str) -> bool:
        """Whether this call meets the fault; it is counted."""
        named = call.startswith(self.call) if self.call.endswith(".") else call == self.call
        meant = named and self.by in caller and self.about in body
        if not meant or self.met >= self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.met += 1
        return True


class Faults:
    """The ASGI application `inner` with faults. port: where it is served. caller: the ARN behind an access key."""

    def __init__(self, inner: Application, port: int, caller: Callable[[str], str]) -> None:
        self._inner, self._port, self._caller = inner, port, caller
        self._faults: list[Fault] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH:
            await self._ask(scope["method"], receive, send)
            return
        if not self._faults or scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        body = await read_body(receive)
        receive = unread(body, receive)
        fault = self._fault(scope, body.decode(errors="replace"))
        match fault:
            case None | Fault(effect=Effect.COUNT):
                await self._inner(scope, receive, send)
            case Fault(effect=Effect.REFUSE):
                told = {"__type": fault.code, "message": "Rate exceeded"}
                await respond(send, 400, told)
            case Fault(effect=effect):
                if effect is Effect.KILL_AFTER:
                    await self._inner(scope, receive, _unheard)
                kill_caller(scope["client"][1], self._port)

    def _fault(self, scope: Message, body: str) -> Fault | None:
        target = header(scope, "x-amz-target")
        service = target.rpartition(".")[0].partition("_")[0].rpartition(".")[2]
        call = f"{service}.{target.rpartition('.')[2]}"
        caller = self._caller(access_key(scope))
        return next((fault for fault in self._faults if fault.meets(call, caller, body)), None)

    async def _ask(self, method: str, receive: Receive, send: Send) -> None:
        if method == "PUT":
            given = json.loads(await read_body(receive))
            self._faults = [Fault(**{**each, "effect": Effect(each["effect"])}) for each in given]
        await respond(send, 200, [asdict(fault) for fault in self._faults])


def kill_caller(port: int, ours: int) -> None:
    """Kill the process below this one whose connection goes from `port` of this machine to `ours`, and wait for nothing.

    LookupError when no descendant of this process has such a connection.
    """
    inode = _inode(port, ours)
    for process in processes.descendants():
        if inode and any(_leads_to(link, f"socket:[{inode}]") for link in Path(f"/proc/{process}/fd").glob("*")):
            os.kill(process, signal.SIGKILL)
            return
    raise LookupError(f"no process of ours calls from port {port}")


def _inode(local: int, remote: int) -> str | None:
    """The socket's inode (proc(5), /proc/net/tcp: addresses in hexadecimal, the inode in the tenth column)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        ports = tuple(int(columns[place].rpartition(":")[2], 16) for place in (1, 2))
        if ports == (local, remote):
            return columns[9]
    return None


def _leads_to(link: Path, target: str) -> bool:
    try:
        return os.readlink(link) == target
    except OSError:  # closed in between
        return False


async def _unheard(_message: Message) -> None:
    """An answer that nobody hears."""
