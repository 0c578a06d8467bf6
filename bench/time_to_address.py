"""How long an address takes, from a tunnel whose port is open, to the stack and to the lookup's response."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support.agent_env import NotebookHost, Sshd, Stack, free_port, make_reply, wait_until

from environment import OWNERS_SCRIPT, LocalEnv

NAME = "my-notebook"
LIMIT = 60
"""Seconds in which each step must end."""


def seconds_to_report(boots: int) -> list[float]:
    """Seconds between the tunnel's first open port and the stack's receiving of the report that names it, for each boot."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Sshd(_made(Path(folder) / "sshd")) as sshd:
        return sorted(_one_boot(Path(folder) / str(number), sshd) for number in range(boots))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _one_boot(root: Path, sshd: Sshd) -> float:
    port = free_port()
    with Stack() as stack, NotebookHost(root, stack, sshd) as notebook:
        stack.reply = make_reply("ngrok", sync_after=3600)
        stack.reply["ngrok"]["url"] = f"tcp://127.0.0.1:{port}"
        notebook.start()
        wait_until(lambda: _open(port), f"the tunnel is up at {port}", notebook)
        up = time.monotonic()
        notebook.wait_connected()
        first = next(n for n, report in enumerate(stack.reports) if report["phase"] == "connected")
        received: float = stack.received_at[first]
        return received - up


def seconds_to_lookup(starts: int) -> list[float]:
    """Seconds between the tunnel's first open port and the lookup's answer with it, for each start of a notebook.

    Deployed functions with IAM enforced, the real agent, and real curl that asks again and again.
    """
    env = LocalEnv()
    try:
        env.start()
        env.deploy()
        env.move_in()
        env.create_lifecycle_config("team-setup", OWNERS_SCRIPT)
        env.create_notebook(NAME, "team-setup")
        _until(lambda: env.state(NAME) == "InService", "the notebook starts")
        env.tag(NAME, ssh="ngrok")
        _until(lambda: env.status(NAME) == "pending-restart", "the block is in its script")
        return sorted(_one_start(env) for _ in range(starts))
    finally:
        env.close()


def _one_start(env: LocalEnv) -> float:
    port = free_port()
    (env.cloud.home / "faults.json").write_text(json.dumps({"port": port}))
    env.sagemaker.stop_notebook_instance(NotebookInstanceName=NAME)
    _until(lambda: env.state(NAME) == "Stopped", "the notebook stops")
    env.sagemaker.start_notebook_instance(NotebookInstanceName=NAME)
    _until(lambda: _open(port), "the tunnel is up")
    up = time.monotonic()
    _until(lambda: env.curl(f"/notebooks/{NAME}/address").body.split()[-1:] == [str(port)], "its address is looked up")
    return time.monotonic() - up


def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not reached():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {LIMIT} s")
        time.sleep(0.005)


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
