"""How long it takes from a tunnel that is up to an address that the stack knows, by the real agent at a boot."""

from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path

from agent_env import NotebookHost, Sshd, Stack, free_port, make_reply, wait_until


def told_after(boots: int) -> list[float]:
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
        told = next(n for n, report in enumerate(stack.reports) if report["phase"] == "connected")
        received: float = stack.received_at[told]
        return received - up


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
