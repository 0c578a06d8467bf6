"""`make local` as a person meets it: its four lines pasted into a shell, and then Ctrl-C or whatever else ends it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

import logins
import processes
from emulator.process import PROJECT

LIMIT = 600
"""Seconds for anything to come about, on a machine that may be busy."""


class Person:
    """A user with a home of their own: programs of theirs, as ssh, take the home from the list of users."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.ssh = self.home / ".ssh"
        self.ssh.mkdir(parents=True, mode=0o700)
        (self.home / ".zshrc").touch()  # without one, zsh asks a new user questions
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
        self.environment = {
            **kept,
            **logins.as_user("person", self.home, folder / "login"),
            "HOME": str(self.home),
            "TERM": "dumb",
            "AWS_PROFILE": "of-another-account",
            "AWS_SESSION_TOKEN": "of yesterday",
        }

    def make_key(self, name: str = "id_ed25519") -> None:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "the person's own", "-f", str(self.ssh / name)],
            check=True,
        )

    def files(self) -> dict[str, tuple[int, int, bytes]]:
        """What is in the person's .ssh: names, permissions, times and contents."""
        return {
            str(path.relative_to(self.ssh)): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(self.ssh.rglob("*"))
            if path.is_file()
        }

    def paste(self, shell: str, text: str, until: str) -> str:
        """Paste `text` into an interactive `shell` on a terminal, in the project's folder; what is on the screen then.

        until: what the screen must show before the shell is left.
        """
        controller, terminal = os.openpty()
        child = subprocess.Popen(
            [shell, "-i"],
            cwd=PROJECT,
            env=self.environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(terminal)
        try:
            os.write(controller, text.encode())
            screen = _read(controller, lambda screen: re.search(until, screen) is not None)
            return screen + _read(controller, lambda _: child.poll() is not None, say=b"exit\n")
        finally:
            child.kill()
            child.wait()
            os.close(controller)


def _read(controller: int, enough: Callable[[str], bool], say: bytes = b"") -> str:
    """What is written to a terminal until `enough` accepts it. Fails with the screen when that takes too long.

    say: what is typed whenever the terminal has been silent, since a program that ends may take it with it.
    """
    screen, deadline = "", time.monotonic() + LIMIT
    while not enough(screen):
        assert time.monotonic() < deadline, f"not within {LIMIT} s:\n{screen}"
        if not select.select([controller], [], [], 0.5)[0]:
            os.write(controller, say)
        else:
            try:
                screen += os.read(controller, 4096).decode(errors="replace").replace("\r", "")
            except OSError:  # nobody has the terminal open any more
                break
    return screen


class Run:
    """`make` with a target of the local run, in a session of its own, as a terminal gives it one."""

    def __init__(self, target: str, person: Person) -> None:
        # Short, since the agent's socket is below it.
        self.folder = Path("/tmp") / f"pg{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
        self.folder.mkdir()
        self.said = ""
        self.make = subprocess.Popen(
            ["make", target],
            cwd=PROJECT,
            env=person.environment | {"TMPDIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def until(self, words: str) -> None:
        """Read what it says until that matches `words`."""
        out: IO[bytes] = self.make.stdout  # type: ignore[assignment]
        deadline = time.monotonic() + LIMIT
        while not re.search(words, self.said):
            assert time.monotonic() < deadline, f"not within {LIMIT} s:\n{self.said}"
            if select.select([out], [], [], 0.1)[0]:
                data = os.read(out.fileno(), 4096)
                assert data, f"it ended:\n{self.said}"
                self.said += data.decode()

    def pasted(self) -> list[str]:
        """The first lines that it says to paste: the first block of indented lines."""
        told = self.said.partition("another terminal")[2]
        (block, *_) = re.findall(r"(?:^ +\S.*\n)+", told, re.MULTILINE)
        return [line.strip() for line in block.splitlines()]

    def environment(self) -> Path:
        """The file that the first line reads in."""
        return PROJECT / self.pasted()[0].removeprefix(". ")

    def end(self, send: Callable[[Run], None], limit: float = LIMIT) -> float:
        """Let `send` signal it, and wait for its end; how many seconds that took."""
        began = time.monotonic()
        send(self)
        out, _ = self.make.communicate(timeout=limit)
        self.said += out.decode()
        processes.wait_until("no process is left", lambda: not naming(self.folder), limit)
        return time.monotonic() - began

    def close(self) -> None:
        """The end of a test, also of one that failed."""
        for process in naming(self.folder):
            os.kill(process, signal.SIGKILL)
        self.make.kill()
        self.make.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


def naming(folder: Path) -> list[int]:
    """Processes whose command line or environment names `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                running = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
            except (OSError, IndexError):
                continue
            if running and f"{folder}".encode() in told:
                found.append(int(entry.name))
    return found


# ---- while it stays ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Person:
    """With a key and a configuration of ssh that would lead astray."""
    person = Person(tmp_path_factory.mktemp("person"))
    person.make_key()
    (person.ssh / "config").write_text("Host *\n  User of-the-person\n  ProxyCommand false\n")
    return person


@pytest.fixture(scope="module")
def playground(person: Person) -> Iterator[Run]:
    run = Run("local", person)
    try:
        run.until("another terminal")
        run.until(r"Ctrl-C\b.*")
        yield run
    finally:
        run.end(lambda run: run.make.terminate())
        run.close()


@pytest.mark.parametrize(
    "shell",
    [
        "bash",
        *(
            # Each day the other file of this kind is read in by all three.
            pytest.param(
                shell,
                marks=pytest.mark.nightly(
                    sibling="tests/integration/test_documented_commands.py::test_the_documents_from_nothing_to_the_end_of_the_stack"
                ),
            )
            for shell in ("dash", "zsh")
        ),
    ],
)
def test_its_four_lines_pasted_into_any_shell_end_on_the_notebook(playground: Run, person: Person, shell: str) -> None:
    before = person.files()
    lines = playground.pasted()
    assert lines[1:] == ["notebook-ssh setup", "notebook-ssh list", "ssh my-notebook"]
    asked = "ssh-status; echo I am $(whoami) in ${PWD##*/}; exit\n"
    screen = person.paste(shell, "\n".join(lines) + "\n" + asked, until="I am ec2-user in ec2-user")
    assert re.search(r"includes the notebooks", screen)
    # Its agent reports every two seconds: on a busy machine, two reports may be late.
    assert re.search(r"my-notebook +ngrok +(connected|stale)", screen), screen
    assert re.search(r"^ssh -p \d+ ec2-user@127.0.0.1$", screen, re.MULTILINE)
    assert person.files() == before


def test_the_persons_own_key_is_the_one_that_logs_in(playground: Run, person: Person) -> None:
    assert re.search(r"~/\.ssh/id_ed25519\.pub", playground.said)
    person.paste("bash", "\n".join(playground.pasted()) + "\necho here $((6*7))\nexit\n", until="here 42")
    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", str(person.ssh / "id_ed25519.pub")], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    (log,) = playground.folder.glob("*/notebooks/my-notebook/disk/var/log/sshd.log")
    accepted = re.findall(r"Accepted publickey for ec2-user .*(SHA256:\S+)", log.read_text())
    assert accepted[-1] == fingerprint


def test_only_the_person_can_read_the_file_with_the_keys_of_aws(playground: Run) -> None:
    assert playground.environment().stat().st_mode & 0o777 == 0o600


@pytest.mark.nightly(sibling="tests/integration/test_demo.py::test_the_whole_demo_in_a_folder_with_a_space")
def test_a_changed_tag_leads_through_the_bastion_by_the_same_command(playground: Run, person: Person) -> None:
    environment, setup, *_ = playground.pasted()
    tag = 'aws sagemaker add-tags --resource-arn "$ARN" --tags Key=ssh,Value='
    assert f"{tag}bastion" in playground.said
    changed = "until notebook-ssh list | grep -q '{0} *connected'; do :; done"
    for mode in ("bastion", "ngrok"):
        lines = [
            environment,
            setup,
            f"{tag}{mode}",
            changed.format(mode),
            "ssh my-notebook",
            f"echo by {mode} $((6*7))",
            "exit",
        ]
        person.paste("bash", "\n".join(lines) + "\n", until=f"by {mode} 42")


# ---- when it ends --------------------------------------------------------------------------------


def by_ctrl_c(run: Run) -> None:
    """As a terminal does it: all of its foreground processes are signalled."""
    os.killpg(run.make.pid, signal.SIGINT)


def by_closing_the_terminal(run: Run) -> None:
    os.killpg(run.make.pid, signal.SIGHUP)


def by_sigterm(run: Run) -> None:
    """As `kill`: make alone is signalled, and hands it on."""
    run.make.terminate()


def by_ctrl_c_twice(run: Run) -> None:
    by_ctrl_c(run)
    by_ctrl_c(run)


def by_ctrl_c_again_and_again(run: Run) -> None:
    """Until it has ended."""
    while run.make.poll() is None:
        by_ctrl_c(run)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.make.wait(0.02)


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


def until_there(run: Run, words: bytes) -> None:
    """Wait for a process of the run with `words` in its command line."""

    def there() -> bool:
        return any(words in _command_line(process) for process in naming(run.folder))

    processes.wait_until(f"{words!r} runs", there, LIMIT, alive=lambda: run.make.poll() is None)


def at_once(run: Run) -> None:
    run.until("on this machine\n")


def opening(run: Run) -> None:
    until_there(run, b"emulator.serve")


def booting(run: Run) -> None:
    until_there(run, b"notebook.init")


def installing_the_client(run: Run) -> None:
    run.until("He logs in")


def deploying(run: Run) -> None:
    run.until("Functions and layers are built")


def staying(run: Run) -> None:
    run.until("another terminal")
    run.until(r"Ctrl-C\b")


def at_night(*parts: object) -> object:
    return pytest.param(
        *parts, marks=pytest.mark.nightly(sibling="test_whatever_ends_it_whenever_leaves_nothing_and_says_so")
    )


@pytest.mark.takes_minutes
@pytest.mark.parametrize(
    ("target", "moment", "send"),
    [
        ("local", at_once, by_ctrl_c),
        at_night("local", opening, by_sigterm),
        at_night("local", deploying, by_ctrl_c_twice),
        at_night("local", booting, by_closing_the_terminal),
        at_night("local", installing_the_client, by_ctrl_c),
        at_night("local", staying, by_ctrl_c),
        at_night("local", staying, by_ctrl_c_again_and_again),
        at_night("local", staying, by_closing_the_terminal),
        ("aws", booting, by_sigterm),
        at_night("aws", staying, by_ctrl_c_twice),
        at_night("demo", booting, by_ctrl_c_twice),
        at_night("demo", deploying, by_closing_the_terminal),
    ],
)
def test_whatever_ends_it_whenever_leaves_nothing_and_says_so(
    tmp_path: Path, target: str, moment: Callable[[Run], None], send: Callable[[Run], None]
) -> None:
    files = set((PROJECT / ".build").glob("*.sh"))
    run = Run(target, Person(tmp_path))
    try:
        moment(run)
        took = run.end(send)
        print(f"{target}, {moment.__name__}, {send.__name__}: {took:.1f} s")
        assert "nothing is left running, and nothing on the disk" in run.said
        assert list(run.folder.iterdir()) == []
        assert set((PROJECT / ".build").glob("*.sh")) <= files
    finally:
        run.close()
