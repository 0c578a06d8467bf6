"""Every program that the local run starts is waited for, and one that ends at its start says why."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import namespaces, needs

import environment as local
import processes
from emulator.process import PROJECT
from notebook.machine import BootFailedError, Credentials, Machine
from patience import LIMIT_S as LIMIT

BARE = """
import sys
from pathlib import Path
sys.path[:0] = ["local", "layers/core", "tests", "tests/unit"]
import test_processes as here
account = here.an_account()
try:
    account.start_bastion()
    print(here.banner(account.bastion_port))
finally:
    account.close()
"""


def an_account() -> local.LocalEnv:
    """An account that only has a user and a place for the bastion's files."""
    account = local.LocalEnv()
    person = local.Person(account.emulator.home / "laptop", {})
    (person.home / ".ssh").mkdir(parents=True)
    local._make_key(person.identity, "mario")
    account.person = person
    account.make_host_key()
    return account


def banner(port: int) -> str:
    """What a server on 127.0.0.1 says first; nothing when none listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
            return connection.recv(64).decode()
    except OSError:
        return ""


@pytest.fixture
def account() -> Iterator[local.LocalEnv]:
    made = an_account()
    yield made
    made.close()


def an_sshd(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The first sshd on PATH is this shell script from now on."""
    program = folder / "sshd"
    program.write_text(f"#!/bin/sh\n{text}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.needs_root
def test_the_bastion_starts_on_a_machine_on_which_no_sshd_ever_ran() -> None:
    needs.root("to have an empty /run")
    needs.mounts()
    bare = ["sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh", sys.executable, "-c", BARE]
    done = subprocess.run(
        [*namespaces.of_mounts(), *bare],
        cwd=PROJECT, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("SSH-2.0-"), done.stderr


def test_a_bastion_that_ends_at_its_start_stops_the_run_there(
    account: local.LocalEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_sshd(tmp_path, monkeypatch, "echo 'Missing privilege separation directory: /run/sshd' >&2\nexit 255\n")
    with pytest.raises(Exception, match=r"bastion.* 255: Missing privilege separation directory: /run/sshd"):
        account.start_bastion()


def test_a_bastion_that_listens_late_is_waited_for(
    account: local.LocalEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("sshd") or "/usr/sbin/sshd"
    an_sshd(tmp_path, monkeypatch, f'sleep 0.5\nexec {real} "$@"\n')
    account.start_bastion()
    assert banner(account.bastion_port).startswith("SSH-2.0-")


# ---- any program -------------------------------------------------------------------------------

PYTHON = [sys.executable, "-I", "-c"]
SERVER = "import socket, time; time.sleep(0.5); s = socket.create_server(('127.0.0.1', {})); time.sleep(600)"


def a_shell(text: str) -> list[str]:
    return ["sh", "-c", text]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def group_of(child: subprocess.Popen[bytes]) -> list[int]:
    """The living processes in the session of a program that was started: it and the shell that watches."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == child.pid and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize(
    ("command", "told"),
    [
        (a_shell("echo no room left >&2; exit 3"), "the toy ended at its start with status 3: no room left"),
        (a_shell("echo 1; echo 2; echo; echo 3; echo 4"), "the toy ended at its start with status 0: 2; 3; 4"),
        (a_shell("exit 4"), "the toy ended at its start with status 4, and says nothing"),
        (
            [*PYTHON, "def f(): 1 / 0\nf()"],
            "the toy ended at its start with status 1: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_program_that_ends_at_its_start_is_named_with_its_last_words(
    command: list[str], told: str, bound: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text("what it said at its last start\n")
    with pytest.raises(processes.DidNotStartError) as problem:
        processes.start("the toy", command, lambda: False, log=log, limit=LIMIT, bound=bound)
    assert str(problem.value) == told


@pytest.mark.parametrize(
    ("command", "bound"),
    [
        (a_shell("echo still waiting; exec sleep 600"), True),
        (a_shell("echo still waiting; cat"), False),
    ],
)
def test_a_program_that_never_does_its_job_is_ended_at_the_limit(
    command: list[str], bound: bool, tmp_path: Path
) -> None:
    with pytest.raises(processes.DidNotStartError) as problem:
        processes.start("the toy", command, lambda: False, log=tmp_path / "log", limit=0.3, bound=bound)
    assert str(problem.value) == "the toy does not do its job within 0.3 s: still waiting"


@pytest.mark.parametrize("bound", [True, False])
def test_a_program_that_is_not_there_is_named(bound: bool, tmp_path: Path) -> None:
    with pytest.raises(processes.DidNotStartError, match=r"^the toy .*(not found|No such file)"):
        processes.start("the toy", ["/no-such-program"], lambda: False, log=tmp_path / "log", bound=bound)


def test_what_answers_in_the_place_of_a_program_that_ended_does_not_count(tmp_path: Path) -> None:
    """As when another program has the port."""
    ended = tmp_path / "ended"

    def answers() -> bool:
        """The other program does so all the time; here from the moment on at which this one is over."""
        named = str(ended).encode()
        commands = (_command(one) for one in processes.descendants())
        return ended.exists() and not any(named in command for command in commands)

    with pytest.raises(processes.DidNotStartError, match="status 1: the port is taken"):
        processes.start(
            "the toy", a_shell(f"echo the port is taken; : > '{ended}'; exit 1"), answers, log=tmp_path / "log"
        )


def _command(process: int) -> bytes:
    """The command line of a process; nothing once it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_program_that_listens_late_is_waited_for_and_ended(tmp_path: Path) -> None:
    port = processes.free_port()
    child = processes.start(
        "the toy", [*PYTHON, SERVER.format(port)], lambda: listens(port), log=tmp_path / "log", limit=LIMIT
    )
    assert listens(port)
    processes.dismiss(child, patience=LIMIT)
    assert not listens(port)
    processes.wait_until("nothing of it is left", lambda: not group_of(child), LIMIT)


def test_the_end_of_a_bound_program_is_noticed(tmp_path: Path) -> None:
    child = processes.start("the toy", a_shell("exec sleep 600"), lambda: True, log=tmp_path / "log")
    processes.wait_until("it runs", lambda: "sleep" in _programs(group_of(child)), LIMIT)
    (toy,) = [one for one in group_of(child) if _programs([one]) == ["sleep"]]
    os.kill(toy, signal.SIGKILL)
    assert child.wait(LIMIT) == 128 + signal.SIGKILL
    processes.wait_until("nothing of it is left", lambda: not group_of(child), LIMIT)
    processes.dismiss(child, patience=LIMIT)


def test_a_bound_program_that_does_not_obey_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    stubborn = a_shell(f"trap '' TERM; : > '{ready}'; while :; do sleep 600; done")
    child = processes.start("the toy", stubborn, ready.exists, log=tmp_path / "log", limit=LIMIT)
    processes.dismiss(child, patience=0.2)
    processes.wait_until("nothing of it is left", lambda: not group_of(child), LIMIT)


def _programs(ids: list[int]) -> list[str]:
    found = []
    for one in ids:
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{one}/comm").read_text().strip())
    return found


# ---- a notebook --------------------------------------------------------------------------------

CREDENTIALS = Credentials("AKIAEXAMPLE", "secret", "token", 2e9)


def boot(home: Path) -> None:
    """Start a notebook whose disk is below `home`, with a script that would wait for ever."""
    home.mkdir()
    arn = "arn:aws:sagemaker:us-east-1:123456789012:notebook-instance/a"
    api = "http://127.0.0.1:9"
    Machine("a", arn, home).boot(
        b"#!/bin/sh\nexec sleep 600\n", api, api, "us-east-1", "arn:aws:iam::1:role/r", lambda _: CREDENTIALS
    )


def test_a_notebook_whose_sshd_ends_at_its_start_fails_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_sshd(tmp_path, monkeypatch, "echo 'no hostkeys available -- exiting.' >&2\nexit 1\n")
    with pytest.raises(BootFailedError) as problem:
        boot(tmp_path / "home")
    assert str(problem.value) == (
        "the notebook's sshd ended at its start with status 1: no hostkeys available -- exiting."
    )


def test_a_notebook_whose_first_process_breaks_fails_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no ssh-keygen
    with pytest.raises(BootFailedError, match=r"^the notebook's first process ended at its start: .*'ssh-keygen'$"):
        boot(tmp_path / "home")
