"""What is counted rather than timed: the real handlers in the small accounts of the tests, and the block and agent run for real."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from simulation.busy import WRITE, EachItsOwn
from simulation.run import BEGIN
from support.agent_env import NotebookHost, Sshd, Stack, make_reply
from support.aws_clients import listen
from support.notebook_env import NotebookEnv, notebook_env

from notebook_ssh.adapters.clients import client
from notebook_ssh.controllers.observe import SCRIPT_CACHE_S
from notebook_ssh.model.block_program import BlockSettings, render_block
from notebook_ssh.model.managed_block import Inserted, insert_block

PROJECT = Path(__file__).resolve().parent.parent
LAYER = PROJECT / "layers" / "notebook_agent"
SETTLING = 5.0
"""Seconds after which an agent that connected has done what comes after it."""

OWNERS = b"#!/bin/sh\nexit 0\n"


@contextmanager
def _counted() -> Iterator[tuple[NotebookEnv, Counter[str]]]:
    """An account, and the requests that the reconciler makes in it, by operation; other people's are not counted."""
    counts: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch, notebook_env(patch, STATUS_TAGS="true") as env:
        within = [False]

        def note(model: Any, **_: Any) -> None:
            if within[0]:
                counts[model.name] += 1

        for service in ("dynamodb", "sagemaker", "events", "sqs"):
            listen(client(service), "provide-client-params", note)
        deliver = env.deliver

        def watched(*, receives: int = 1) -> Any:
            within[0] = True
            try:
                with redirect_stdout(io.StringIO()):  # its metrics
                    return deliver(receives=receives)
            finally:
                within[0] = False

        patch.setattr(env, "deliver", watched)
        yield env, counts


def one_tag() -> tuple[Counter[str], Counter[str], Counter[str], Counter[str]]:
    """Requests for a tag that installs the block, for one where the configuration has it, and for no change, twice."""
    with _counted() as (env, counts):
        env.lifecycle_config("team")
        env.notebook("box", "team")
        env.notebook("other", "team")
        env.settle()
        counts.clear()
        env.tag("box", ssh="ngrok")
        env.settle(finish=False)
        block = Counter(counts)
        counts.clear()
        env.tag("other", ssh="ngrok")
        env.settle(finish=False)
        shared = Counter(counts)
        env.settle()
        env.now += SCRIPT_CACHE_S
        counts.clear()
        env.look("box")
        env.settle(finish=False)
        nothing = Counter(counts)
        counts.clear()
        env.look("box")
        env.settle(finish=False)
        return block, shared, nothing, Counter(counts)


def burst(notebooks: int, signals: int) -> float:
    """How often each notebook is reconciled when `signals` events arrive for `notebooks` notebooks."""
    with _counted() as (env, counts):
        env.lifecycle_config("team")
        for number in range(notebooks):
            env.notebook(f"box-{number}", "team", ssh="ngrok")
        env.settle(rounds=60)
        counts.clear()
        env.messages.clear()
        for number in range(signals):
            env.look(f"box-{number % notebooks}")
        env.settle(rounds=60, finish=False)
        return counts["DescribeNotebookInstance"] / notebooks


def many_configurations(changed: int) -> tuple[float, float]:
    """Seconds of a simulated clock until the block is installed in `changed` configurations, and the share of writes refused.

    With the workers that are deployed, and every rate of SageMaker's enforced.
    """
    run = EachItsOwn(changed)
    run.play_out()
    if len(run.wrote) < changed:
        raise SystemExit(f"only {len(run.wrote)} of {changed} configurations have the block")
    refused = run.refused[WRITE]
    return (run.wrote[-1] - BEGIN) / 1000, refused / (refused + len(run.wrote))


# ---- on the notebook ---------------------------------------------------------------------------


@contextmanager
def on_start() -> Iterator[Path]:
    """An owner's script with our block in it, as the kernel would run it, in a folder that plays `/`."""
    agent = (LAYER / "agent.py").read_text()
    # It ends at once, and weighs what the real one weighs.
    ending = f"import sys\nsys.exit(0)\nTEXT = {agent!r}\n"
    settings = BlockSettings(
        "team-ssh", "1.0.0", "us-east-1", "https://a.execute-api.us-east-1.amazonaws.com/v1", "ssh"
    )
    block = render_block((LAYER / "block.sh").read_text(), (LAYER / "boot.py").read_text(), ending, settings)
    outcome = insert_block(OWNERS, block)
    if not isinstance(outcome, Inserted):
        raise SystemExit(f"the block does not fit: {outcome}")
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        script = Path(folder) / "OnStart"
        script.write_bytes(outcome.script)
        script.chmod(0o700)
        try:
            yield script
        finally:
            _end_those_with(f"NOTEBOOK_SSH_ROOT={folder}\0".encode())


def run_on_start(script: Path) -> None:
    """Return when the script has ended, as SageMaker waits for it."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "NOTEBOOK_SSH_ROOT": str(script.parent),
        "NOTEBOOK_SSH_PYTHON": sys.executable,
    }
    subprocess.run([script], env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True, cwd="/")


def _end_those_with(marker: bytes) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marker in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Idle:
    """An agent with a standing tunnel. memory: MiB. share: of a core. syncs: reports during the time watched."""

    memory: float
    share: float
    syncs: int


def idle_agent(seconds: float, sync_after: int) -> Idle:
    """An agent that has nothing to do for `seconds` but to sync every `sync_after`."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "sshd").mkdir()
        with Stack() as stack, Sshd(Path(folder) / "sshd") as sshd:
            stack.reply = make_reply("ngrok", sync_after=sync_after)
            with NotebookHost(Path(folder) / "notebook", stack, sshd) as notebook:
                agent = notebook.start()
                notebook.wait_connected()
                time.sleep(SETTLING)
                cpu, asked, began = _cpu_of(_agents(agent.pid)), len(stack.received_at), time.monotonic()
                time.sleep(seconds)
                share = (_cpu_of(_agents(agent.pid)) - cpu) / (time.monotonic() - began)
                return Idle(_memory_of(_agents(agent.pid)), share, len(stack.received_at) - asked)


def _agents(process: int) -> list[int]:
    """The agent and the programs that it keeps running (docs/decisions/0003), less the ngrok that it was told to run."""
    found = [process]
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        if b"\0start\0--all\0" not in Path(f"/proc/{child}/cmdline").read_bytes():  # ngrok's, or what plays it
            found += _agents(int(child))
    return found


def _cpu_of(processes: list[int]) -> float:
    """CPU seconds so far, with those of children that have ended (proc(5): utime, stime, cutime, cstime)."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory_of(processes: list[int]) -> float:
    statuses = (Path(f"/proc/{process}/status").read_text() for process in processes)
    return sum(int(status.partition("VmRSS:")[2].split()[0]) for status in statuses) / 1024
