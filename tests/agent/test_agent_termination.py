"""SIGTERM, which systemd sends to every process of the unit at once, at any moment: also between fork and exec.

What is left then runs until systemd kills it, 90 seconds later, or without systemd until a stop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.agent_env import PROGRAMS, NotebookHost, Stack, make_reply, processes_of, wait_until

from patience import LIMIT_S

PARENT = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import agent

folder = pathlib.Path(agent.ROOT)
(folder / "home/ec2-user").mkdir(parents=True)
(folder / "endless.py").write_text("import signal\\nprint('alive', flush=True)\\nsignal.pause()\\n")
os.dup2(os.open(folder / "log", os.O_WRONLY | os.O_CREAT), 3)
terminate = lambda: os.kill(os.getpid(), signal.SIGTERM)
"""
"""A process of the agent."""


def run_parent(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run PARENT, and `script` with what PARENT defines."""
    python = os.environ.get("AGENT_PYTHON") or sys.executable
    return subprocess.run(
        [python, "-I", "-c", PARENT + script, PROGRAMS],
        env={"NOTEBOOK_SSH_ROOT": str(tmp_path)}, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def test_a_child_that_it_meets_before_its_program_ends(tmp_path: Path) -> None:
    done = run_parent(
        tmp_path,
        """
os.register_at_fork(after_in_child=terminate)
with agent.spawn(f"{folder}/endless.py") as child:
    print(child.stdout.readline(), flush=True)
    child.kill()
print(child.returncode)
""",
    )
    assert (done.stdout, done.stderr) == ("b''\n-15\n", "")


def test_a_parent_that_it_meets_while_a_child_starts_ends_with_that_child(tmp_path: Path) -> None:
    """The child has the parent's standard error: `run_parent` returns once both have ended."""
    done = run_parent(
        tmp_path,
        """
os.register_at_fork(after_in_parent=terminate)
agent.spawn(f"{folder}/endless.py")
print("goes on", flush=True)
signal.pause()
""",
    )
    assert (done.stdout, done.returncode, done.stderr) == ("", -signal.SIGTERM, "")


def handles_sigterm(pid: int) -> bool:
    """Return whether a process catches or ignores SIGTERM: proc(5), the masks of /proc/PID/status."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    fields = dict(line.split(":\t") for line in status.splitlines())
    return any(int(fields[name], 16) >> (signal.SIGTERM - 1) & 1 for name in ("SigIgn", "SigCgt"))


@pytest.mark.parametrize("mode", ["off", "bastion", "ngrok"])
def test_the_kernel_alone_ends_each_process(mode: str, notebook: NotebookHost, stack: Stack) -> None:
    """Python runs a handler once the present call returns: of a SIGTERM just before a read, only at the end of that."""
    stack.reply = make_reply(mode, sync_after=1)
    notebook.start()
    wait_until(lambda: stack.last_report().get("phase") in ("off", "connected"), "a report", notebook)
    ours = {pid: line for pid, line in processes_of(notebook).items() if "/opt/notebook-ssh/" in line}
    assert len(ours) >= 2
    assert [line for pid, line in ours.items() if handles_sigterm(pid)] == []
