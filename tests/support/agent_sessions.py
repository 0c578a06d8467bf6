"""The scenario `sessions` of agent_real_paths.py: whose session ends, and what ends none.

Real sshd with a real ec2-user, a journal with the kernel's word on who wrote each line, and certificates by ssh-keygen.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.agent_env import PROJECT, NotebookHost, Stack, make_reply, wait_until

from patience import LIMIT_S

UID = 54321
HOME = Path("/home/ec2-user")
JOURNAL, PUBLIC = Path("/mnt/journal.jsonl"), "/mnt/journal.socket"
WITHIN = sys.executable, str(PROJECT / "local/notebook/journal.py"), str(JOURNAL), "--at", PUBLIC
PRINCIPAL = "notebook-ssh/Research-1/1780000000"
MARIO = "arn:aws:sts::111122223333:assumed-role/data-science/mario"
SERIAL = 4711


def make_key(name: str, kind: str = "ed25519") -> Path:
    """Make a key pair, and return its private half."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", f"/mnt/{name}"], check=True)
    return Path("/mnt", name)


def public(key: Path) -> str:
    """Return the public half, `type base64`."""
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


def fingerprint(key: Path) -> str:
    """Return the fingerprint that sshd logs."""
    output = subprocess.run(["ssh-keygen", "-l", "-f", f"{key}.pub"], capture_output=True, text=True, check=True).stdout
    return output.split()[1]


class OpenSession:
    """An ssh that reads from its terminal until the session ends. text: what the terminal showed."""

    def __init__(self, key: Path) -> None:
        self.name = key.name
        self.output = Path(f"/mnt/{key.name}.{time.monotonic_ns()}.out")
        options = ["-F", "/mnt/config", "-o", f"IdentityFile={key}", "-tt", "-p", "22"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                ["ssh", *options, "ec2-user@127.0.0.1", "echo ready; read x"],
                stdin=subprocess.PIPE, stdout=output, stderr=output,
            )  # fmt: skip
        wait_until(lambda: "ready" in self.text() or self.process.poll() is not None, f"{self.name} logs in")
        assert self.is_open(), self.text()

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def is_open(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)


class Scene:
    """The notebook with what the stack has granted, and the sessions of each kind."""

    def __init__(self, notebook: NotebookHost, stack: Stack) -> None:
        self.notebook, self.stack = notebook, stack
        authority, self.certified = make_key("authority", "ecdsa"), make_key("certified")
        self.central, self.own = make_key("central"), make_key("own")
        self.certify(SERIAL)
        (HOME / "SageMaker/ssh/authorized_keys").write_text(public(self.own) + "\n")
        host = " ".join(Path("/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])
        Path("/mnt/known").write_text(f"127.0.0.1 {host}\n")
        Path("/mnt/config").write_text(
            "StrictHostKeyChecking yes\nUserKnownHostsFile /mnt/known\nIdentitiesOnly yes\nBatchMode yes\n"
        )
        self.granted = {
            "authorized_keys": [{"user": "ana", "keys": [public(self.central) + " ana"]}],
            "certificates": {"authorities": [public(authority)], "principal": PRINCIPAL},
        }
        self.open: list[OpenSession] = []

    def certify(self, serial: int) -> None:
        """Let the authority sign a certificate as the stack does."""
        words = ["-s", "/mnt/authority", "-I", f"{MARIO} AROAEXAMPLE:mario", "-n", PRINCIPAL, "-z", str(serial)]
        subprocess.run(["ssh-keygen", "-q", *words, "-V", "-1m:+1h", f"{self.certified}.pub"], check=True)

    def reply(self, end: str | None = None, mode: str = "bastion", **changes: Any) -> None:
        """Let the stack answer so from now on. changes: of what is withdrawn, or of the reply."""
        withdrawn = {name: changes.pop(name) for name in ("serials", "arns", "keys", "users") if name in changes}
        sessions = {"end": end, "kinds": ["certificate", "central"], "withdrawn": withdrawn}
        granted = self.granted if mode != "off" else {}
        self.stack.reply = make_reply(mode, **{"sync_after": 1, "sessions": sessions, **granted, **changes})

    def log_in(self) -> dict[str, OpenSession]:
        """Open a session of each kind."""
        keys = {"certificate": self.certified, "central": self.central, "own": self.own}
        wait_until(lambda: self.admitted() == len(keys), "all keys are in place", self.notebook)
        found = {kind: OpenSession(key) for kind, key in keys.items()}
        self.open += found.values()
        return found

    def admitted(self) -> int:
        lines = self.notebook.authorized_keys.read_text().splitlines() if self.notebook.authorized_keys.exists() else []
        return sum(bool(line) and not line.startswith("#") for line in lines)

    def reports(self, count: int = 2) -> None:
        """Wait for so many reports from now on."""
        before = len(self.stack.reports)
        wait_until(lambda: len(self.stack.reports) >= before + count, "it reports", self.notebook)

    def stay(self, sessions: dict[str, OpenSession], why: str) -> None:
        """Check that every session is open once an answer was obeyed: after two reports, or one that is refused."""
        self.reports(2 if self.stack.status == 200 else 1)
        assert all(each.is_open() for each in sessions.values()), (why, self.notebook.logs())

    def end(self, sessions: dict[str, OpenSession], *kinds: str) -> None:
        """Wait until the sessions of these kinds are over, and check that the others stay."""
        wait_until(lambda: not any(sessions[kind].is_open() for kind in kinds), f"{kinds} end", self.notebook)
        others = [kind for kind in sessions if kind not in kinds and not sessions[kind].is_open()]
        assert not others, (others, self.notebook.logs())


def sessions_scenario(notebook: NotebookHost, stack: Stack) -> None:
    """Test which sessions end when, with everything that must end none in between."""
    scene = Scene(notebook, stack)
    scene.reply()
    notebook.start("/usr/bin/python3")
    notebook.wait_connected()
    try:
        nothing_is_cut(scene)
        what_is_withdrawn_ends(scene)
        what_the_tag_ends(scene)
        what_until_ends(scene)
    finally:
        for each in scene.open:
            each.close()
    assert "Traceback" not in Path("/mnt/stderr").read_text(), Path("/mnt/stderr").read_text()


def nothing_is_cut(scene: Scene) -> None:
    """What looks like an end, and is none."""
    stack = scene.stack
    sessions = scene.log_in()
    with unlabelled(scene) as unknown, impostor() as forged:
        sessions["unlabelled"] = unknown
        wait_until(
            lambda: (stack.last_report().get("sessions") or {}).get("unknown") == 1, "it is counted", scene.notebook
        )
        # ec2-user writes as sshd would: that the unlabelled session is another's certificate, and so is the user's own.
        forge(
            f"ED25519-CERT {fingerprint(scene.own)} ID {MARIO} AROAEXAMPLE:mario (serial 99) CA ECDSA {'SHA256:' + 43 * 'A'}"
        )
        for _ in range(2):
            scene.reply(serials=["99"], users=["mario"], keys=["SHA256:" + 43 * "A"], arns=["arn:aws:iam::1:user/x"])
            scene.stay(sessions, "a forged line, and what nobody here has, is withdrawn")
            stack.clock_offset += 100
        scene.reply(users=["ana"])
        scene.reports(2)
        scene.reply()
        stack.clock_offset += 100
        scene.reports(1)
        scene.reply(users=["ana"])
        scene.stay(sessions, "listed once, then not, then again: half a page of parameters")
        for why, change in ANSWERS.items():
            change(scene)
            scene.stay(sessions, why)
            stack.status, stack.error_body = 200, b"{}"
        scene.reply()
        wait_until(lambda: scene.admitted() == 3, "on again", scene.notebook)
        assert forged.poll() is None, "a process that calls itself a session is none"
        sessions["unlabelled"].close()
    for each in sessions.values():
        each.close()


def refuse(status: int, body: bytes = b"{}") -> Callable[[Scene], None]:
    """Let the stack answer with an error."""

    def change(scene: Scene) -> None:
        scene.stack.status, scene.stack.error_body = status, body

    return change


ANSWERS: dict[str, Callable[[Scene], None]] = {
    "the stack is away": refuse(500),
    "the stack is deleted": refuse(403, b'{"message": "Missing Authentication Token"}'),
    "a tag is invalid": lambda scene: scene.reply(mode="off", problem={"code": "invalid-tag", "message": "wrong"}),
    "the stack is paused": lambda scene: scene.reply(mode="off", problem={"code": "paused", "message": "paused"}),
    "an older stack turns SSH off": lambda scene: scene.reply(mode="off", sessions=None),
    "a word that is no reason": lambda scene: scene.reply(mode="off", end="stopped"),
    "the notebook's own clock": lambda scene: (scene.reply(until=int(time.time()) - 5, sync_after=1)),
    "a key was rotated": lambda scene: scene.reply(
        authorized_keys=[{"user": "ana", "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBI6q1bjcIVxL5Q0TrEQ0MSGUj6bJ8sAKp7hTkgyvIJD"]}]
    ),
    "nobody is admitted any more": lambda scene: scene.reply(authorized_keys=[], certificates=None),
}  # fmt: skip


def what_is_withdrawn_ends(scene: Scene) -> None:
    """A certificate by its serial, a key by its user: after two answers that are a minute apart."""
    for kind, field, value in (("certificate", "serials", str(SERIAL)), ("central", "users", "ana")):
        scene.reply()
        sessions = scene.log_in()
        listed: Any = {field: [value]}
        scene.reply(**listed)
        scene.stay(sessions, "listed for some seconds")
        scene.stack.clock_offset += 62
        scene.end(sessions, kind)
        assert "was withdrawn" in sessions[kind].text(), "its terminal says why"
        for each in sessions.values():
            each.close()


def what_the_tag_ends(scene: Scene) -> None:
    """The tag is absent or off: of the user's own keys nothing ends, nor what was detached."""
    scene.reply()
    sessions = scene.log_in()
    # The signing key was changed since: only the new one's certificates are admitted, and whose the session is, is known.
    rotated = {"authorities": [public(make_key("next-authority", "ecdsa"))], "principal": PRINCIPAL}
    scene.reply(certificates=rotated)
    scene.stay(sessions, "the signing key was changed")
    run_as_user = {"user": UID, "group": UID, "extra_groups": []}
    detached = subprocess.Popen(["sleep", "600"], start_new_session=True, **run_as_user)  # type: ignore[call-overload]
    scene.reply("off", mode="off")
    scene.end(sessions, "certificate", "central")
    scene.stay({"own": sessions["own"]}, "a user's own key")
    assert detached.poll() is None, "what is no session goes on"
    detached.kill()
    scene.reply()
    wait_until(lambda: scene.admitted() == 3, "on again", scene.notebook)
    sessions["own"].close()


def what_until_ends(scene: Scene) -> None:
    """A line a minute before, no end while the stack does not answer, and the end as soon as it does."""
    sessions = scene.log_in()
    now = time.time() + scene.stack.clock_offset
    scene.reply(until=int(now) + 8)
    wait_until(
        lambda: "SSH to this notebook ends at" in sessions["certificate"].text(), "it is foretold", scene.notebook
    )
    assert "ends at" not in sessions["own"].text()
    scene.stack.status = 500
    wait_until(lambda: scene.admitted() == 0, "the notebook's clock turns SSH off", scene.notebook)
    scene.stay(sessions, "the stack has not said so")
    scene.reply("until", mode="off", until=int(now) + 8)
    scene.stack.status = 200
    scene.end(sessions, "certificate", "central")


@contextlib.contextmanager
def unlabelled(scene: Scene) -> Iterator[OpenSession]:
    """A session whose line the journal does not have."""
    before = JOURNAL.stat().st_size
    session = OpenSession(scene.own)
    with JOURNAL.open("r+") as file:
        file.truncate(before)
    yield session


@contextlib.contextmanager
def impostor() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ec2-user's that calls itself a session."""
    words = ["sshd: ec2-user@pts/0", "600"]
    process = subprocess.Popen(words, executable="/bin/sleep", user=UID, group=UID, extra_groups=[])
    yield process
    process.kill()


FORGER = """
import socket, sys
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), sys.argv[1])
"""


def forge(what: str) -> None:
    """Let ec2-user write a line of sshd's into the journal, in the name of every process that there is."""
    line = f"Accepted publickey for ec2-user from 203.0.113.9 port 1 ssh2: {what}"
    subprocess.run(["/usr/bin/python3", "-c", FORGER, PUBLIC, line], user=UID, group=UID, extra_groups=[], check=True)
    wait_until(lambda: "203.0.113.9" in JOURNAL.read_text(), "it is in the journal")


def prepare_journal() -> None:
    """Install the program that reads the journal, over the machine's own."""
    from notebook.journal import install_journalctl

    os.umask(0o22)
    JOURNAL.touch()
    install_journalctl(Path("/mnt/journalctl"), JOURNAL)
    place = next((path for path in ("/usr/bin/journalctl", "/bin/journalctl") if os.path.exists(path)), "")
    if place:
        subprocess.run(["mount", "--bind", "/mnt/journalctl", place], check=True)
    else:
        install_journalctl(Path("/usr/local/bin/journalctl"), JOURNAL)
