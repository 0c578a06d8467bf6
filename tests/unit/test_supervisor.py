"""A run of the local system leaves nothing: no process, no folder, no file, whatever ends it and whenever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import processes
from patience import LIMIT_S as LIMIT

pytestmark = pytest.mark.slow  # each starts many processes

RUN = """
import os, subprocess, sys, tempfile, time
from pathlib import Path
from supervisor import Supervisor

SLEEP = ["sleep", "1000"]

def work(folder):
    (folder / "state").write_text("x")
    tempfile.mkdtemp()
    subprocess.Popen(["setsid", "-f", *SLEEP])               # detached, and adopted
    subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; sleep 1000; sleep 1000"])
    print("ready", flush=True)
    {work}

with Supervisor() as supervisor:
    file = Path(sys.argv[1])
    file.write_text("keys")
    supervisor.remove_at_the_end(file)
    status = supervisor.run(work)
print("interrupted" if status is None else f"status {{status}}", flush=True)
sys.exit(supervisor.say_that_it_ended(3) if status is None else status)
"""


class Run:
    def __init__(self, tmp_path: Path, work: str) -> None:
        self.folder, self.file = tmp_path / "tmp", tmp_path / "environment"
        self.folder.mkdir()
        program = tmp_path / "run.py"
        program.write_text(textwrap.dedent(RUN).format(work=work))
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(self.file)],
            env=os.environ | {"TMPDIR": str(self.folder), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,  # or `readline` would take more than its line
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().decode()

    def end(self) -> str:
        out, _ = self.process.communicate(timeout=LIMIT)
        self.said += out.decode()
        return self.said

    def processes(self) -> list[int]:
        """Those with this run's folder in their environment."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    told = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if f"TMPDIR={self.folder}".encode() in told:
                    found.append(int(entry.name))
        return found

    def assert_nothing_is_left(self) -> None:
        processes.wait_until("no process is left", lambda: not self.processes(), LIMIT)
        assert list(self.folder.iterdir()) == []
        assert not self.file.exists()


def once(number: int) -> Callable[[Run], None]:
    return lambda run: run.process.send_signal(number)


def to_all(number: int) -> Callable[[Run], None]:
    """As a terminal does it."""
    return lambda run: os.killpg(run.process.pid, number)


def again_and_again(run: Run) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) * 20:
        run.process.send_signal(number)


SIGNALS = {
    "SIGINT": once(signal.SIGINT),
    "SIGTERM": once(signal.SIGTERM),
    "SIGHUP": once(signal.SIGHUP),
    "Ctrl-C": to_all(signal.SIGINT),
    "closed terminal": to_all(signal.SIGHUP),
    "again and again": again_and_again,
}
WORK = ["time.sleep(1000)", "subprocess.run(SLEEP)", "while True: pass"]
AT_NIGHT = pytest.mark.nightly(sibling="test_a_signal_ends_everything_and_it_says_so")


@pytest.mark.parametrize(
    ("work", "send"),
    [
        # By day each signal during one kind of work, and each kind of work twice.
        pytest.param(work, send, id=f"{work}, {name}", marks=[] if number % len(WORK) == WORK.index(work) else AT_NIGHT)
        for number, (name, send) in enumerate(SIGNALS.items())
        for work in WORK
    ],
)
def test_a_signal_ends_everything_and_it_says_so(tmp_path: Path, work: str, send: Callable[[Run], None]) -> None:
    run = Run(tmp_path, work)
    send(run)
    assert run.end().endswith("interrupted\n\nEnded: nothing is left running, and nothing on the disk.\n")
    assert run.process.returncode == 3
    run.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("work", "said", "status"),
    [
        ("return 0", "status 0", 0),
        ("return 7", "status 7", 7),
        ("raise ValueError('broken')", "ValueError: broken", 1),
        ("os.kill(os.getpid(), 9)", "status -9", 247),
    ],
)
def test_however_the_work_ends_nothing_is_left(tmp_path: Path, work: str, said: str, status: int) -> None:
    run = Run(tmp_path, work)
    assert said in run.end()
    assert run.process.returncode == status
    run.assert_nothing_is_left()


def test_the_work_clears_up_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    run = Run(tmp_path, "time.sleep(1000)")
    run.process.kill()
    run.end()
    run.assert_nothing_is_left()


def test_a_run_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = Run(tmp_path, "sys.stdin.read(0); time.sleep(1); return 0")
    finally:
        signal.signal(signal.SIGHUP, handler)
    run.process.send_signal(signal.SIGHUP)
    assert "status 0" in run.end()
    run.assert_nothing_is_left()


def test_nothing_is_said_to_a_terminal_that_is_gone(tmp_path: Path) -> None:
    run = Run(tmp_path, "time.sleep(1000)")
    assert run.process.stdout is not None
    run.process.stdout.close()
    run.process.send_signal(signal.SIGHUP)
    run.process.wait(LIMIT)
    run.assert_nothing_is_left()


def test_the_persons_own_settings_of_aws_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "of-another-account")
    monkeypatch.setenv("no_proxy", "example.com")
    run = Run(tmp_path, "print({k: v for k, v in os.environ.items() if k in ('AWS_PROFILE', 'no_proxy')}); return 0")
    assert "{'no_proxy': '127.0.0.1,example.com'}" in run.end()


MISSED = """
import os, subprocess, processes

processes.adopt_orphans()
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
found, looks = processes.descendants, []

def descendants():
    looks.append(1)
    return found() if len(looks) > 1 else []

processes.descendants = descendants
processes.end_all()
print("alive" if os.path.exists(f"/proc/{child.pid}") else "gone")
"""


def test_a_process_missing_from_one_reading_of_proc_is_still_ended() -> None:
    """Its parent may end while /proc is read: then it is below neither the old parent nor the new one."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", MISSED], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "gone\n"
