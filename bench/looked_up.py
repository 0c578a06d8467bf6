"""How long it takes from a tunnel that is up to the address in the lookup's answer, on the local run as `make demo` has it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

from processes import free_port
from world import OWNERS_SCRIPT, World

NAME = "my-notebook"
LIMIT = 60
"""Seconds in which each step must end."""


def looked_up_after(starts: int) -> list[float]:
    """Seconds between the tunnel's first open port and the lookup's answer with it, for each start of a notebook.

    Deployed functions with IAM enforced, the real agent, and real curl that asks again and again.
    """
    world = World()
    try:
        world.start()
        world.deploy()
        world.move_in()
        world.create_lifecycle_config("team-setup", OWNERS_SCRIPT)
        world.create_notebook(NAME, "team-setup")
        _until(lambda: world.state(NAME) == "InService", "the notebook starts")
        world.tag(NAME, ssh="ngrok")
        _until(lambda: world.status(NAME) == "pending-restart", "the block is in its script")
        return sorted(_one_start(world) for _ in range(starts))
    finally:
        world.close()


def _one_start(world: World) -> float:
    port = free_port()
    (world.cloud.home / "faults.json").write_text(json.dumps({"port": port}))
    world.sagemaker.stop_notebook_instance(NotebookInstanceName=NAME)
    _until(lambda: world.state(NAME) == "Stopped", "the notebook stops")
    world.sagemaker.start_notebook_instance(NotebookInstanceName=NAME)
    _until(lambda: _open(port), "the tunnel is up")
    up = time.monotonic()
    _until(
        lambda: world.curl(f"/notebooks/{NAME}/address").body.split()[-1:] == [str(port)], "its address is looked up"
    )
    return time.monotonic() - up


def _until(seen: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not seen():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {LIMIT} s")
        time.sleep(0.005)


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
