"""A fleet that starts within a minute: what its events, its first reports and a sweep do to the deployed stack.

    make load NOTEBOOKS=1000 SECONDS=60      (its second part)

The notebooks are SageMaker's as far as statuses, tags, configurations and events go, with no machine behind them; their
first reports are sent for them. Everything from the event on is the deployed stack: rules, queues, functions, table, API.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import processes
from emulator.process import ACCOUNT, Emulator
from environment import OWNERS_SCRIPT
from load import ROLE, Fleet, Outcome, Request, a_report, show
from notebook_ssh.model.managed_block import remove_block

SHARE = 20
"""Notebooks to a configuration. SageMaker takes one write of a configuration a second."""

BOOT_SECONDS = 5
"""From the start of a notebook to its first report."""

PATIENCE = 1800
"""Seconds that any step may take, on a machine that has other work."""

DEAD_LETTERS = ("NotebookDeadLetterQueue", "RuleDeadLetterQueue", "EventDeadLetterQueue")

WRITES = (
    "UpdateNotebookInstanceLifecycleConfig",
    "CreateNotebookInstanceLifecycleConfig",
    "DeleteNotebookInstanceLifecycleConfig",
    "UpdateNotebookInstance",
    "StartNotebookInstance",
    "StopNotebookInstance",
    "DeleteTags",
    "AddTags",
)
"""What the stack may write to SageMaker."""


class UnexpectedResultError(Exception):
    """The fleet is not as it should be; one sentence says how."""


class Starts:
    """`notebooks` notebooks, 20 to a configuration, first created and stopped, then tagged and set up."""

    def __init__(self, emulator: Emulator, notebooks: int, *, status_tags: bool) -> None:
        self.fleet = Fleet(emulator, StatusTags=str(status_tags).lower())
        self.status_tags = status_tags
        self.emulator, self.env, self.stack = self.fleet.emulator, self.fleet.env, self.fleet.stack
        self.names = [f"box-{number}" for number in range(notebooks)]
        self.configurations = [f"shared-{number}" for number in range(math.ceil(notebooks / SHARE))]
        queues = self.emulator.client("sqs").list_queues()["QueueUrls"]
        (self.queue,) = (url for url in queues if "-NotebookQueue-" in url)
        self.sagemaker = self.env.sagemaker

    # ---- what people do --------------------------------------------------------------------------------------

    def create(self) -> None:
        """Configurations with an owner's script, and notebooks with no tag, stopped."""
        for name in self.configurations:
            self.env.create_lifecycle_config(name, OWNERS_SCRIPT)
        for number, name in enumerate(self.names):
            self.sagemaker.create_notebook_instance(
                NotebookInstanceName=name,
                InstanceType="ml.t3.medium",
                RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{ROLE}",
                LifecycleConfigName=self.configurations[number // SHARE],
            )
        self._wait("all run", lambda: self._all_are("InService"))
        for name in self.names:
            self.sagemaker.stop_notebook_instance(NotebookInstanceName=name)
        self._wait("all are stopped", lambda: self._all_are("Stopped"))

    def tag(self) -> None:
        """Request SSH to all of them; it is set up once the scripts have the block and no function has work."""
        for name in self.names:
            self.sagemaker.add_tags(ResourceArn=self.env.arn(name), Tags=[{"Key": "ssh", "Value": "ngrok"}])
        self._wait("all are known", lambda: self._all_show("stopped"))
        self.settle()

    def start(self, seconds: float) -> Outcome:
        """Start them all within `seconds`; each reports a little later."""
        began = time.monotonic()
        booted, step = int(time.time()), seconds / len(self.names)
        reports = [
            Request(turn * step + BOOT_SECONDS, "report", "POST", f"/notebooks/{name}/report", body)
            for turn, name in enumerate(self.names)
            for body in [a_report(turn, 1, booted + int(turn * step))]
        ]

        def start_all() -> None:
            for turn, name in enumerate(self.names):
                time.sleep(max(0.0, began + turn * step - time.monotonic()))
                self.sagemaker.start_notebook_instance(NotebookInstanceName=name)
            print(f"The last one was started after {time.monotonic() - began:.0f} s.")

        starter = threading.Thread(target=start_all)
        starter.start()
        outcome = self.fleet.load(reports, seconds + BOOT_SECONDS)
        starter.join()
        self._wait("all are connected", lambda: self._all_show("connected"))
        print(f"All were connected after {time.monotonic() - began:.0f} s.")
        self.settle()
        return outcome

    def sweep(self) -> dict[str, Any]:
        """Let the sweep run once, and do what it asks for; what it says."""
        functions = self.emulator.client("lambda")
        (name,) = (
            each["FunctionName"]
            for each in functions.list_functions()["Functions"]
            if "-Sweep-" in each["FunctionName"]
        )
        answer = functions.invoke(FunctionName=name, Payload=b"{}")
        told = json.load(answer["Payload"])
        if "FunctionError" in answer:
            raise UnexpectedResultError(f"the sweep failed: {told}")
        self.settle()
        return dict(told)

    def ask(self) -> Outcome:
        """Ask for every address."""
        asked = [
            Request(0, "lookup", "GET", f"/notebooks/{name}/address", wanted=f"0.tcp.ngrok.io {10_000 + turn}".encode())
            for turn, name in enumerate(self.names)
        ]
        return self.fleet.load(asked, seconds=0)

    # ---- what is seen ----------------------------------------------------------------------------------------

    @contextmanager
    def counted(self) -> Iterator[Callable[[], dict[str, int]]]:
        """Count what the stack writes to SageMaker while inside."""
        counts = [
            {"call": f"SageMaker.{write}", "effect": "count", "by": "-ReconcileNotebook", "times": sys.maxsize}
            for write in WRITES
        ]
        with self.emulator.faults(*counts):
            yield lambda: dict(zip(WRITES, self.emulator.faults_met(), strict=True))

    def settle(self) -> None:
        """Wait until no message is left."""
        self._wait("the queue is empty", lambda: self.emulator.waiting(self.queue) == 0)

    def wrong(self) -> list[str]:
        """What should not be, in the end: dead letters, old status tags, scripts that are not the owner's with a block."""
        letters = {name: self.emulator.waiting(self.stack.outputs[name]) for name in DEAD_LETTERS}
        found = [f"{number} messages in {name}" for name, number in letters.items() if number]
        if self._shown("connected") != (len(self.names) if self.status_tags else 0):
            found.append(f"{self._shown('connected')} status tags say that their notebook is connected")
        for name in self.configurations:
            script = self.env.on_start(name)
            if script == OWNERS_SCRIPT or remove_block(script, self.stack.name) != OWNERS_SCRIPT:
                found.append(f"the script of {name} is not its owner's with our block")
        return found

    def _all_are(self, state: str) -> bool:
        pages = self.sagemaker.get_paginator("list_notebook_instances").paginate(
            StatusEquals=state, PaginationConfig={"PageSize": 100}
        )
        return sum(len(page["NotebookInstances"]) for page in pages) == len(self.names)

    def _all_show(self, status: str) -> bool:
        """Whether people are told `status` of all notebooks."""
        told = json.loads(self.fleet.look_up("/notebooks") or "[]")
        return [each["status"] for each in told] == [status] * len(self.names)

    def _shown(self, status: str) -> int:
        """Notebooks that have `status` in their tags."""
        pages = (
            self.emulator.client("resourcegroupstaggingapi")
            .get_paginator("get_resources")
            .paginate(TagFilters=[{"Key": "ssh-status", "Values": [status]}])
        )
        return sum(len(page["ResourceTagMappingList"]) for page in pages)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        processes.wait_until(what, condition, PATIENCE, alive=self.emulator.alive)


def play(starts: Starts, seconds: float, most_growth: float) -> None:
    """The whole of it, told on standard output. Raises UnexpectedResultError."""
    with starts.counted() as counted:
        starts.create()
        began = time.monotonic()
        starts.tag()
        set_up = counted()
        print(f"Tagged and set up in {time.monotonic() - began:.0f} s: {_said(set_up)}.")
        began = time.monotonic()
        outcome = starts.start(seconds)
        started = counted()
        print(
            f"Started and connected, with nothing left to do, in {time.monotonic() - began:.0f} s: {_said(started, set_up)}.\n"
        )
        show(outcome, time.monotonic() - began)
        told = starts.sweep()
        swept = counted()
        print(f"\nThe sweep says {told}, and led to: {_said(swept, started)}.")
    asked = starts.ask()
    print(f"Asked for: {len(asked.seconds['lookup']):,} addresses, all right; {len(asked.wrong)} wrong.")
    grown = outcome.memory[-1][1] - outcome.memory[0][1]
    print(f"While they started, the emulator grew by {grown:.0f} MB.")
    wrong = [f"{number} × {kind}: {why}" for each in (outcome, asked) for (kind, why), number in each.wrong.items()]
    wrong += starts.wrong()
    wrong += _wrong_writes(starts, set_up, started)
    if swept != started:
        wrong.append("the sweep found something to write")
    if grown > most_growth:
        wrong.append(f"the emulator grew by {grown:.0f} MB")
    if wrong:
        raise UnexpectedResultError("; ".join(wrong))


def _wrong_writes(starts: Starts, set_up: dict[str, int], started: dict[str, int]) -> Iterator[str]:
    """What was written otherwise than once for each script, and once or twice for each notebook's status tag."""
    scripts, tags = len(starts.configurations), len(starts.names) if starts.status_tags else 0
    due = dict.fromkeys(WRITES, 0) | {"UpdateNotebookInstanceLifecycleConfig": scripts}
    for step, seen, before in (("set up", set_up, 0), ("start", started, set_up["AddTags"])):
        shown = seen["AddTags"] - before  # one status tag for each notebook, or two: the one before it as well
        if {**seen, "AddTags": 0} != due or not tags <= shown <= 2 * tags:
            yield f"to {step} took {_said(seen)} in all"


def _said(now: dict[str, int], before: dict[str, int] | None = None) -> str:
    """The writes from `before` to `now`."""
    made = {write: number - (before or {}).get(write, 0) for write, number in now.items()}
    return ", ".join(f"{number:,} × {write}" for write, number in made.items() if number) or "no write"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="local/starts.py")
    parser.add_argument("--notebooks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60, help="within which all of them are started")
    # They are written at most once a minute, which a short run would have to wait for.
    parser.add_argument("--no-status-tags", dest="status_tags", action="store_false")
    parser.add_argument("--most-growth", type=float, default=math.inf, help="of the emulator, MB; more is a failure")
    given = parser.parse_args()
    emulator = Emulator(machines=False)
    try:
        play(Starts(emulator, given.notebooks, status_tags=given.status_tags), given.seconds, given.most_growth)
    except (UnexpectedResultError, processes.DidNotStartError) as problem:
        print(f"\nFailed: {problem}.")
        return 1
    finally:
        emulator.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
