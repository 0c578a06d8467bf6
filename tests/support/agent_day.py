"""Simulates a day of a notebook while the stack is down: the agent's own programs in simulated time.

    make simulate DAYS=100 SEED=1               the days of seeds 1, 2, …; the first that violates an invariant is shrunk
    make simulate DAYS=1 SEED=7 ONLY=3,19       one day again, with these faults only; prints its log

Supervisor, standby and worker are real and run on a folder, each in a thread that runs only when the scheduler resumes
it; so are the rules by which the stack parses a report and replies to it. Simulated are the clock, waiting, the programs
that they start, ngrok with its cloud, sshd, and the network. Every event is drawn from the seed.
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

from simulation.errors import InvariantError, Killed
from simulation.explore import smallest
from simulation.workers import Baton, Worker
from support.agent_env import TOKEN, WORKER, WorkerModules, create_file_system, load_agent, make_public_key
from support.builders import a_record

from notebook.ngrok_stand_in import read_configuration
from notebook_ssh.errors import InvalidReportError
from notebook_ssh.model.record import Route
from notebook_ssh.model.spec import Mode, parse_spec
from notebook_ssh.model.stack import Bastion
from notebook_ssh.reports.accept import Accepted, accept
from notebook_ssh.reports.parse import read_report
from notebook_ssh.reports.reply import reply
from notebook_ssh.reports.tokens import Token

BEGIN = 1_800_000_000
MINUTE, HOUR = 60, 3_600
STACK_DOWN, STACK_UP, DAY_END = HOUR, 25 * HOUR, 25.5 * HOUR
"""Seconds at which the stack goes down, comes up again, and the day ends."""

SYNC = 300
FAULT_COUNT = 40
"""Faults and user actions while the stack is down."""

OUTAGES: Sequence[tuple[float, dict[str, Any]]] = (
    (0.1, {"status": 0, "text": "ConnectionRefusedError(111, 'Connection refused')"}),
    (10, {"status": 0, "text": "TimeoutError('timed out')"}),
    (0.3, {"status": 503, "text": '{"message": "Service Unavailable"}'}),
    (0.1, {"status": 403, "text": '{"message": "Forbidden"}'}),
    (0.1, {"status": 200, "text": "<html>please log in</html>"}),
)
"""Seconds after which the report sender returns, and its result."""

TAG_SETS = ({"ssh": "ngrok"}, {"ssh": "ngrok", "ssh-ngrok-url": "tcp://1.tcp.ngrok.io:4242"}, {"ssh": "bastion"})

RETRY_LIMITS = {108: 60, 334: 60, 4018: 900, 8013: 900, 3208: 900}
"""ngrok's errors, and the seconds after which the tunnel is retried at the latest: a minute for retryable errors, a
quarter of an hour for those that a user has to fix."""

STARTING = 10.0
"""Seconds in which ngrok starts and connects, and the agent notices it."""
BOOTING = 5.0
"""Additional seconds for a start of the whole agent."""


class Process(Worker):
    """A process of the agent, with the interface of Popen.

    due_at: when it is resumed at the latest. is_ready: whether it can be resumed before.
    """

    def __init__(self, day: SimulatedDay, kind: str, job: Callable[[], Any]) -> None:
        super().__init__(kind, job, 0, [])
        self.day, self.due_at, self.is_ready = day, day.now, _never
        self.output = bytearray()
        self.children: list[Any] = []
        self.stdout = self
        self.returncode: int | None = None
        self.failed_reports, self.reported_at = 0, -float(HOUR)

    def read(self, size: int) -> bytes:
        """Wait for `size` bytes of its standard output, or for its exit."""
        self.day.wait_for(float("inf"), lambda: self.done or len(self.output) >= size)
        data, self.output[:size] = bytes(self.output[:size]), b""
        return data

    def read1(self, size: int) -> bytes:
        """Wait for bytes of its standard output, or for its exit; return at most `size` of them."""
        self.day.wait_for(float("inf"), lambda: self.done or bool(self.output))
        data, self.output[:size] = bytes(self.output[:size]), b""
        return data

    def close(self) -> None:
        """Do nothing: its output has no descriptor."""

    def kill(self) -> None:
        """Kill it, and with it its children (prctl(2), PR_SET_PDEATHSIG)."""
        for child in self.children:
            child.kill()
        self.doomed = True

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.day.wait_for(float("inf"), lambda: self.done)


def _never() -> bool:
    return False


class Helper:
    """A short-lived child, with the interface of Popen. run: returns the seconds that it takes, and its result."""

    def __init__(self, run: Callable[[dict[str, Any]], tuple[float, dict[str, Any]]], day: SimulatedDay) -> None:
        self.run, self.day, self.returncode = run, day, 0

    def communicate(self, request: bytes, timeout: float) -> tuple[bytes, None]:
        seconds, result = self.run(json.loads(request))
        if seconds > timeout:
            self.day.wait_for(timeout)
            raise subprocess.TimeoutExpired("helper", timeout)
        self.day.wait_for(seconds)
        return json.dumps(result).encode(), None

    def kill(self) -> None:
        """Do nothing: it has exited."""

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: it has exited."""


class ProcessReplaced(BaseException):
    """The process has been replaced by another program (execve(2))."""


class Ngrok:
    """ngrok's agent, with the interface of Popen; its log is a pipe. address: (host, port) while it is connected."""

    def __init__(self, day: SimulatedDay) -> None:
        self.day = day
        self.pid = 0  # no process of the machine's
        self.returncode: int | None = None
        self.address: tuple[str, int] | None = None
        self.desired = day.known
        read_fd, self.log_fd = os.pipe()
        self.stdout = open(read_fd, "rb", 0)  # noqa: SIM115  (the agent closes it)
        self.stdin = self
        self.request = b""

    def write(self, request: bytes) -> None:
        self.request = request

    def __enter__(self) -> Ngrok:
        return self

    def __exit__(self, *_: object) -> None:
        """Take the complete request: prepare as worker.py does, and start as ngrok."""
        worker: Any = self.day.worker
        worker.emit = self.log_event
        try:
            worker.run_tunnel(json.loads(self.request))
        except ProcessReplaced:
            self.day.schedule_after(2, self.connect)
            return
        self.exit(0)

    def log_event(self, text: str, **more: Any) -> None:
        self.write_log(json.dumps({"msg": text, **more}))

    def write_log(self, lines: str) -> None:
        """Write to its standard output; the agent stops reading it just before it terminates ngrok."""
        if self.returncode is None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.log_fd, lines.encode() + b"\n")

    def connect(self) -> None:
        """Open a session, unless the cloud refuses it, which is final."""
        if self.returncode is not None:
            return
        cloud, configuration = self.day, read_configuration(Path(self.day.worker.OWN_CONFIG).read_text())
        if cloud.now < cloud.cut_until:
            self.log_event("failed to reconnect session", err="dial tcp: lookup failed")
            self.day.schedule_after(20, self.connect)
            return
        error = 105 if configuration.token != cloud.token.value else cloud.ngrok_error()
        if error:
            self.write_log(f"ERROR:  refused.\nERROR:  ERR_NGROK_{error}")
            self.exit(1)
            return
        reserved = next(each.requested_url for each in configuration.endpoints if each.name == "ssh").removeprefix(
            "tcp://"
        )
        host, _, port = (reserved or f"{cloud.random.randrange(9)}.tcp.ngrok.io:{next(cloud.ports)}").rpartition(":")
        self.address = host, int(port)
        self.log_event("client session established")
        self.log_event("started tunnel", name="ssh", url=f"tcp://{host}:{port}")

    def lose_session(self, seconds: float) -> None:
        """Lose the session, and reconnect after `seconds`."""
        self.address = None
        self.log_event("session closed, starting reconnect loop", err="session closed")
        self.day.schedule_after(seconds, self.connect)

    def exit(self, code: int) -> None:
        if self.returncode is None:
            self.returncode, self.address = code, None
            os.close(self.log_fd)

    def terminate(self) -> None:
        """Exit soon; checks that the agent had a reason."""
        self.day.check_termination(self)
        self.day.schedule_after(0.2, self.kill)

    def kill(self) -> None:
        self.exit(-9)

    def wait(self, timeout: float = float("inf")) -> int:
        self.day.wait_for(timeout, lambda: self.returncode is not None)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("ngrok", timeout)
        return self.returncode


class SimulatedDay:
    """A simulated day: scheduler, stack, notebook and invariants. `only`: the faults that are injected; None: all."""

    def __init__(self, seed: int, root: Path, only: frozenset[int] | None = None) -> None:
        self.seed, self.root = seed, root
        self.random = Random(seed)
        self.now = 0.0
        self.log_lines: list[str] = []
        self.counts: Counter[str] = Counter()
        self.violation: InvariantError | None = None
        self.baton, self.processes, self.steps = Baton(), list[Process](), 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.ports = itertools.count(10_000)
        # The stack.
        self.key = make_public_key("ana").strip()
        self.usual_tags = self.tags = {**self.random.choice(TAG_SETS), "ssh-users": "ana"}
        self.token = Token("v1", TOKEN)
        self.record = a_record(
            name="Research-1", role="role", routes={Mode.BASTION: Route(open=True, private_ip="10.0.3.7")}
        )
        self.outage: tuple[float, dict[str, Any]] | None = None
        self.accepted_at = 0.0
        # The notebook.
        self.known: tuple[dict[str, str], str] = {}, ""
        self.running = self.clock_known = self.list_tags_down = False
        self.skew = self.last_error = 0
        self.notified_at = -float(HOUR)
        self.ngrok: Ngrok | None = None
        self.sshd_up = True
        self.change_count, self.settled_at = 0, 0.0
        self.cut_until = self.errors_until = self.api_silent_until = 0.0
        self.schedule(only)

    # ---- from the first boot to the end

    def schedule(self, only: frozenset[int] | None) -> None:
        """Draw the day's events: the first boot, the faults, and the tags when the stack is up again."""
        draw = self.random
        first = draw.choice([0, 0, 0, STACK_DOWN + 1])
        self.schedule_at(first, self.boot)
        self.schedule_at(first + 2 * MINUTE, partial(self.check_first_boot, first))
        self.schedule_at(STACK_DOWN, self.stop_stack)
        faults = sorted(
            (draw.uniform(STACK_DOWN + 5 * MINUTE, STACK_UP - 40 * MINUTE), draw.choice(list(FAULTS)))
            for _ in range(FAULT_COUNT)
        )
        for number, (seconds, fault) in enumerate(faults):
            size = draw.random()
            if only is None or number in only:
                self.schedule_at(seconds, partial(self.inject, number, fault, size))
        self.schedule_at(STACK_UP, self.start_stack)
        self.schedule_at(STACK_UP + 2 * MINUTE + 15, self.check_reported)
        self.schedule_at(STACK_UP + 5 * MINUTE, partial(self.stop_instance, draw.random() < 0.5))
        self.schedule_at(STACK_UP + 7 * MINUTE, self.boot)
        if draw.random() < 0.3:
            self.tags = {**self.usual_tags, "ssh-until": tag_time(draw.uniform(STACK_DOWN, STACK_UP))}
        self.schedule_at(DAY_END, self.check_address_known)
        self.schedule_at(DAY_END, self.check_state)

    def run(self) -> None:
        """Simulate the whole day. InvariantError at the first violation of an invariant."""
        settings = {
            "ROOT": str(self.root), "REGION": "eu-west-1", "API": "https://api.example.com/v1", "VERSION": "1.2.3",
            "WORKER": hashlib.sha256(WORKER.encode()).hexdigest(), "TAG_KEY": "ssh",
        }  # fmt: skip
        with patch.dict(os.environ, {f"NOTEBOOK_SSH_{name}": value for name, value in settings.items()}):
            self.agent, self.worker = load_agent(), WorkerModules()
            self.patch_modules()
            try:
                while self.events:
                    self.step()
            except InvariantError as violation:
                raise InvariantError(f"seed {self.seed}, {format_time(self.now)}: {violation}") from violation
            finally:
                self.stop()
                self.baton.end()

    def step(self) -> None:
        """Resume a process that is due, or advance to the next event."""
        process = next((each for each in self.processes if each.due_at <= self.now or each.is_ready()), None)
        if process:
            self.steps += 1
            if self.steps > 200:
                raise InvariantError(f"{process.kind} loops without waiting")
            self.resume(process)
            return
        next_at = min([each.due_at for each in self.processes] + [self.events[0][0]])
        self.steps, self.now = 0, max(self.now, next_at)
        while self.events and self.events[0][0] <= self.now:
            heapq.heappop(self.events)[2]()

    def resume(self, process: Process) -> None:
        """Resume a process until it waits or exits."""
        self.baton.resume(process)
        if not process.done:
            return
        self.processes.remove(process)
        for child in process.children:
            child.kill()
            child.stdout.close()
        process.returncode = -9 if isinstance(process.error, Killed) else 0
        if process.error and not isinstance(process.error, Killed):
            trace = "".join(traceback.format_exception(process.error))
            raise (
                process.error
                if isinstance(process.error, InvariantError)
                else InvariantError(f"{process.kind} crashed: {trace}")
            )

    def wait_for(self, seconds: float, is_ready: Callable[[], bool] = _never) -> None:
        """Wait, called by a process, for `seconds` or until `is_ready` returns true."""
        process = self.baton.current
        assert isinstance(process, Process)
        process.due_at, process.is_ready = self.now + max(0, seconds), is_ready
        self.baton.wait()

    def schedule_at(self, seconds: float, fault: Callable[[], None]) -> None:
        heapq.heappush(self.events, (seconds, next(self.order), fault))

    def schedule_after(self, seconds: float, fault: Callable[[], None]) -> None:
        self.schedule_at(self.now + seconds, fault)

    def log(self, text: str) -> None:
        self.log_lines.append(f"{format_time(self.now)} {text}")

    # ---- what the programs use of the system

    def patch_modules(self) -> None:
        """Replace what the programs use of the system by the simulation."""
        clock = SimpleNamespace(**{name: getattr(time, name) for name in dir(time) if name[0] != "_"})
        clock.time = lambda: BEGIN + self.now + self.skew
        clock.monotonic, clock.clock_gettime = lambda: self.now, lambda _: self.now
        clock.sleep = self.wait_for
        system = SimpleNamespace(**{name: getattr(os, name) for name in dir(os) if name[0] != "_"})
        system.environ, system.umask = dict(os.environ), lambda mask: mask
        system.dup2 = lambda old, new: os.close(old) if old > 2 else None
        system.close = lambda file: (
            None if file == 3 else os.close(file)
        )  # 3 is the agent's log, which is not open here
        system.write = lambda file, data: self.write(data) if file == 1 else os.write(file, data)
        system.execv = _replace_process
        children = SimpleNamespace(
            PIPE=None, DEVNULL=None, TimeoutExpired=subprocess.TimeoutExpired, Popen=self.start, run=self.run_as_root
        )
        output = SimpleNamespace(buffer=SimpleNamespace(write=self.write))
        agent: Any = self.agent
        worker: Any = self.worker
        for module in agent, *worker.modules:
            replaced = {"time": clock, "os": system, "log": self.log, "subprocess": children}
            vars(module).update({name: value for name, value in replaced.items() if hasattr(module, name)})
        agent.__file__ = agent.INSTALL_DIR + "agent.py"
        agent.random = self.random
        agent.signal = SimpleNamespace(SIGTERM=15, SIG_SETMASK=2, pthread_sigmask=lambda *_: None)
        agent.sys = SimpleNamespace(executable=sys.executable, stdout=output, exit=sys.exit)
        agent.acquire_agent_lock = lambda: True
        worker.select = SimpleNamespace(select=self.select)
        worker.query_local_api, worker.responds = self.local_api, lambda port: self.sshd_up
        worker.ensure_sshd = lambda reach: None  # `run_as_root` starts it
        worker.sessions = lambda: {"open": 0, "active_at": None}
        worker.install_ngrok, worker.free_local_address = lambda force: "ngrok", lambda preferred: "127.0.0.1:4040"

    def write(self, data: bytes) -> None:
        """Write to the standard output of the current process."""
        process = self.baton.current
        assert isinstance(process, Process)
        process.output += data

    def select(self, files: list[Any], *rest: Any) -> tuple[list[Any], list[Any], list[Any]]:
        self.wait_for(rest[-1], lambda: bool(select.select(files, [], [], 0)[0]))
        return select.select(files, [], [], 0)

    def start(self, command: list[str], **_: Any) -> Any:
        """Start a child of the current process."""
        parent, verb = self.baton.current, command[-1]
        assert isinstance(parent, Process)
        child: Any
        if verb == "check-credentials":
            return Helper(lambda _: (0.1, {"credentials": True}), self)
        if verb in ("send-report", "list-tags"):
            return Helper(self.report if verb == "send-report" else self.list_tags, self)
        if verb == "tunnel":
            if self.ngrok and self.ngrok.returncode is None:
                raise InvariantError("two ngrok agents at once")
            child = self.ngrok = Ngrok(self)
        else:
            child = self.process(verb, self.agent.standby if verb == "standby" else self.work)
        parent.children.append(child)
        return child

    def process(self, kind: str, job: Callable[[], Any]) -> Process:
        process = Process(self, kind, job)
        self.processes.append(process)
        self.counts[f"starts of {kind}"] += 1
        return process

    def work(self) -> None:
        """Run worker.py's `work`; its exit closes its FIFO."""
        worker = self.worker.Worker()
        try:
            worker.run()
        finally:
            os.close(worker.wake_fifo)

    def run_as_root(self, command: list[str], **_: Any) -> None:
        """Run one of the worker's root commands."""
        if "root-setup" in command:
            self.worker.root_setup()
            self.schedule_after(1, partial(setattr, self, "sshd_up", True))

    def local_api(self, address: str, kind: str) -> list[dict[str, str]]:
        """Return the list of ngrok's local API."""
        ngrok = self.ngrok
        if self.now < self.api_silent_until:
            self.wait_for(2)
            raise TimeoutError("timed out")
        if ngrok is None or ngrok.returncode is not None:
            raise ConnectionRefusedError
        return [{"name": "ssh", "url": "tcp://{}:{}".format(*ngrok.address)}] if ngrok.address else []

    # ---- the stack

    def report(self, request: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Send a report; return the seconds that the report sender takes, and its result."""
        process = self.baton.current
        assert isinstance(process, Process)
        self.counts["reports while the stack is down" if self.outage else "reports"] += 1
        if self.outage:
            self.check_back_off(process)
            return self.outage
        process.failed_reports = 0
        now = int(BEGIN + self.now)
        if not self.clock_known:
            self.clock_known = True
            self.schedule_end()
        result = {"date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now))}
        if abs(self.skew + request["clock_offset"]) > SYNC:
            return 0.1, result | {"status": 403, "text": '{"message": "Signature expired"}'}
        try:
            parsed = read_report(request["body"].encode(), now)
        except InvalidReportError as error:
            return 0.1, result | {"status": 400, "text": json.dumps({"error": error.field, "message": str(error)})}
        self.record = replace(self.record, spec=parse_spec(self.tags, "ssh"))
        verdict = accept(self.record, "role", parsed.report)
        if not isinstance(verdict, Accepted):
            return 0.1, result | {"status": 409, "text": '{"error": "older-report", "message": ""}'}
        self.record = replace(self.record, report=verdict.report)
        self.accepted_at = self.now
        content = reply(
            self.record, now, sync_seconds=SYNC, bastion=Bastion("bastion.example.com", "jump", "sg-1", "vpc-1"),
            token=self.token, held_version=parsed.token_version, keys=[("ana", [self.key])],
            worker=WORKER if parsed.worker else None,
        )  # fmt: skip
        self.set_known((self.tags, self.token.version))
        return 0.1, result | {"status": 200, "text": json.dumps(content)}

    def list_tags(self, request: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Return SageMaker's tags, which may be unavailable as well."""
        if self.list_tags_down:
            return 10, {"text": "EndpointConnectionError"}
        self.set_known((self.tags, self.known[1]))
        return 0.3, {"tags": self.tags}

    def set_known(self, desired: tuple[dict[str, str], str]) -> None:
        """Set what the notebook knows of the desired state: (tags, token version)."""
        if desired != self.known:
            self.known = desired
            self.expect_settled()
            self.schedule_end()

    def schedule_end(self) -> None:
        """Schedule the end of access, by the clock that the notebook uses now."""
        until = parse_spec(self.known[0], "ssh").until
        if until:
            self.schedule_at(max(self.now, until - BEGIN - self.clock_error()), self.end_access)

    def end_access(self) -> None:
        """Forget the desired state when access has ended: a clock that is set back does not restore access."""
        if self.running and self.known[0] and not self.desired_modes():
            self.known = {}, self.known[1]
            self.expect_settled()

    def clock_error(self) -> int:
        """Return the error of the notebook's time in seconds: 0 once it knows the stack's clock."""
        return 0 if self.clock_known else self.skew

    def desired_modes(self) -> tuple[Mode, ...]:
        """Return the modes that the notebook should be in, given what it knows."""
        return parse_spec(self.known[0], "ssh").effective_modes(int(BEGIN + self.now + self.clock_error()))

    def stop_stack(self) -> None:
        self.outage = self.random.choice(OUTAGES)
        self.log("the stack is down")

    def start_stack(self) -> None:
        """Start the stack, possibly with other tags or another token."""
        change = self.random.choice(["nothing", "off", "over", "bastion", "token", "address"])
        if change == "token":
            self.token = Token("v2", TOKEN[::-1].replace("_", "x") + "_" + "A" * 20)
        self.tags = {
            "nothing": self.tags, "token": self.tags, "off": {}, "bastion": {"ssh": "bastion", "ssh-users": "ana"},
            "over": {**self.tags, "ssh-until": tag_time(self.now - HOUR)},
            "address": {"ssh": "ngrok", "ssh-users": "ana", "ssh-ngrok-url": "tcp://2.tcp.ngrok.io:777"},
        }[change]  # fmt: skip
        self.outage = None
        self.counts[f"the stack is up, changed: {change}"] += 1
        self.log(f"the stack is up, changed: {change}")

    # ---- faults and user actions

    def boot(self) -> None:
        """Start the instance."""
        create_file_system(self.root)
        (self.root / "etc/ssh/ssh_host_ed25519_key.pub").write_text(make_public_key(""))
        self.running, self.sshd_up, self.clock_known = True, False, False
        self.skew = self.random.choice([0, 0, 20 * MINUTE, -20 * MINUTE])
        self.log(f"boot, the clock {self.skew} s ahead")
        self.schedule_end()
        self.start_supervisor()
        self.expect_settled(BOOTING)

    def start_supervisor(self) -> None:
        """Start the supervisor, as systemd does."""
        if self.running and not any(each.kind == "supervisor" for each in self.processes):
            self.process("supervisor", self.agent.supervisor)

    def stop(self) -> None:
        """Stop the instance."""
        self.running = False
        for process in list(self.processes):
            process.kill()
            self.resume(process)

    def inject(self, number: int, fault: str, size: float) -> None:
        """Inject a fault if the notebook runs. size: from 0 to 1."""
        if self.running:
            self.counts[fault] += 1
            self.log(f"fault {number}: {fault} {size:.2f}")
            FAULTS[fault](self, size)

    def lose(self, size: float) -> None:
        if self.ngrok and self.ngrok.address:
            seconds = 5 + size * 10 * MINUTE
            self.ngrok.lose_session(seconds)
            self.expect_settled(seconds)

    def crash(self, size: float) -> None:
        if self.ngrok:
            self.ngrok.exit(2)
            self.expect_settled()

    def refuse(self, size: float) -> None:
        self.errors_until = self.now + size * HOUR
        self.last_error = list(RETRY_LIMITS)[int(size * 1000) % len(RETRY_LIMITS)]
        if self.ngrok and self.ngrok.address:
            self.ngrok.lose_session(5)
        self.expect_settled(5)

    def cut(self, size: float) -> None:
        self.cut_until = self.now + size * 15 * MINUTE
        if self.ngrok and self.ngrok.address:
            self.ngrok.lose_session(5)
        self.expect_settled(5)

    def mute(self, size: float) -> None:
        self.api_silent_until = self.now + size * 10 * MINUTE

    def kill_worker(self, size: float) -> None:
        for process in [each for each in self.processes if each.kind == "work"]:
            process.kill()
            self.resume(process)
        self.expect_settled(BOOTING)

    def kill_agent(self, size: float) -> None:
        for process in list(self.processes):
            process.kill()
            self.resume(process)
        self.schedule_after(9, self.start_supervisor)  # RestartSec
        self.expect_settled(9 + BOOTING)

    def command(self, word: bytes) -> None:
        """Run a user's command, as far as it notifies the worker."""
        if self.worker.notify(word):
            self.notified_at = self.now
            self.expect_settled()

    def reboot(self, size: float) -> None:
        self.stop()
        self.schedule_after(size * 30 * MINUTE, self.boot)

    def stop_instance(self, untag: bool) -> None:
        """Stop the notebook while the stack is up; untag: and remove its tags."""
        self.stop()
        self.tags = {} if untag else self.tags
        self.log(f"stopped; tags: {self.tags}")

    def lose_sshd(self, size: float) -> None:
        self.sshd_up = False
        self.schedule_after(5 * MINUTE + STARTING, self.has_sshd)

    def toggle_list_tags(self, size: float) -> None:
        """Make ListTags unavailable, or available again."""
        self.list_tags_down = not self.list_tags_down
        self.expect_settled()

    def change_outage(self, size: float) -> None:
        self.outage = OUTAGES[int(size * len(OUTAGES))]
        self.expect_settled()

    def retag(self, size: float) -> None:
        """Accepted the tags while the stack is down."""
        ends = {**self.usual_tags, "ssh-until": tag_time(self.now + size * 4 * HOUR)}
        self.tags = self.usual_tags if size < 0.4 else {"ssh": "off"} if size < 0.5 else ends

    # ---- invariants

    def outage_delay(self) -> float:
        """Return how long failed requests may delay the agent: two to the stack, and SageMaker's, before and after the tunnel."""
        seconds = self.outage[0] if self.outage else 0.0
        return 2 * (seconds + 10 * self.list_tags_down) + seconds

    def retry_delay(self) -> float:
        """Return how long it may take until the tunnel is retried, given the faults of ngrok's cloud."""
        fault_end = max(self.errors_until, self.cut_until, self.api_silent_until)
        retry = RETRY_LIMITS.get(self.last_error, 0) if self.now < self.errors_until + 900 else 0
        return max(0.0, fault_end - self.now) + max(retry, 60 if fault_end else 0)

    def ngrok_error(self) -> int:
        return self.last_error if self.now < self.errors_until else 0

    def expect_settled(self, seconds: float = 0.0) -> None:
        """Schedule a check of the state, `seconds` and a start later, unless there is another change before."""
        self.change_count += 1
        self.settled_at = max(self.settled_at, self.now + seconds + STARTING + self.outage_delay() + self.retry_delay())
        self.schedule_at(self.settled_at, partial(self.check_state, self.change_count))

    def check_state(self, since: int | None = None) -> None:
        """Check tunnel, keys and SSH_INSTRUCTIONS against the desired state."""
        if not self.running or since not in (None, self.change_count):
            return
        self.counts["checks of the desired state"] += 1
        modes, ngrok = self.desired_modes(), self.ngrok
        alive = ngrok is not None and ngrok.returncode is None
        text, admitted = self.read_file("SageMaker/SSH_INSTRUCTIONS"), self.read_file(".ssh/authorized_keys")
        if Mode.NGROK not in modes and alive:
            raise InvariantError(f"ngrok runs, and what is desired is {modes}")
        if not modes:
            self.check(self.key not in admitted, "a key is admitted although SSH is off")
            self.check("SSH to" not in text or "is off" in text, "SSH_INSTRUCTIONS does not show that SSH is off")
            self.check(
                not self.read_file("SageMaker/.notebook-ssh/reply.json"), "a reply is saved that is not valid any more"
            )
            return
        self.check(self.key in admitted, "a central key is not admitted")
        if Mode.NGROK in modes:
            self.check(bool(ngrok and ngrok.address), "the tunnel is not up")
            assert ngrok
            assert ngrok.address
            line = "ssh -p {1} ec2-user@{0}".format(*ngrok.address)
        else:
            line = "ssh -J jump@bastion.example.com ec2-user@10.0.3.7"
        self.check(f"    {line}\n" in text, f"SSH_INSTRUCTIONS does not show `{line}`")
        self.counts["checks with a tunnel, or a route through the bastion"] += 1

    def read_file(self, name: str) -> str:
        path = self.root / "home/ec2-user" / name
        return path.read_text() if path.exists() else ""

    def check(self, holds: bool, violation: str) -> None:
        """Raise InvariantError unless `holds`, and again in a process that was interrupted by it."""
        if not holds:
            self.violation = self.violation or InvariantError(violation)
            raise self.violation

    def check_first_boot(self, first: float) -> None:
        """Check the first boot: without a reply nothing is changed, and the log has the reason."""
        if first < STACK_DOWN:
            self.check(self.accepted_at > 0, "the first boot has not reported")
            return
        self.check(not self.read_file("SageMaker/SSH_INSTRUCTIONS"), "files were written without a reply")
        self.check(any("no reply: " in line for line in self.log_lines), "the log has no reason")

    def check_reported(self) -> None:
        """Check that the notebook has reported within two minutes after the stack is up."""
        if self.running:
            self.check(self.accepted_at > STACK_UP, "the stack has received no report since it is up")
            self.schedule_after(MINUTE, self.check_address_known)

    def check_address_known(self) -> None:
        """Check that the stack knows the current address."""
        report = self.record.report
        address = self.ngrok.address if self.ngrok else None
        assert report
        self.check(
            (report.host, report.port) == (address or (None, None)),
            f"the stack knows {report.host}, and it is {address}",
        )

    def has_sshd(self) -> None:
        self.check(self.sshd_up or not self.running or not self.desired_modes(), "sshd was not started again")

    def recently_notified(self) -> bool:
        """Return whether a user's command has just been received, or could only be received now."""
        return self.now - self.notified_at <= 1 + self.outage_delay()

    def check_termination(self, ngrok: Ngrok) -> None:
        """Check that a working tunnel is terminated only for another one, for none, or by a user's command."""
        process = self.baton.current
        if process is None or process.doomed or not ngrok.address or self.recently_notified():
            return
        self.check(
            Mode.NGROK not in self.desired_modes() or ngrok.desired != self.known, "a working tunnel was terminated"
        )

    def check_back_off(self, process: Process) -> None:
        """Check that reports back off while the stack is down, to at most one a minute."""
        gap, process.reported_at, process.failed_reports = (
            self.now - process.reported_at,
            self.now,
            process.failed_reports + 1,
        )
        self.check(
            process.failed_reports < 9 or gap >= MINUTE or self.recently_notified(),
            f"reported again after {gap:.0f} s, without a reply for the {process.failed_reports}th time",
        )


FAULTS: dict[str, Callable[[SimulatedDay, float], None]] = {
    "ngrok's session is lost": SimulatedDay.lose,
    "ngrok crashes": SimulatedDay.crash,
    "ngrok refuses": SimulatedDay.refuse,
    "ngrok's cloud is cut off": SimulatedDay.cut,
    "ngrok's local API is silent": SimulatedDay.mute,
    "the worker is killed": SimulatedDay.kill_worker,
    "all of the agent is killed": SimulatedDay.kill_agent,
    "start-ssh-ngrok": lambda day, size: day.command(b"restart"),
    "ssh-status": lambda day, size: day.command(b"status"),
    "the notebook is stopped and started": SimulatedDay.reboot,
    "sshd crashes": SimulatedDay.lose_sshd,
    "ListTags becomes unavailable or available": SimulatedDay.toggle_list_tags,
    "the stack fails in another way": SimulatedDay.change_outage,
    "the tags change": SimulatedDay.retag,
}


def _replace_process(*_: object) -> None:
    raise ProcessReplaced


def format_time(seconds: float) -> str:
    """Format a time of the day for the log."""
    return f"{int(seconds // HOUR):02d}:{int(seconds // MINUTE % 60):02d}:{seconds % MINUTE:04.1f}"


def tag_time(seconds: float) -> str:
    """Format a time of the day for a tag."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(BEGIN + seconds)))


def run_day(seed: int, only: frozenset[int] | None = None) -> tuple[str | None, SimulatedDay]:
    """Return the violation in the day of `seed`, or None; and the day."""
    with tempfile.TemporaryDirectory() as root:
        day = SimulatedDay(seed, Path(root), only)
        try:
            day.run()
        except InvariantError as violation:
            return str(violation), day
        return None, day


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="agent_day")
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="FAULT,FAULT,…")
    arguments = parser.parse_args()
    if arguments.only is not None:
        violation, day = run_day(arguments.seed, frozenset(map(int, filter(None, arguments.only.split(",")))))
        print("\n".join(day.log_lines), violation or "Every invariant held.", sep="\n")
        return violation is not None
    counts: Counter[str] = Counter()
    for seed in range(arguments.seed, arguments.seed + arguments.days):
        violation, day = run_day(seed)
        if violation:
            needed = smallest(
                frozenset(range(FAULT_COUNT)),
                lambda faults, seed=seed: run_day(seed, faults)[0] is not None,  # type: ignore[misc]
                100,
            )
            print(
                f"{violation}\nShrunk; reproduce it with: make simulate DAYS=1 SEED={seed} ONLY={','.join(map(str, sorted(needed)))}"
            )
            return 1
        counts += day.counts
    for name, number in sorted(counts.items()):
        print(f"{number:>9,}  {name}")
    print(
        f"Every invariant held on {arguments.days:,} days, seeds {arguments.seed} to {arguments.seed + arguments.days - 1}."
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
