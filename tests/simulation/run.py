"""One run: an account, its people, the real handlers, and a scheduler that decides at every step who moves and what fails.

A run is given by a seed and a number of steps. A step is one move: a call to AWS, something that a person does, the
beginning of an invocation, or time passing. The handlers are the deployed ones; what stands in is `clients._client`,
the clock, and what is only told to people (logs, metrics).
"""

from __future__ import annotations

import hashlib
import heapq
import io
import itertools
import json
import logging
import os
import sys
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError
from simulation.account import (
    BASTION_GROUP,
    BASTION_VPC,
    ENDPOINT,
    ENDPOINT_VPC,
    NUMBER,
    REGION,
    Account,
    LifecycleConfig,
    Notebook,
    pages,
)
from simulation.chance import Chance
from simulation.errors import InvariantError, Killed, no_answer, refusal
from simulation.invariants import (
    CLOCKS_APART,
    FALLBACK,
    PROGRAMS,
    STACK,
    UPGRADE_AFTER,
    WORKERS,
    Invariants,
    blocks,
    decoded,
)
from simulation.logins import AUTHORITY, Logins
from simulation.users import Users
from simulation.workers import Baton, Worker
from support.aws_clients import clients_made_by
from support.builders import a_body, a_lambda_context, an_api_event

from lookup_api import handler as lookup_function
from notebook_ssh.adapters import clients, secrets
from notebook_ssh.adapters.table import Table
from notebook_ssh.adapters.workers import save_worker
from notebook_ssh.controllers import certificate, lookup, mails, requests
from notebook_ssh.controllers.agent_layer import WorkerProgram
from notebook_ssh.errors import NOT_ALLOWED, RetryableError, TerminalError
from notebook_ssh.model.managed_block import Block, fingerprint
from notebook_ssh.planning.observation import BlockPolicy
from notebook_ssh.settings import Settings
from reconcile_notebook import handler as notebook_function
from reconcile_rules import handler as bastion_function
from record_address import handler as report_function
from start_notebook import handler as start_function
from sweep import handler as sweep_function
from uninstall import handler as uninstall_function

BEGIN = 1_800_000_000_000
FUNCTION = f"{STACK}-ReconcileNotebook"
SYNC = 300
SWEEP_EVERY = 900_000
VISIBILITY, RECEIVES = 130_000, 5
DELAY = {"bastion": 30_000}
"""As in template.yaml; each queue's own delay in milliseconds, where it has one."""

SECONDS = {
    "notebooks": 120,
    "bastion": 120,
    "sweep": 300,
    "report": 30,
    "start": 30,
    "lookup": 30,
    "issue": 30,
    "uninstall": 900,
}
CONCURRENCY = {
    "notebooks": 3,
    "bastion": 1,
    "sweep": 2,
    "report": 2,
    "start": 1,
    "lookup": 2,
    "issue": 2,
    "uninstall": 1,
}
"""Time and concurrency of each function."""

FLIP_EVERY = 10_000
"""Milliseconds between two reports of an agent that is connected and failed by turns."""

LAMBDA_TRIES_AGAIN = 60_000
"""Milliseconds after which Lambda repeats an invocation that died, when nobody waits for its answer."""

ANSWERS = ("report", "start", "lookup", "issue")
"""The functions behind the API."""

ENVIRONMENT = {
    "AWS_REGION": REGION,
    "STACK_NAME": STACK,
    "TABLE_NAME": "records",
    "NOTEBOOK_QUEUE": "notebooks",
    "RULE_QUEUE": "bastion",
    "DEFAULT_LIFECYCLE_CONFIG": FALLBACK,
    "NGROK_SECRET": "token",
    "KEYS_PATH": "/keys",
    "ALARM_TOPIC": "topic",
    "SYNC_SECONDS": str(SYNC),
    "BASTION_HOST": "bastion.example.com",
    "BASTION_SECURITY_GROUP": BASTION_GROUP,
    "BASTION_VPC": BASTION_VPC,
    "BASTION_CLIENT_CIDRS": "198.51.100.0/24",
    "ENDPOINT_ID": ENDPOINT,
    "ENDPOINT_VPC": ENDPOINT_VPC,
}
WITH_CERTIFICATES = {
    "CERTIFICATE_KEY": f"arn:aws:kms:{REGION}:{NUMBER}:key/1",
    "CERTIFICATE_AUTHORITIES": AUTHORITY,
}
"""What the environment has besides in runs with certificates."""

MOVES = {
    "Pending": (60_000, 300_000),
    "Stopping": (20_000, 120_000),
    "Updating": (5_000, 40_000),
    "Deleting": (5_000, 60_000),
}


def a_block(version: str, worker: str) -> Block:
    """A block as large as the budget allows (docs/block.md), with the settings that say whether it may stay."""
    settings = {"STACK": STACK, "VERSION": version, "WORKER": worker}
    words = " ".join(f"'{word}={value}'" for word, value in settings.items())
    lines = b"".join(b": line %03d of a block that fills its room\n" % i for i in range(132))
    body = f": {version}\n".encode() + lines + f"' {words} >>log\n".encode()
    return Block(STACK, version, fingerprint(body), body, settings)


BLOCKS = (a_block("1.0.0", WORKERS[0]), a_block("1.1.0", WORKERS[1]))


@dataclass
class Message:
    """visible: epoch milliseconds from which on it is delivered. held: an invocation has it."""

    body: str
    sent: int
    visible: int
    receives: int = 0
    held: bool = False


@dataclass(frozen=True)
class Weather:
    """What AWS is like for a while. trouble: what is throttled whenever it is asked: a look and the next one, too.

    until: epoch milliseconds. page: items of one page. denied: an operation that a policy denies for so long.
    """

    until: int
    config_problem: tuple[str, bool] | None
    page: int
    denied: str = ""


FAIR = Weather(0, None, 100)


def has_certificates(seed: int) -> bool:
    """Whether the stack of the run with this seed has certificates: most have, and every fifth of the first thousand.

    The others of these are as they were before there were any: some are known for what they meet.
    """
    return seed > 0 and (seed % 5 == 0 or 1_000 <= seed < 700_000)


class Run:
    """The whole of it."""

    def __init__(self, seed: int, steps: int, only: AbstractSet[int] | None = None) -> None:
        """only: the steps that may inject faults; None: all up to `steps`."""
        self.seed, self.steps, self.sync = seed, steps, SYNC
        self.certificates = has_certificates(seed)
        self.faults = True
        self.chance = Chance(seed, lambda step: only is None or step in only)
        self.now = BEGIN
        self.step = 0
        self.block = BLOCKS[0]
        self.swept: tuple[Block | None, int] = (None, 0)  # of the last sweep that ended, and since when it is the same
        self.table = Table("records")
        self.invariants = Invariants(self)
        self.account = Account(lambda: self.now, self.tell, self.invariants)
        self.users = Users(self)
        self.logins = Logins(self)
        self.queues: dict[str, list[Message]] = {"notebooks": [], "bastion": []}
        self.dead: list[Message] = []
        self.jobs: list[tuple[str, Callable[[], Any]]] = []
        self.workers: list[Worker] = []
        self.last: Worker | None = None
        self.baton = Baton()
        self.timers: list[tuple[int, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.counts: Counter[str] = Counter()
        self.trace: list[str] = []
        self.reports: dict[str, int] = {}
        self.calls: set[tuple[str, str, str]] = set()
        self.said: list[tuple[str, str]] = []
        self.posted: list[str] = []
        self.weather = FAIR
        self.deaf = self.deleted = False
        self.users_are_gone = False
        self.calm_since = sys.maxsize

    # ---- from beginning to end

    def play(self) -> None:
        """Faults for `steps` steps; then calm, one sweep, everything settled; then all users remove their tags.

        Raises AssertionError when an invariant is violated.
        """
        with bound(self):
            try:
                self._play()
            except InvariantError as broken:
                raise AssertionError(f"seed {self.seed}, step {self.step}: {broken}") from None
            finally:
                self._end()

    def follow(self, begin: Callable[[], None]) -> None:
        """Leave nothing to chance: people `begin` something in an empty account, and everything that follows happens."""
        with bound(self):
            try:
                self.chance.calm = True
                self.account.person = True
                begin()
                self.account.person = False
                self._drain()
                self._sweep_once("afterwards")
            finally:
                self._end()

    def _play(self) -> None:
        self.chance.turn(-1)
        self.users.found()
        self.account.person = False
        # Both versions have been deployed before.
        workers = {"L": [{"S": worker[:16]} for worker in WORKERS]}
        key = {"pk": {"S": "coordination"}, "sk": {"S": "deployment"}}
        self.account.table.items["coordination", "deployment"] = key | {"workers": workers}
        for block in BLOCKS:
            save_worker(self.table, PROGRAMS[BLOCKS.index(block)], block.version)
        self.at(self.now + 60_000, self._sweep)
        for _ in range(self.steps):
            self._step()
        self.faults = False
        self._calm_down()
        self.calm_since = self.now
        self.trace.append(f"{self.step}: calm")
        self.chance.turn(self.step)
        for notebook in self.account.notebooks.values():  # the index catches up
            self.account.index(notebook)
        self.account.old = (0, [], [])
        self._drain()
        self._sweep_once("after the faults")
        self.invariants.settled(*BLOCKS)
        self._all_report()
        self._upgrade()
        self.invariants.settled()
        self._nothing_moves()
        self.deaf = bool(self.seed % 2)
        uninstalls = self.seed % 3 == 0
        at_work = uninstalls and self.seed % 2 == 0
        self.users.go_home(untag=at_work or not uninstalls)
        self.users_are_gone = True
        self._drain()
        if at_work:
            self._uninstall_at_work()
        elif uninstalls:
            self._uninstall()
        else:
            for _ in range(4 if self.deaf else 2):
                self._sweep_once("after everybody went home")
        self.invariants.as_it_was()

    def _calm_down(self) -> None:
        self.chance.calm, self.weather = True, FAIR

    def _uninstall(self) -> None:
        """The admin deletes the stack, while all tags still ask for SSH: first amid faults, and once more in the calm."""
        self.deleted = True
        self.chance.calm = False
        self._ask_to_delete("the stack is deleted amid faults")
        self._calm_down()
        self.now += LAMBDA_TRIES_AGAIN
        self._delete("the stack is deleted")

    def _uninstall_at_work(self) -> None:
        """The admin deletes the stack right after everybody asked for SSH: some invocations are under way."""
        self._sweep_once("after everybody went home")
        self.users.come_back()
        for _ in range(self.chance.between(1, 1_500)):
            self._step()
        self.deleted = True
        self._delete("the stack is deleted while it is at work")

    def _delete(self, told: str) -> None:
        ((done, reason),) = self._ask_to_delete(told)
        self.hold(done, f"the stack could not be deleted: {reason}")
        self.counts["stacks deleted"] += 1

    def _ask_to_delete(self, told: str) -> list[tuple[bool, str]]:
        """What the stack's own end answers to CloudFormation; nothing when it was killed."""
        self.trace.append(told)
        event = {
            "RequestType": "Delete",
            "RequestId": "request",
            "ResponseURL": "https://cloudformation.example",
            "StackId": STACK,
            "LogicalResourceId": "Cleanup",
        }
        said: list[tuple[bool, str]] = []

        def heard(request: urllib.request.Request, timeout: float) -> AbstractContextManager[None]:
            answer = json.loads(cast("bytes", request.data))
            said.append((answer["Status"] == "SUCCESS", answer["Reason"]))
            return nullcontext()

        def job() -> None:
            context = self._context(self.baton.at_work)
            uninstall_function.handle(event, context, clock=self.time, sleep=self.sleep, policy=self.policy)

        with patch("urllib.request.urlopen", heard):
            self.jobs.append(("uninstall", job))
            self._drain()
        return said

    def _upgrade(self) -> None:
        """Another version is deployed: nothing is written before it is time, and then every block is replaced."""
        self.next_block()
        for _ in range(2):
            self._sweep_once("with another version")
        self.invariants.settled(*BLOCKS)
        self.now += UPGRADE_AFTER * 1000
        for _ in range(2):
            self._sweep_once("in which upgrades are due")

    def _sweep_once(self, when: str) -> None:
        self.trace.append(f"one sweep {when}")
        self.at(self.now, self._sweep_now)
        self._drain()

    def _nothing_moves(self) -> None:
        """In an hour of calm nothing is written: not by us, not because of us."""
        for _ in range(8):  # notebooks whose agents fell silent are said to be so, for the last time
            self.now += SWEEP_EVERY
            self._sweep_once("as agents fall silent")
        before = self.invariants.writes.copy()
        for _ in range(4):
            self.now += SWEEP_EVERY
            self._sweep_once("in the calm")
        after = self.invariants.writes - before
        self.hold(not after, f"written in an hour of calm: {dict(after)}")
        self.invariants.shown()

    def _drain(self, most: int = 20_000) -> None:
        """Go on until nothing is under way: no invocation, no message, nothing that arrives by itself."""
        for _ in range(most):
            waiting = any(self.queues.values()) or self.workers or self.jobs
            if not waiting and not self.timers:
                return
            self._step()
        raise InvariantError(f"it does not come to rest: {self.trace[-12:]}")

    def _end(self) -> None:
        for worker in self.workers:
            worker.doomed = True
            self.baton.resume(worker)
        self.baton.end()

    # ---- one step

    def _step(self) -> None:
        self.step += 1
        self.counts["steps"] += 1
        self.chance.turn(self.step)
        self._time_comes()
        chance = self.chance.roll()
        if chance >= 0.095:
            self._move()
        elif not self.chance.fault():
            return
        elif chance < 0.065:
            if self.users_are_gone:
                return
            did = self.users.act()
            self.counts["user actions"] += 1
            self.trace.append(f"{self.step}: user: {did}")
        elif chance < 0.09:
            self.now += self.chance.between(1_000, 120_000)
        else:
            self.account.table.expire(self.now // 1000)

    def _time_comes(self) -> None:
        while self.timers and self.timers[0][0] <= self.now:
            heapq.heappop(self.timers)[2]()

    def _move(self) -> None:
        ready = [worker for worker in self.workers if worker.wake <= self.now]
        if self.last in ready and not self.chance.odds(0.4):
            self._resume(self.last)
            return
        begin: list[Worker | Callable[..., bool]] = [
            start for start in (self._next_job, self._next_batch, self._next_bastion) if start(begin=False)
        ]
        if not ready and not begin:
            self._time_passes()
            return
        choice = self.chance.pick([*ready, *begin])
        if isinstance(choice, Worker):
            self._resume(choice)
        else:
            choice(begin=True)

    def _time_passes(self) -> None:
        moments = [worker.wake for worker in self.workers] + [each[0] for each in self.timers[:1]]
        moments += [m.visible for queue in self.queues.values() for m in queue if not m.held]
        self.now = min((each for each in moments if each > self.now), default=self.now + 1_000)

    def _resume(self, worker: Worker | None) -> None:
        assert worker is not None
        self.last = worker
        if self.now > worker.deadline:
            worker.doomed = True
            self.counts["invocations out of time"] += 1
        self.baton.resume(worker)
        if worker.done:
            self._finished(worker)

    # ---- invocations

    def _busy(self, kind: str) -> bool:
        return sum(worker.kind == kind for worker in self.workers) >= CONCURRENCY[kind]

    def _next_job(self, *, begin: bool) -> bool:
        for place, (kind, job) in enumerate(self.jobs):
            if not self._busy(kind):
                if begin:
                    del self.jobs[place]
                    self._begin(kind, job, [])
                return True
        return False

    def _next_batch(self, *, begin: bool) -> bool:
        handle = partial(notebook_function.handle, clock=self.time, sleep=self.sleep, policy=self.policy)
        return self._next_of("notebooks", 100, handle, begin=begin)

    def _next_bastion(self, *, begin: bool) -> bool:
        if any(message.held for message in self.queues["bastion"]):
            return False
        return self._next_of("bastion", 10, partial(bastion_function.handle, clock=self.time), begin=begin)

    def _next_of(self, queue: str, most: int, handle: Callable[..., Any], *, begin: bool) -> bool:
        waiting = [m for m in self.queues[queue] if not m.held and m.visible <= self.now]
        if not waiting or self._busy(queue):
            return False
        if begin:
            batch = waiting[: self.chance.pick((most, 1, 3))]
            for message in batch:
                message.held = True
                message.receives += 1
            event = {"Records": [_delivered(number, message) for number, message in enumerate(batch)]}
            self._begin(queue, lambda: handle(event, self._context(worker_of())), batch)
            worker = self.workers[-1]

            def worker_of() -> Worker:
                return worker

        return True

    def _begin(self, kind: str, job: Callable[[], Any], batch: list[Message]) -> None:
        self.counts[f"invocations of {kind}"] += 1
        if kind == "sweep" and any(worker.kind == kind for worker in self.workers):
            self.counts["sweeps that overlap"] += 1
        self.workers.append(Worker(kind, job, self.now + SECONDS[kind] * 1000, batch))
        self.last = self.workers[-1]
        if self.chance.fault(0.3):
            self.last.clock = self.chance.pick((-CLOCKS_APART // 2, CLOCKS_APART // 2))
            self.counts["invocations whose clock is off"] += 1

    def _context(self, worker: Worker) -> Any:
        return a_lambda_context(function_name=FUNCTION, get_remaining_time_in_millis=lambda: worker.deadline - self.now)

    def _finished(self, worker: Worker) -> None:
        self.workers.remove(worker)
        error = worker.error
        if isinstance(error, InvariantError):
            raise error
        if error is not None and not isinstance(error, Killed | RetryableError) and not _is_denied(error):
            raise InvariantError(f"{worker.kind}: unforeseen {_told(error)}") from error
        if worker.kind in ANSWERS and error is None:
            self.said.append((worker.kind, worker.result["body"]))
        failed = (
            {each["itemIdentifier"] for each in (worker.result or {}).get("batchItemFailures", ())}
            if (error is None and worker.kind == "notebooks")
            else set()
        )
        for number, message in enumerate(worker.messages):
            message.held = False
            if error is None and str(number) not in failed and not self.chance.fault(0.02):
                self.queues[worker.kind].remove(message)
            elif message.receives >= RECEIVES:
                self.queues[worker.kind].remove(message)
                self.dead.append(message)
                self.hold(message.sent < self.calm_since, f"a message ended among the dead letters: {message.body}")
                self.counts["dead letters"] += 1
            else:
                message.visible = self.now + VISIBILITY

    # ---- calls to AWS

    def call(self, service: str, operation: str, **given: Any) -> Any:
        """What a client's method does: stop here until it is this worker's turn, and then meet its fate."""
        worker = self.baton.current
        if worker is None:  # the run itself looks
            return self._obey(operation, given)
        worker.pending = (operation, given)
        worker = self.baton.wait()
        worker.pending = ("", {})
        self.calls.add((worker.kind, service, operation))
        self.counts["calls"] += 1
        self.now += self.chance.between(5, 60)
        if self.now >= self.weather.until:
            self._weather_changes()
        if self.weather.config_problem == (operation, "NextToken" in given):
            raise self._fault("throttled", refusal("ThrottlingException", "Rate exceeded"))
        if (given.get("NextToken") or given.get("PaginationToken")) and self.chance.fault(0.35):
            raise self._fault("refused, because the token had expired", _expired(operation))
        if self.weather.denied == operation:
            raise self._fault("denied", refusal("AccessDeniedException", f"not authorized to perform: x:{operation}"))
        fate = self.chance.roll()
        if fate >= 0.095 or not self.chance.fault():
            answer = self._obey(operation, given)
            if operation == "get_item" and given["Key"]["pk"]["S"] == "notebook":
                worker.seen = answer.get("Item", {})
            return answer
        if fate < 0.025:
            raise self._fault("throttled", refusal("ThrottlingException", "Rate exceeded"))
        if fate < 0.03:
            raise self._fault("failed by the service", refusal("InternalFailure", "", 500))
        if fate < 0.04:
            return self._lost(worker, None, operation, given)
        if fate < 0.055:
            return self._lost(worker, partial(self._obey, operation), operation, given)
        if fate < 0.065:
            raise self._fault("killed before a call", Killed())
        self._obey(operation, given)
        if fate < 0.08:
            raise self._fault("killed after a call", Killed())
        self._fault("obeyed twice", None)  # botocore tried again, because the first answer was lost
        return self._obey(operation, given)

    def _weather_changes(self) -> None:
        config_problem = self.chance.pick(_HINGES) if self.chance.fault(0.5) else None
        page = 1 if config_problem and config_problem[1] else self.chance.pick((100, 100, 1, 2))
        denied = self.chance.pick(_DENIABLE) if self.chance.fault(0.6) else ""
        self.weather = Weather(self.now + self.chance.between(10_000, 120_000), config_problem, page, denied)

    def _fault(self, name: str, error: Any) -> Any:
        self.counts[f"calls {name}"] += 1
        self.trace.append(f"{self.step}: {name}")
        return error

    def _lost(self, worker: Worker, obey: Callable[..., Any] | None, operation: str, given: dict[str, Any]) -> Any:
        self._fault("obeyed, and the answer lost" if obey else "lost", None)
        if obey:
            try:
                obey(given)
            except ClientError:
                self.counts["refusals lost"] += 1
        worker.wake = self.now + 10_000
        self.baton.wait()
        raise no_answer()

    def _obey(self, operation: str, given: dict[str, Any]) -> Any:
        account = self.account
        account.stale = account.table.stale = self.chance.fault(0.15)
        account.page = account.table.page = self.weather.page
        account.refused = account.table.unread = 0
        if operation in _BATCHES and self.chance.fault(0.1):
            account.refused = account.table.unread = self.chance.pick((1, 2, 100))
            self.counts["batches of which a part was refused"] += 1
        home = account.table if operation in _OF_THE_TABLE else account
        answer = getattr(home, operation)(**given)
        self.counts["reads that were stale"] += account.stale_reads + account.table.stale_reads
        account.stale_reads = account.table.stale_reads = 0
        if operation in _WRITES:
            self.counts["writes"] += 1
            self.trace.append(f"{self.step}: we: {operation} {_named(given)}")
        for queue, body, delay in account.queued:
            self.put(queue, body, delay * 1000 or DELAY.get(queue, 0))
        account.queued.clear()
        return answer

    def script_in_the_window(self, name: str) -> bool:
        """As `in_the_window`, for every write that concerns a script."""
        writes = ("update_notebook_instance_lifecycle_config", "delete_notebook_instance_lifecycle_config")
        return any(self.in_the_window(operation, name) for operation in writes)

    def in_the_window(self, operation: str, name: str) -> bool:
        """Whether one of our writes to `name` is on its way: no look can see what a person does now."""
        names = ("NotebookInstanceLifecycleConfigName", "NotebookInstanceName")
        hit = any(
            worker.pending[0] == operation and any(worker.pending[1].get(key) == name for key in names)
            for worker in self.workers
        )
        if hit:
            self.counts["user actions postponed: a write of ours was on its way"] += 1
        return hit

    # ---- time, signals, queues

    def sleep(self, seconds: float) -> None:
        worker = self.baton.current
        assert worker is not None
        worker.wake = self.now + int(seconds * 1000 + 0.999)
        worker.pending = ("", {})
        self.baton.wait()

    def at(self, moment: int, job: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (moment, next(self.order), job))

    def put(self, queue: str, body: str, delay: int) -> None:
        copies = 2 if self.chance.fault(0.04) else 1
        self.counts["messages delivered twice"] += copies - 1
        self.posted.append(body)
        for _ in range(copies):
            self.queues[queue].append(Message(body, self.now, self.now + delay))

    def tell(self, kind: str, resource: Any) -> None:
        """Something happened: statuses move on in time, the index hears of tags, and events go out as they please."""
        if kind == "status" and resource.status in MOVES:
            self.at(self.now + self.chance.between(*MOVES[resource.status]), partial(self.account.arrive, resource))
        if kind == "status" and resource.status == "InService":
            self._boot(resource)
        if kind == "tags":
            lag = self.chance.pick((30_000, 300_000, 1_200_000)) if self.chance.fault(0.7) else 0
            self.at(self.now + lag, partial(self.account.index, resource))
        if self.deaf or self.chance.fault(0.25):
            self.counts["signals dropped"] += 1
            return
        delay = 0 if not self.chance.fault(0.3) else self.chance.between(1_000, 600_000)
        self.counts["signals late, and so out of order"] += bool(delay)
        copies = 2 if self.chance.fault(0.15) else 1
        self.counts["signals doubled"] += copies - 1
        for _ in range(copies):
            self.at(self.now + delay, partial(self._signal, json.dumps(_event(kind, resource))))

    def _signal(self, body: str) -> None:
        self.put("notebooks", body, 0)

    def time(self) -> float:
        """What the clock of the invocation whose turn it is shows, in epoch seconds."""
        return (self.now + (self.baton.current.clock if self.baton.current else 0)) / 1000

    def _sweep(self) -> None:
        self._sweep_now()
        if self.chance.fault(0.8):  # the schedule delivers at least once
            self._sweep_now()
        if self.faults:
            self.at(self.now + SWEEP_EVERY, self._sweep)

    def _sweep_now(self) -> None:
        def job() -> Any:
            block, began = self.block, self.now
            answer = sweep_function.handle(
                {}, a_lambda_context(), clock=self.time, policy=self.policy, worker=self.worker_program
            )
            if self.swept[0] is not block:
                self.swept = block, began
            return answer

        self.jobs.append(("sweep", job))

    # ---- agents, and people at the API

    def _boot(self, notebook: Notebook) -> None:
        ours = [each for each in blocks(decoded(notebook.booted)) if each.stack == STACK and each.intact]
        if ours:
            self.reports[notebook.name] = 0
            flips = FLIPS if self.chance.fault(0.5) else 0
            self.at(self.now + 1_000, partial(self._report, notebook, notebook.boots, flips))

    def _report(self, notebook: Notebook, boot: int, flips: int = 0, *, once: bool = False) -> None:
        alive = self.account.notebooks.get(notebook.name) is notebook and notebook.boots == boot
        if not alive or notebook.status != "InService" or not (self.faults or once):
            return
        self.reports[notebook.name] += 1
        vouched = next((worker for worker in WORKERS if worker.encode() in (decoded(notebook.booted) or b"")), "")
        body = a_body(
            boot=f"boot-{boot}",
            booted_at=notebook.changed // 1000,
            sequence=self.reports[notebook.name],
            worker=vouched if self.reports[notebook.name] <= 2 else "",
            **(_FLIPPED if flips % 2 else self.chance.pick(_MODES)),
        )
        self.counts["reports that flip"] += bool(flips)
        caller = {"accountId": NUMBER, "userArn": f"arn:aws:sts::{NUMBER}:assumed-role/{notebook.role}/SageMaker"}
        event = an_api_event("POST", "/notebooks/{name}/report", notebook.name.lower(), body=json.dumps(body))
        event["requestContext"]["identity"] = caller

        def job() -> Any:
            response = report_function.handle(event, a_lambda_context(), clock=self.time, worker=self.worker_program)
            reply = json.loads(response["body"])
            if response["statusCode"] == 200 and notebook.boots == boot:
                self.logins.answered(notebook, reply)
            sent = reply.get("worker")
            if sent is not None:
                self.hold(
                    hashlib.sha256(sent.encode()).hexdigest() == vouched, "an agent got another worker than its own"
                )
                self.invariants.checked["workers sent"] += 1
            return response

        self.jobs.append(("report", job))
        if once:
            return
        pause = FLIP_EVERY if flips else SYNC * 1000
        self.at(self.now + pause, partial(self._report, notebook, boot, max(0, flips - 1)))

    def _all_report(self) -> None:
        """Every notebook with an agent reports once, in the calm."""
        running = [each for each in self.account.notebooks.values() if each.status == "InService"]
        heard = [each for each in running if self.reports.get(each.name)]
        before = {each.name: self.logins.machine(each).answers for each in heard}
        for each in heard:
            self._report(each, each.boots, once=True)
        self._drain()
        for each in heard:
            if self.logins.machine(each).answers > before[each.name]:
                self.logins.settled(each)

    def wake(self, name: str) -> None:
        event = an_api_event("POST", "/notebooks/{name}/start", name)
        self.jobs.append(("start", lambda: start_function.handle(event, a_lambda_context(), clock=self.time)))

    def look_up(self, route: str, name: str) -> None:
        event = an_api_event("GET", route, name)
        self.jobs.append(("lookup", lambda: lookup_function.handle(event, None, clock=self.time)))

    def next_block(self) -> None:
        self.block = BLOCKS[1 - BLOCKS.index(self.block)]

    def worker_program(self) -> WorkerProgram:
        """The worker of the version that is deployed."""
        return WorkerProgram(PROGRAMS[BLOCKS.index(self.block)], self.block.settings["WORKER"])

    def policy(self, _: Settings) -> BlockPolicy:
        return BlockPolicy("ssh", FALLBACK, self.block, UPGRADE_AFTER)

    def hold(self, held: bool, otherwise: str) -> None:
        if not held:
            raise InvariantError(otherwise)

    def unforeseen(self, *_: Any, **__: Any) -> None:
        """A handler met an error that nobody foresaw, and logged it."""
        error = sys.exc_info()[1]
        foreseen = clients.translate(error) if isinstance(error, Exception) else None
        if isinstance(foreseen, RetryableError) or _is_denied(foreseen):
            return
        self.trace.append(f"unforeseen: {_told(error)}")
        raise InvariantError(f"unforeseen: {_told(error)}")


_OF_THE_TABLE = {"get_item", "batch_get_item", "query", "put_item", "update_item", "delete_item"}
RATE_LIMITED = {
    "update_notebook_instance",
    "start_notebook_instance",
    "stop_notebook_instance",
    "create_notebook_instance_lifecycle_config",
    "update_notebook_instance_lifecycle_config",
    "delete_notebook_instance_lifecycle_config",
}
"""SageMaker's control-plane writes, of which there is one a second for an account."""

_HINGES = (
    ("list_notebook_instances", False),
    ("list_notebook_instances", True),
    ("list_tags", False),
    ("describe_notebook_instance_lifecycle_config", False),
)
"""Reads that taking a block out, or making a configuration, hangs on; whether of a later page."""

_WRITES = RATE_LIMITED | {
    "add_tags",
    "delete_tags",
    "authorize_security_group_ingress",
    "authorize_security_group_egress",
    "revoke_security_group_ingress",
    "revoke_security_group_egress",
}


_DENIABLE = tuple(
    sorted(
        _WRITES
        | {"describe_notebook_instance", "list_notebook_instances", "list_tags", "get_resources"}
        | {"describe_notebook_instance_lifecycle_config", "list_notebook_instance_lifecycle_configs"}
        | {"describe_security_groups", "describe_security_group_rules", "describe_network_interfaces"}
        | {"describe_instance_connect_endpoints"}
        | {"send_message", "send_message_batch", "put_events", "publish", "get_secret_value", "get_parameters_by_path"}
        | _OF_THE_TABLE
    )
)
"""What a service control policy denies for a while: any operation that is called."""

_MODES: tuple[dict[str, Any], ...] = (
    {"modes": ["ngrok"]},
    {"modes": ["bastion"], "host": None, "port": None},
    {
        "modes": ["eice", "ngrok"],
        "phase": "failed",
        "host": None,
        "port": None,
        "phases": {"eice": "connected", "ngrok": "failed"},
        "problems": {"ngrok": {"code": "ngrok-unreachable", "message": "ngrok cannot be reached"}},
    },
    {"modes": [], "phase": "off", "host": None, "port": None},
)
"""What an agent may be doing, whatever it was told."""

FLIPS = 20
"""Reports of an agent that flips."""

_FLIPPED: dict[str, Any] = {
    "modes": ["ngrok"],
    "phase": "failed",
    "host": None,
    "port": None,
    "problem": {"code": "ngrok-ended", "message": "ngrok exited"},
}

_BATCHES = {"batch_get_item", "send_message_batch", "put_events"}
"""Requests of which AWS may carry out a part."""

KINDS = (
    *("calls denied", "calls refused, because the token had expired", "reads that were stale"),
    *("batches of which a part was refused", "invocations whose clock is off", "reports that flip"),
    *("sweeps that overlap", "notebooks made again under a deleted one's name"),
    *("calls throttled", "calls lost", "calls obeyed, and the answer lost", "calls obeyed twice"),
    *("calls killed before a call", "calls killed after a call"),
    *("signals dropped", "signals doubled", "signals late, and so out of order", "messages delivered twice"),
)
"""What is to happen at least a thousand times in a million steps."""


def _expired(operation: str) -> ClientError:
    """A refused token. The tagging API has a code for it; SageMaker's answer is UNCONFIRMED(expired-page)."""
    if operation == "get_resources":
        return refusal("PaginationTokenExpiredException", "The specified PaginationToken has expired")
    return refusal("ValidationException", "Invalid NextToken")


def _is_denied(error: BaseException | None) -> bool:
    """Whether AWS denied an action where no record can show it: the invocation fails, and an alarm fires."""
    return isinstance(error, TerminalError) and error.problem.code == NOT_ALLOWED


def _told(error: BaseException | None) -> str:
    lines = traceback.format_exception(error)
    return "".join(lines)[-1500:]


def _named(given: dict[str, Any]) -> str:
    keys = ("NotebookInstanceName", "NotebookInstanceLifecycleConfigName", "ResourceArn", "GroupId")
    return " ".join(str(given[key]).rpartition("/")[2] for key in keys if key in given)


def _delivered(number: int, message: Message) -> dict[str, Any]:
    return {
        "messageId": str(number),
        "body": message.body,
        "attributes": {"SentTimestamp": str(message.sent), "ApproximateReceiveCount": str(message.receives)},
    }


def _event(kind: str, resource: Notebook | LifecycleConfig) -> dict[str, Any]:
    """As in events/*.json, with what the handlers may read."""
    match kind, resource:
        case "status", Notebook():
            return {
                "detail-type": "SageMaker Notebook Instance State Change",
                "resources": [resource.arn],
                "detail": {"NotebookInstanceName": resource.name, "NotebookInstanceStatus": resource.status},
            }
        case "tags", Notebook():
            return {
                "detail-type": "Tag Change on Resource",
                "resources": [resource.arn],
                "detail": {"changed-tag-keys": list(resource.retagged), "tags": dict(resource.tags), "version": 3.0},
            }
    return {
        "detail-type": "SageMaker Notebook Lifecycle Config State Change",
        "resources": [resource.arn],
        "detail": {"NotebookInstanceLifecycleConfigName": resource.name, "LastModifiedTime": resource.changed},
    }


class _Client:
    """A botocore client whose methods are the run's calls."""

    def __init__(self, run: Run, service: str) -> None:
        self._run, self._service = run, service

    def __getattr__(self, operation: str) -> Any:
        method = partial(self._run.call, self._service, operation)
        setattr(self, operation, method)
        return method

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=lambda **given: pages(getattr(self, operation), given))


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def bound(run: Run) -> Iterator[None]:
    """The handlers run in `run`'s account for this long."""
    made: dict[str, _Client] = {}
    with ExitStack() as stack:
        enter = stack.enter_context
        enter(patch.dict(os.environ, ENVIRONMENT | (WITH_CERTIFICATES if run.certificates else {})))
        enter(clients_made_by(lambda service: made.setdefault(service, _Client(run, service))))
        enter(patch.object(mails, "STACK_LIMIT", 2))  # so that a run of some hours has a digest
        enter(redirect_stdout(_Nowhere()))  # metrics are printed
        enter(patch.object(Logger, "exception", run.unforeseen))
        secrets.forget()
        certificate.forget()
        lookup.forget()
        requests.forget()
        logging.disable(logging.CRITICAL)
        stack.callback(logging.disable, logging.NOTSET)
        yield
