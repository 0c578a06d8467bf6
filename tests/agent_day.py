"""A day on a notebook with the stack away, in simulated time: the agent's own programs in a world that owns the clock.

    make simulate DAYS=100 SEED=1               the days of seeds 1, 2, …; the first that breaks a promise is shrunk
    make simulate DAYS=1 SEED=7 ONLY=3,19       one day again, with these deeds alone, told as it went

Real are keeper, idle and worker on a folder, each a process in a thread that moves when it is its turn; and the rules by
which the stack reads a report and answers it. Played, at the edge of the programs, are the clock, waiting, the programs
that they start, ngrok with its cloud, sshd, and the network. All that happens is drawn from the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import heapq
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from agent_world import PROGRAMS, TOKEN, a_key, lay_out, program
from builders import a_record
from simulation.errors import BrokenPromise, Killed
from simulation.explore import smallest
from simulation.workers import Baton, Worker

from notebook.ngrok_stand_in import read_configuration
from notebook_ssh.errors import InvalidReportError
from notebook_ssh.model.record import BastionRoute
from notebook_ssh.model.spec import Mode, parse_spec
from notebook_ssh.model.stack import Bastion
from notebook_ssh.reports.report import Accepted, Token, accept, read_report

BEGIN = 1_800_000_000
MINUTE, HOUR = 60, 3_600
AWAY, BACK, END = HOUR, 25 * HOUR, 25.5 * HOUR
"""When the stack goes, when it returns, and when the day is over, in seconds."""

SYNC = 300
DEEDS = 40
"""What happens to a notebook while the stack is away, how often."""

WAYS_TO_BE_AWAY: Sequence[tuple[float, dict[str, Any]]] = (
    (0.1, {"status": 0, "text": "ConnectionRefusedError(111, 'Connection refused')"}),
    (10, {"status": 0, "text": "TimeoutError('timed out')"}),
    (0.3, {"status": 503, "text": '{"message": "Service Unavailable"}'}),
    (0.1, {"status": 403, "text": '{"message": "Forbidden"}'}),
    (0.1, {"status": 200, "text": "<html>please log in</html>"}),
)
"""After how many seconds the courier comes back, with what."""

WISHES = ({"ssh": "ngrok"}, {"ssh": "ngrok", "ssh-ngrok-url": "tcp://1.tcp.ngrok.io:4242"}, {"ssh": "bastion"})

REFUSALS = {108: 60, 334: 60, 4018: 900, 8013: 900, 3208: 900}
"""ngrok's errors, and within how many seconds after it a tunnel is tried anew: what passes by itself each minute, what a
person must clear each quarter of an hour."""

STARTING = 10.0
"""Seconds in which ngrok starts and connects here, with what the agent needs to see it."""
BOOTING = 5.0
"""What a start of the whole agent takes beyond that."""


class Process(Worker):
    """One of our programs, as its parent sees it. due: when it goes on at the latest. hears: whether it does now."""

    def __init__(self, day: Day, kind: str, job: Callable[[], Any]) -> None:
        super().__init__(kind, job, 0, [])
        self.day, self.due, self.hears = day, day.now, _nothing
        self.written = bytearray()
        self.children: list[Any] = []
        self.stdout = self
        self.returncode: int | None = None
        self.in_vain, self.asked = 0, -float(HOUR)

    def read(self, size: int) -> bytes:
        """Wait for so many bytes of its standard output, or for its end."""
        self.day.pause(float("inf"), lambda: self.done or len(self.written) >= size)
        data, self.written[:size] = bytes(self.written[:size]), b""
        return data

    def close(self) -> None:
        """Its output holds nothing open."""

    def kill(self) -> None:
        """End it here and now, and with it all that it started (prctl(2), PR_SET_PDEATHSIG)."""
        for child in self.children:
            child.kill()
        self.doomed = True

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.day.pause(float("inf"), lambda: self.done)


def _nothing() -> bool:
    return False


class Errand:
    """A short-lived child: what it brings back, and after how many seconds."""

    def __init__(self, run: Callable[[dict[str, Any]], tuple[float, dict[str, Any]]], day: Day) -> None:
        self.run, self.day, self.returncode = run, day, 0

    def communicate(self, question: bytes, limit: float) -> tuple[bytes, None]:
        seconds, reply = self.run(json.loads(question))
        if seconds > limit:
            self.day.pause(limit)
            raise subprocess.TimeoutExpired("errand", limit)
        self.day.pause(seconds)
        return json.dumps(reply).encode(), None

    def kill(self) -> None:
        """It has ended."""

    def __enter__(self) -> Errand:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left of it."""


class Became(BaseException):
    """A process has become another program (execve(2))."""


class Ngrok:
    """ngrok's agent: a child whose log is a pipe. place: (host, port) while it is connected."""

    def __init__(self, day: Day) -> None:
        self.day = day
        self.returncode: int | None = None
        self.place: tuple[str, int] | None = None
        self.wish = day.heard
        reading, self.writing = os.pipe()
        self.stdout = open(reading, "rb", 0)  # noqa: SIM115  (the agent closes it)
        self.stdin = self
        self.question = b""

    def write(self, question: bytes) -> None:
        self.question = question

    def __enter__(self) -> Ngrok:
        return self

    def __exit__(self, *_: object) -> None:
        """The question is complete: prepare as worker.py does, and become ngrok."""
        worker = self.day.worker
        with patch.object(worker, "say", self.say):
            try:
                worker.tunnel(json.loads(self.question))
            except Became:
                self.day.after(2, self.connect)
                return
        self.end(0)

    def say(self, text: str, **more: Any) -> None:
        self.print(json.dumps({"msg": text, **more}))

    def print(self, lines: str) -> None:
        """To its standard output, if anybody still reads it: whoever ends it has stopped to do so just before."""
        if self.returncode is None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.writing, lines.encode() + b"\n")

    def connect(self) -> None:
        """Open a session, as far as the cloud allows; what it refuses is final."""
        if self.returncode is not None:
            return
        cloud, configuration = self.day, read_configuration(Path(self.day.worker.NGROK, "config.yml").read_text())
        if cloud.now < cloud.cut_until:
            self.say("failed to reconnect session", err="dial tcp: lookup failed")
            self.day.after(20, self.connect)
            return
        refusal = 105 if configuration.token != cloud.token.value else cloud.refusal()
        if refusal:
            self.print(f"ERROR:  refused.\nERROR:  ERR_NGROK_{refusal}")
            self.end(1)
            return
        wished = next(each.wish for each in configuration.endpoints if each.name == "ssh").removeprefix("tcp://")
        host, _, port = (wished or f"{cloud.chance.randrange(9)}.tcp.ngrok.io:{next(cloud.ports)}").rpartition(":")
        self.place = host, int(port)
        self.say("client session established")
        self.say("started tunnel", name="ssh", url=f"tcp://{host}:{port}")

    def lose(self, seconds: float) -> None:
        """The session is lost, and tried anew after so many seconds."""
        self.place = None
        self.say("session closed, starting reconnect loop", err="session closed")
        self.day.after(seconds, self.connect)

    def end(self, code: int) -> None:
        if self.returncode is None:
            self.returncode, self.place = code, None
            os.close(self.writing)

    def terminate(self) -> None:
        """The agent ends it: only for a reason."""
        self.day.judge_an_end(self)
        self.day.after(0.2, self.kill)

    def kill(self) -> None:
        self.end(-9)

    def wait(self, limit: float = float("inf")) -> int:
        self.day.pause(limit, lambda: self.returncode is not None)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("ngrok", limit)
        return self.returncode


class Day:
    """The world, its clock, and what must never happen in it. `only`: the deeds that are done; None: all."""

    def __init__(self, seed: int, root: Path, only: frozenset[int] | None = None) -> None:
        self.seed, self.root = seed, root
        self.chance = Random(seed)
        self.now = 0.0
        self.story: list[str] = []
        self.counts: Counter[str] = Counter()
        self.broke: BrokenPromise | None = None
        self.baton, self.processes, self.turns = Baton(), list[Process](), 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.ports = itertools.count(10_000)
        # The stack.
        self.key = a_key("ana").strip()
        self.usual = self.tags = {**self.chance.choice(WISHES), "ssh-users": "ana"}
        self.token = Token("v1", TOKEN)
        self.record = a_record(name="Research-1", role="role", way=BastionRoute(open=True, private_ip="10.0.3.7"))
        self.weather: tuple[float, dict[str, Any]] | None = None
        self.accepted = 0.0
        # The notebook.
        self.heard: tuple[dict[str, str], str] = {}, ""
        self.on = self.dated = self.tags_away = False
        self.skew = self.last_refusal = 0
        self.nudged_at = -float(HOUR)
        self.ngrok: Ngrok | None = None
        self.sshd_up = True
        self.disturbed, self.stands_at = 0, 0.0
        self.cut_until = self.refused_until = self.mute_until = 0.0
        self.plan(only)

    # ---- from the first boot to the end

    def plan(self, only: frozenset[int] | None) -> None:
        """Draw the day: when the notebook boots first, what happens, and what is wished when the stack is back."""
        draw = self.chance
        first = draw.choice([0, 0, 0, AWAY + 1])
        self.at(first, self.boot)
        self.at(first + 2 * MINUTE, partial(self.says, first))
        self.at(AWAY, self.leave)
        deeds = sorted(
            (draw.uniform(AWAY + 5 * MINUTE, BACK - 40 * MINUTE), draw.choice(list(KINDS))) for _ in range(DEEDS)
        )
        for number, (moment, deed) in enumerate(deeds):
            size = draw.random()
            if only is None or number in only:
                self.at(moment, partial(self.do, number, deed, size))
        self.at(BACK, self.come_back)
        self.at(BACK + 2 * MINUTE + 15, self.has_reported)
        self.at(BACK + 5 * MINUTE, partial(self.be_off, draw.random() < 0.5))
        self.at(BACK + 7 * MINUTE, self.boot)
        if draw.random() < 0.3:
            self.tags = {**self.usual, "ssh-until": iso(draw.uniform(AWAY, BACK))}
        self.at(END, self.has_told)
        self.at(END, self.stands)

    def play(self) -> None:
        """The whole day. BrokenPromise at the first promise that does not hold."""
        settings = {
            "ROOT": str(self.root), "REGION": "eu-west-1", "API": "https://api.example.com/v1", "VERSION": "1.2.3",
            "WORKER": hashlib.sha256((PROGRAMS / "worker.py").read_bytes()).hexdigest(), "TAG_KEY": "ssh",
        }  # fmt: skip
        with patch.dict(os.environ, {f"NOTEBOOK_SSH_{name}": value for name, value in settings.items()}):
            self.agent, self.worker = program("agent"), program("worker")
            self.take_the_edge()
            try:
                while self.events:
                    self.move()
            except BrokenPromise as broken:
                raise BrokenPromise(f"seed {self.seed}, {told(self.now)}: {broken}") from broken
            finally:
                self.stop()
                self.baton.end()

    def move(self) -> None:
        """One turn of a process, or else the next moment at which something happens."""
        process = next((each for each in self.processes if each.due <= self.now or each.hears()), None)
        if process:
            self.turns += 1
            if self.turns > 200:
                raise BrokenPromise(f"{process.kind} goes round without waiting")
            self.resume(process)
            return
        moment = min([each.due for each in self.processes] + [self.events[0][0]])
        self.turns, self.now = 0, max(self.now, moment)
        while self.events and self.events[0][0] <= self.now:
            heapq.heappop(self.events)[2]()

    def resume(self, process: Process) -> None:
        """Let it go on until it waits or ends."""
        self.baton.resume(process)
        if not process.done:
            return
        self.processes.remove(process)
        for child in process.children:
            child.kill()
            child.stdout.close()
        process.returncode = -9 if isinstance(process.error, Killed) else 0
        if process.error and not isinstance(process.error, Killed):
            fall = "".join(traceback.format_exception(process.error))
            raise (
                process.error
                if isinstance(process.error, BrokenPromise)
                else BrokenPromise(f"{process.kind} fell: {fall}")
            )

    def pause(self, seconds: float, hears: Callable[[], bool] = _nothing) -> None:
        """Called by a process: wait so long, or until it hears something."""
        process = self.baton.current
        assert isinstance(process, Process)
        process.due, process.hears = self.now + max(0, seconds), hears
        self.baton.wait()

    def at(self, moment: float, deed: Callable[[], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.order), deed))

    def after(self, seconds: float, deed: Callable[[], None]) -> None:
        self.at(self.now + seconds, deed)

    def tell(self, text: str) -> None:
        self.story.append(f"{told(self.now)} {text}")

    # ---- the edge of the programs

    def take_the_edge(self) -> None:
        """Put the world in the place of what the programs reach out for."""
        clock = SimpleNamespace(**{name: getattr(time, name) for name in dir(time) if name[0] != "_"})
        clock.time = lambda: BEGIN + self.now + self.skew
        clock.monotonic, clock.clock_gettime = lambda: self.now, lambda _: self.now
        clock.sleep = self.pause
        system = SimpleNamespace(**{name: getattr(os, name) for name in dir(os) if name[0] != "_"})
        system.environ, system.umask = dict(os.environ), lambda mask: mask
        system.dup2 = lambda old, new: os.close(old) if old > 2 else None
        system.close = lambda file: None if file == 3 else os.close(file)  # 3 is our log, which is not open here
        system.write = lambda file, data: self.write(data) if file == 1 else os.write(file, data)
        system.execv = _become
        children = SimpleNamespace(
            PIPE=None, DEVNULL=None, TimeoutExpired=subprocess.TimeoutExpired, Popen=self.start, run=self.as_root
        )
        output = SimpleNamespace(buffer=SimpleNamespace(write=self.write))
        agent: Any = self.agent
        worker: Any = self.worker
        for module in agent, worker:
            module.time, module.os, module.log = clock, system, self.tell
            module.subprocess = children
        agent.__file__ = agent.OPT + "agent.py"
        agent.random, agent.signal = self.chance, SimpleNamespace(SIGTERM=15, signal=lambda *_: None)
        agent.sys = SimpleNamespace(executable=sys.executable, stdout=output, exit=sys.exit)
        agent.take_over = lambda: True
        worker.select = SimpleNamespace(select=self.select)
        worker.local_api, worker.sshd_answers = self.local_api, lambda: self.sshd_up
        worker.sessions = lambda: {"open": 0, "active_at": None}
        worker.install, worker.free_address = lambda renew: "ngrok", lambda old: "127.0.0.1:4040"

    def write(self, data: bytes) -> None:
        """To the standard output of whose turn it is."""
        process = self.baton.current
        assert isinstance(process, Process)
        process.written += data

    def select(self, ears: list[Any], *rest: Any) -> tuple[list[Any], list[Any], list[Any]]:
        self.pause(rest[-1], lambda: bool(select.select(ears, [], [], 0)[0]))
        return select.select(ears, [], [], 0)

    def start(self, words: list[str], **_: Any) -> Any:
        """Start a child of whose turn it is."""
        parent, verb = self.baton.current, words[-1]
        assert isinstance(parent, Process)
        child: Any
        if verb in ("courier", "tags"):
            return Errand(self.report if verb == "courier" else self.list_tags, self)
        if verb == "tunnel":
            if self.ngrok and self.ngrok.returncode is None:
                raise BrokenPromise("two ngrok agents at once")
            child = self.ngrok = Ngrok(self)
        else:
            child = self.process(verb, self.agent.idle if verb == "idle" else self.work)
        parent.children.append(child)
        return child

    def process(self, kind: str, job: Callable[[], Any]) -> Process:
        process = Process(self, kind, job)
        self.processes.append(process)
        self.counts[f"starts of {kind}"] += 1
        return process

    def work(self) -> None:
        """worker.py's `work`; its end closes what it holds open."""
        worker = self.worker.Worker()
        try:
            worker.run()
        finally:
            os.close(worker.ears)

    def as_root(self, words: list[str], **_: Any) -> None:
        """What root does for the worker."""
        if words[-1] == "set-up":
            self.worker.set_up()
            self.after(1, partial(setattr, self, "sshd_up", True))

    def local_api(self, web: str, kind: str) -> list[dict[str, str]]:
        """ngrok's local API."""
        ngrok = self.ngrok
        if self.now < self.mute_until:
            self.pause(2)
            raise TimeoutError("timed out")
        if ngrok is None or ngrok.returncode is not None:
            raise ConnectionRefusedError
        return [{"name": "ssh", "url": "tcp://{}:{}".format(*ngrok.place)}] if ngrok.place else []

    # ---- the stack

    def report(self, ask: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Carry a report: after how many seconds the courier is back, with what."""
        process = self.baton.current
        assert isinstance(process, Process)
        self.counts["reports while the stack is away" if self.weather else "reports"] += 1
        if self.weather:
            self.judge_the_pace(process)
            return self.weather
        process.in_vain = 0
        now = int(BEGIN + self.now)
        if not self.dated:
            self.dated = True
            self.watch()
        reply = {"date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now))}
        if abs(self.skew + ask["ahead"]) > SYNC:
            return 0.1, reply | {"status": 403, "text": '{"message": "Signature expired"}'}
        try:
            heard = read_report(ask["body"].encode(), now)
        except InvalidReportError as bad:
            return 0.1, reply | {"status": 400, "text": json.dumps({"error": bad.field, "message": str(bad)})}
        self.record = replace(self.record, spec=parse_spec(self.tags, "ssh"))
        verdict = accept(self.record, "role", heard.report)
        if not isinstance(verdict, Accepted):
            return 0.1, reply | {"status": 409, "text": '{"error": "older-report", "message": ""}'}
        self.record = replace(self.record, report=verdict.report)
        self.accepted = self.now
        told = reply(
            self.record, now, sync_seconds=SYNC, bastion=Bastion("bastion.example.com", "jump", "sg-1", "vpc-1"),
            token=self.token, held_version=heard.token_version, keys=[("ana", [self.key])],
            worker=(PROGRAMS / "worker.py").read_text() if heard.wants_worker else None,
        )  # fmt: skip
        self.hear((self.tags, self.token.version))
        return 0.1, reply | {"status": 200, "text": json.dumps(told)}

    def list_tags(self, ask: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """SageMaker's own answer, which may be away as well."""
        if self.tags_away:
            return 10, {"text": "EndpointConnectionError"}
        self.hear((self.tags, self.heard[1]))
        return 0.3, {"tags": self.tags}

    def hear(self, wish: tuple[dict[str, str], str]) -> None:
        """From now on the notebook knows this wish."""
        if wish != self.heard:
            self.heard = wish
            self.expect()
            self.watch()

    def watch(self) -> None:
        """Look when access ends, by the clock that the notebook now goes by."""
        until = parse_spec(self.heard[0], "ssh").until
        if until:
            self.at(max(self.now, until - BEGIN - self.error()), self.ended)

    def ended(self) -> None:
        """When access has ended, what was known is forgotten: a clock that is set back does not bring it back."""
        if self.on and self.heard[0] and self.wished() is Mode.OFF:
            self.heard = {}, self.heard[1]
            self.expect()

    def error(self) -> int:
        """Seconds by which the notebook errs about the time: it goes by the stack's clock, once it has heard it."""
        return 0 if self.dated else self.skew

    def wished(self) -> Mode:
        """What should be done, by what the notebook knows."""
        return parse_spec(self.heard[0], "ssh").effective_mode(int(BEGIN + self.now + self.error()))

    def leave(self) -> None:
        self.weather = self.chance.choice(WAYS_TO_BE_AWAY)
        self.tell("the stack is away")

    def come_back(self) -> None:
        """The stack is back, perhaps with another wish."""
        change = self.chance.choice(["nothing", "off", "over", "bastion", "token", "address"])
        if change == "token":
            self.token = Token("v2", TOKEN[::-1].replace("_", "x") + "_" + "A" * 20)
        self.tags = {
            "nothing": self.tags, "token": self.tags, "off": {}, "bastion": {"ssh": "bastion", "ssh-users": "ana"},
            "over": {**self.tags, "ssh-until": iso(self.now - HOUR)},
            "address": {"ssh": "ngrok", "ssh-users": "ana", "ssh-ngrok-url": "tcp://2.tcp.ngrok.io:777"},
        }[change]  # fmt: skip
        self.weather = None
        self.counts[f"the stack is back, with {change} new"] += 1
        self.tell(f"the stack is back; new: {change}")

    # ---- what happens to a notebook

    def boot(self) -> None:
        """Start the instance."""
        lay_out(self.root)
        (self.root / "etc/ssh/ssh_host_ed25519_key.pub").write_text(a_key(""))
        self.on, self.sshd_up, self.dated = True, False, False
        self.skew = self.chance.choice([0, 0, 20 * MINUTE, -20 * MINUTE])
        self.tell(f"boot, the clock {self.skew} s ahead")
        self.watch()
        self.keep()
        self.expect(BOOTING)

    def keep(self) -> None:
        """What systemd does: start the keeper."""
        if self.on and not any(each.kind == "keeper" for each in self.processes):
            self.process("keeper", self.agent.keeper)

    def stop(self) -> None:
        """Stop the instance, or end the day."""
        self.on = False
        for process in list(self.processes):
            process.kill()
            self.resume(process)

    def do(self, number: int, deed: str, size: float) -> None:
        """One deed, if the notebook runs. size: from 0 to 1."""
        if self.on:
            self.counts[deed] += 1
            self.tell(f"deed {number}: {deed} {size:.2f}")
            KINDS[deed](self, size)

    def lose(self, size: float) -> None:
        if self.ngrok and self.ngrok.place:
            seconds = 5 + size * 10 * MINUTE
            self.ngrok.lose(seconds)
            self.expect(seconds)

    def crash(self, size: float) -> None:
        if self.ngrok:
            self.ngrok.end(2)
            self.expect()

    def refuse(self, size: float) -> None:
        self.refused_until = self.now + size * HOUR
        self.last_refusal = list(REFUSALS)[int(size * 1000) % len(REFUSALS)]
        if self.ngrok and self.ngrok.place:
            self.ngrok.lose(5)
        self.expect(5)

    def cut(self, size: float) -> None:
        self.cut_until = self.now + size * 15 * MINUTE
        if self.ngrok and self.ngrok.place:
            self.ngrok.lose(5)
        self.expect(5)

    def mute(self, size: float) -> None:
        self.mute_until = self.now + size * 10 * MINUTE

    def fall(self, size: float) -> None:
        for process in [each for each in self.processes if each.kind == "work"]:
            process.kill()
            self.resume(process)
        self.expect(BOOTING)

    def fall_whole(self, size: float) -> None:
        for process in list(self.processes):
            process.kill()
            self.resume(process)
        self.after(9, self.keep)  # RestartSec
        self.expect(9 + BOOTING)

    def command(self, word: bytes) -> None:
        """A person's command, as far as the worker hears of it."""
        if self.worker.nudge(word):
            self.nudged_at = self.now
            self.expect()

    def reboot(self, size: float) -> None:
        self.stop()
        self.after(size * 30 * MINUTE, self.boot)

    def be_off(self, for_good: bool) -> None:
        """Stop the notebook, the stack being there; for good: and take its tags away meanwhile."""
        self.stop()
        self.tags = {} if for_good else self.tags
        self.tell(f"stopped; tags: {self.tags}")

    def lose_sshd(self, size: float) -> None:
        self.sshd_up = False
        self.after(5 * MINUTE + STARTING, self.has_sshd)

    def turn_tags(self, size: float) -> None:
        """ListTags is away, or back."""
        self.tags_away = not self.tags_away
        self.expect()

    def change_weather(self, size: float) -> None:
        self.weather = WAYS_TO_BE_AWAY[int(size * len(WAYS_TO_BE_AWAY))]
        self.expect()

    def retag(self, size: float) -> None:
        """A person changes the tags, which the stack cannot tell anyone."""
        ends = {**self.usual, "ssh-until": iso(self.now + size * 4 * HOUR)}
        self.tags = self.usual if size < 0.4 else {"ssh": "off"} if size < 0.5 else ends

    # ---- the promises

    def held_up(self) -> float:
        """For how long questions in vain may hold the agent up: the stack's twice, before the tunnel and beside it, and SageMaker's."""
        seconds = self.weather[0] if self.weather else 0.0
        return 2 * (seconds + 10 * self.tags_away) + seconds

    def patience(self) -> float:
        """How long it may take, by what ngrok's cloud has refused and still refuses, until a tunnel is tried anew."""
        over = max(self.refused_until, self.cut_until, self.mute_until)
        retry = REFUSALS.get(self.last_refusal, 0) if self.now < self.refused_until + 900 else 0
        return max(0.0, over - self.now) + max(retry, 60 if over else 0)

    def refusal(self) -> int:
        return self.last_refusal if self.now < self.refused_until else 0

    def expect(self, seconds: float = 0.0) -> None:
        """Something changes: unless something else does before, all must be as wished so many seconds later, and a start."""
        self.disturbed += 1
        self.stands_at = max(self.stands_at, self.now + seconds + STARTING + self.held_up() + self.patience())
        self.at(self.stands_at, partial(self.stands, self.disturbed))

    def stands(self, since: int | None = None) -> None:
        """All is as wished: the tunnel, the keys, and what people read."""
        if not self.on or since not in (None, self.disturbed):
            return
        self.counts["looks that all is as wished"] += 1
        mode, ngrok = self.wished(), self.ngrok
        alive = ngrok is not None and ngrok.returncode is None
        text, admitted = self.file("SageMaker/SSH_INSTRUCTIONS"), self.file(".ssh/authorized_keys")
        if mode is not Mode.NGROK and alive:
            raise BrokenPromise(f"ngrok runs although {mode} is wished")
        if mode is Mode.OFF:
            self.must(self.key not in admitted, "a key is admitted although SSH is off")
            self.must("SSH to" not in text or "is off" in text, "people are not told that SSH is off")
            self.must(not self.file("SageMaker/.notebook-ssh/answer.json"), "a wish is kept that is none any more")
            return
        self.must(self.key in admitted, "a central key is not admitted")
        if mode is Mode.NGROK:
            self.must(bool(ngrok and ngrok.place), "the tunnel is not up")
            assert ngrok
            assert ngrok.place
            line = "ssh -p {1} ec2-user@{0}".format(*ngrok.place)
        else:
            line = "ssh -J jump@bastion.example.com ec2-user@10.0.3.7"
        self.must(f"    {line}\n" in text, f"people do not read `{line}`")
        self.counts["looks that found a tunnel, or the way through the bastion"] += 1

    def file(self, name: str) -> str:
        path = self.root / "home/ec2-user" / name
        return path.read_text() if path.exists() else ""

    def must(self, holds: bool, otherwise: str) -> None:
        """Break the day unless it holds. What a process that falls of it does next is not another matter."""
        if not holds:
            self.broke = self.broke or BrokenPromise(otherwise)
            raise self.broke

    def says(self, first: float) -> None:
        """After the first boot: without an answer nothing is done, and the log says why."""
        if first < AWAY:
            self.must(self.accepted > 0, "the first boot has not reported")
            return
        self.must(not self.file("SageMaker/SSH_INSTRUCTIONS"), "something was done without a wish")
        self.must(any("no answer: " in line for line in self.story), "the log does not say that it waits")

    def has_reported(self) -> None:
        """Within two minutes after its return the stack knows where the notebook is."""
        if self.on:
            self.must(self.accepted > BACK, "the stack has heard nothing since it is back")
            self.after(MINUTE, self.has_told)

    def has_told(self) -> None:
        """The stack knows the address as it is."""
        heard = self.record.report
        place = self.ngrok.place if self.ngrok else None
        assert heard
        self.must(
            (heard.host, heard.port) == (place or (None, None)), f"the stack knows {heard.host}, and it is {place}"
        )

    def has_sshd(self) -> None:
        self.must(self.sshd_up or not self.on or self.wished() is Mode.OFF, "sshd was not started again")

    def nudged(self) -> bool:
        """Whether a person's command has just been heard, or could only just now be."""
        return self.now - self.nudged_at <= 1 + self.held_up()

    def judge_an_end(self, ngrok: Ngrok) -> None:
        """A tunnel that lives is ended when another one is wished, or none, and at a person's word."""
        process = self.baton.current
        if process is None or process.doomed or not ngrok.place or self.nudged():
            return
        self.must(self.wished() is not Mode.NGROK or ngrok.wish != self.heard, "a tunnel that lives was ended")

    def judge_the_pace(self, process: Process) -> None:
        """While the stack is away it is asked less and less, down to once a minute at most."""
        gap, process.asked, process.in_vain = self.now - process.asked, self.now, process.in_vain + 1
        self.must(
            process.in_vain < 9 or gap >= MINUTE or self.nudged(),
            f"asked again after {gap:.0f} s, in vain for the {process.in_vain}th time",
        )


KINDS: dict[str, Callable[[Day, float], None]] = {
    "ngrok's session is lost": Day.lose,
    "ngrok crashes": Day.crash,
    "ngrok refuses": Day.refuse,
    "ngrok's cloud is cut off": Day.cut,
    "ngrok's local API is silent": Day.mute,
    "the worker is killed": Day.fall,
    "all of the agent is killed": Day.fall_whole,
    "start-ssh-ngrok": lambda day, size: day.command(b"restart"),
    "ssh-status": lambda day, size: day.command(b"look"),
    "the notebook is stopped and started": Day.reboot,
    "sshd falls": Day.lose_sshd,
    "ListTags goes or returns": Day.turn_tags,
    "the stack is away in another way": Day.change_weather,
    "the tags change": Day.retag,
}


def _become(*_: object) -> None:
    raise Became


def told(seconds: float) -> str:
    """A moment of the day, for people."""
    return f"{int(seconds // HOUR):02d}:{int(seconds // MINUTE % 60):02d}:{seconds % MINUTE:04.1f}"


def iso(seconds: float) -> str:
    """A moment of the day, as a tag has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(BEGIN + seconds)))


def broken(seed: int, only: frozenset[int] | None = None) -> tuple[str | None, Day]:
    """What breaks in the day of `seed`, or None; and the day."""
    with tempfile.TemporaryDirectory() as root:
        day = Day(seed, Path(root), only)
        try:
            day.play()
        except BrokenPromise as promise:
            return str(promise), day
        return None, day


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="agent_day")
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="DEED,DEED,…")
    given = parser.parse_args()
    if given.only is not None:
        what, day = broken(given.seed, frozenset(map(int, filter(None, given.only.split(",")))))
        print("\n".join(day.story), what or "Every promise held.", sep="\n")
        return what is not None
    counts: Counter[str] = Counter()
    for seed in range(given.seed, given.seed + given.days):
        what, day = broken(seed)
        if what:
            few = smallest(frozenset(range(DEEDS)), lambda deeds, seed=seed: broken(seed, deeds)[0] is not None, 100)  # type: ignore[misc]
            print(
                f"{what}\nShrunk; see it again with: make simulate DAYS=1 SEED={seed} ONLY={','.join(map(str, sorted(few)))}"
            )
            return 1
        counts += day.counts
    for thing, number in sorted(counts.items()):
        print(f"{number:>9,}  {thing}")
    print(f"Every promise held on {given.days:,} days, seeds {given.seed} to {given.seed + given.days - 1}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
