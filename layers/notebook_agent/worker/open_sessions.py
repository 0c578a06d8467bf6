"""The open SSH sessions: whose each is, and the end of those that the stack ends.

A session is a process of sshd that runs as the notebook's user; root has found it and who logged in to it
(session_labels.py). It is ended through a descriptor of that very process, so that no other one is hit that got its
number (pidfd_open(2)). Nothing of root's can be ended from here: the kernel would not let this user.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass

from agent import ROOT, load_json, log
from worker.granted import Granted, load_granted
from worker.model import LABEL_SESSIONS, Json
from worker.paths import SESSIONS_FILE
from worker.processes import TITLE, all_pids, read_process
from worker.texts import one_line

AGAIN_S = 61
"""Seconds between two answers that list a key or a certificate as withdrawn, until its sessions end: more than the stack
keeps what it has read of the parameters (adapters/secrets.py), so that they are two looks."""
WARN_S = 60  # before an end that is foreseen
USUAL_KINDS = "certificate", "central"  # until the stack has answered
LABEL_TIMEOUT_S = 5.0
TELL_S = 0.5  # for sshd to pass on what was written to a terminal
EXIT_TIMEOUT_S = 5.0
MAX_DELAY_S = 300.0

REASONS = {
    "off": "SSH to this notebook was turned off",
    "until": "the time of access to this notebook has passed",
    "withdrawn": "the key or certificate was withdrawn",
}


@dataclass(frozen=True)
class Session:
    """An open session. kind: how it logged in, as `Granted.kind` says. login: the line of sshd's, if there is one."""

    pid: int
    start: int
    title: str
    kind: str
    login: Json | None

    def names(self, granted: Granted) -> list[tuple[str, str]]:
        """Return what the stack would list to withdraw it, as (field of the reply, value)."""
        login = self.login or {}
        if self.kind == "central":
            return [("keys", login["key"]), ("users", granted.central[login["key"]])]
        if self.kind != "certificate":
            return []
        arn = login["id"].split(" ")[0]
        # An entry that ends with a slash stands for every session of a role.
        return [("serials", login["serial"]), ("arns", arn), ("arns", arn.rpartition("/")[0] + "/")]


class Sessions:
    """The sessions as far as root has labelled them, and what the stack has listed as withdrawn, since when.

    kinds: those that the stack ends, as it last answered this worker. unknown: how many sessions no line labels.
    """

    def __init__(self) -> None:
        self.kinds: list[str] = list(USUAL_KINDS)
        self.first_listed: dict[tuple[str, str], float] = {}
        self.warned: float | None = None
        self.asked_at, self.delay = 0.0, 2.0
        self.asked_for: set[tuple[int, int]] = set()
        self.unknown = 0

    def find(self) -> list[Session]:
        """Return the open sessions that root has found; ask for their labels first if one is new."""
        labels = self.labels()
        granted = load_granted()
        found = []
        for each in labels:
            process = read_process(int(each["pid"]))
            if process and process.start == each["start"] and process.uid == os.getuid():
                kind = granted.kind(each["login"])
                found.append(Session(process.pid, process.start, process.title, kind, each["login"]))
        self.unknown = sum(each.kind == "unknown" for each in found)
        return found

    def labels(self) -> list[Json]:
        """Return what root has found; it looks again if a process has appeared that could be a session.

        One that stays unlabelled is asked for at growing intervals: its line may be late, or never come.
        """
        if not has_journal():
            return []
        known = {(each["pid"], each["start"]) for each in read_labels() if each["login"]}
        missing = {key for key in candidates() if key not in known}
        if missing - self.asked_for:
            self.delay = 2.0
        if missing and (missing - self.asked_for or time.monotonic() >= self.asked_at + self.delay):
            self.asked_for, self.delay = missing, min(self.delay * 2, MAX_DELAY_S)
            self.ask_root()
        return read_labels()

    def ask_root(self) -> None:
        """Let root label the sessions, through the supervisor; return when it has, or after LABEL_TIMEOUT_S."""
        self.asked_at = time.monotonic()
        os.write(1, LABEL_SESSIONS)
        while time.monotonic() < self.asked_at + LABEL_TIMEOUT_S:
            if load_json(SESSIONS_FILE).get("read_at", 0) >= self.asked_at:
                return
            time.sleep(0.05)

    # what the stack said

    def endable(self, kinds: Iterable[str]) -> list[Session]:
        """Return the open sessions of these kinds."""
        kinds = set(kinds)
        return [each for each in self.find() if each.kind in kinds]

    def end_withdrawn(self, withdrawn: Json, server_time: float) -> bool:
        """End the sessions of what was listed as withdrawn before as well, AGAIN_S ago or earlier.

        Return whether a session is open that ends if the stack lists it once more.
        """
        listed = {(field, value) for field, values in withdrawn.items() for value in values}
        self.first_listed = {item: self.first_listed.get(item, server_time) for item in listed}
        if not listed:
            return False
        confirmed = {item for item, first in self.first_listed.items() if server_time - first >= AGAIN_S}
        granted = load_granted()
        concerned = [each for each in self.endable(self.kinds) if listed & {*each.names(granted)}]
        over = [each for each in concerned if confirmed & {*each.names(granted)}]
        end(over, "withdrawn")
        return len(over) < len(concerned)

    def warn(self, until: float, now: float) -> None:
        """Write to the terminals that end at `until` when it is WARN_S away; once for each `until`."""
        if until == self.warned or not until - WARN_S <= now < until:
            return
        self.warned = until
        at = time.strftime("%H:%M:%SZ", time.gmtime(until))
        for session in self.endable(self.kinds):
            tell(session, f"SSH to this notebook ends at {at}, and this session with it")


def has_journal() -> bool:
    """Return whether anything can be labelled; only in a local run is there no journal."""
    return not ROOT or os.path.exists(ROOT + "/usr/bin/journalctl")


def candidates() -> set[tuple[int, int]]:
    """Return (id, start) of this user's processes that are named like a session. Any program may be."""
    found = set()
    for pid in all_pids():
        process = read_process(pid)
        if process and process.uid == os.getuid() and TITLE.fullmatch(process.title):
            found.add((pid, process.start))
    return found


def read_labels() -> list[Json]:
    """Return the sessions in root's file."""
    found = load_json(SESSIONS_FILE).get("sessions")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def end(sessions: list[Session], reason: str) -> None:
    """End sessions: with a line on their terminals, as a stop of sshd would, and by force if one stays."""
    written = [tell(session, f"this session ends: {REASONS[reason]}") for session in sessions]
    if any(written):
        time.sleep(TELL_S)
    opened = [(session, open_process(session)) for session in sessions]
    ending = [(session, descriptor) for session, descriptor in opened if descriptor is not None]
    for number in signal.SIGTERM, signal.SIGKILL:
        for _, descriptor in ending:
            send(descriptor, number)
        deadline = time.monotonic() + EXIT_TIMEOUT_S
        while ending and time.monotonic() < deadline:
            # Readable as soon as the process has ended (pidfd_open(2)).
            ended = select.select([descriptor for _, descriptor in ending], [], [], 0.2)[0]
            for session, descriptor in [each for each in ending if each[1] in ended]:
                log(f"session {session.pid} of {whose(session)} ended: {REASONS[reason]}")
                os.close(descriptor)
                ending.remove((session, descriptor))
    for session, descriptor in ending:
        log(f"session {session.pid} of {whose(session)} could not be ended")
        os.close(descriptor)


def open_process(session: Session) -> int | None:
    """Return a descriptor of the session's own process; None if that has ended, and another process may have its number."""
    try:
        descriptor = os.pidfd_open(session.pid)
    except OSError:
        return None
    # From here on the descriptor is of one process: if that is the session's, so is whatever is sent.
    process = read_process(session.pid)
    if process and process.start == session.start and process.uid == os.getuid():
        return descriptor
    os.close(descriptor)
    return None


def send(descriptor: int, number: signal.Signals) -> None:
    """Send a signal to the process of a descriptor, unless it has ended."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        pass


def tell(session: Session, text: str) -> bool:
    """Write a line to the session's terminals, which are this user's; return whether there is one."""
    written = False
    for name in session.title.rpartition("@")[2].split(","):
        if not name.startswith("pts/") or not name[4:].isdigit():
            continue
        try:
            flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW
            terminal = os.open("/dev/" + name, flags)
        except OSError:
            continue
        try:
            device = os.fstat(terminal)
            if stat.S_ISCHR(device.st_mode) and device.st_uid == os.getuid():
                os.write(terminal, f"\r\nnotebook-ssh: {text}.\r\n".encode())
                written = True
        except OSError:
            pass  # it is full, or gone
        finally:
            os.close(terminal)
    return written


def whose(session: Session) -> str:
    """Return who logged in, for the log."""
    login = session.login or {}
    return one_line(login.get("id") or login.get("key") or "?")
