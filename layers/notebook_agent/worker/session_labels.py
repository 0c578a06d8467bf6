"""Who logged in to each SSH session: what sshd wrote into the journal, as far as the kernel vouches for the writer.

Everything here runs as root and reads what only root can: the journal, and which program a process runs. Anyone can
write a line that looks like sshd's; `_UID`, `_EXE` and `_PID` are the kernel's (systemd.journal-fields(7), "Trusted
Journal Fields"). A line labels a session and makes none: sessions are sshd's own processes.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from typing import Any

from agent import HOME, ROOT, write_text
from worker.model import Json
from worker.paths import SESSIONS_FILE
from worker.processes import PROC, TITLE, Process, all_pids, read_process

PROGRAMS = (
    "/usr/sbin/sshd",
    # OpenSSH 9.8 and later: the part that serves a connection is a program of its own.
    "/usr/libexec/openssh/sshd-session",
    "/usr/lib/openssh/sshd-session",
    "/usr/lib/ssh/sshd-session",
)
REPLACED = " (deleted)"  # what the link /proc/PID/exe ends with after an upgrade of the package
MOST_LINES = 4000  # of sshd, the newest
MOST_LOGINS = 600
JOURNAL_TIMEOUT_S = 20
JOURNALCTL_DIRS = "/usr/bin:/bin:/usr/local/bin"

# OpenSSH, auth.c (auth_log) and auth2-pubkey.c (format_key). What follows `ID` was signed by the authority that is named
# behind it; a key id may hold anything, so that the last serial and the last authority count.
ACCEPTED = re.compile(
    r"Accepted publickey for (?P<user>\S+) from (?P<address>[0-9A-Fa-f.:%\w]+) port (?P<port>\d+) ssh2: "
    r"[A-Z0-9-]+ (?P<key>SHA256:[A-Za-z0-9+/]{43})"
    r"(?: ID (?P<id>.*) \(serial (?P<serial>\d{1,20})\) CA [A-Z0-9-]+ (?P<authority>SHA256:[A-Za-z0-9+/]{43}))?"
)
ENDED = re.compile(
    r"Disconnected from (?!authenticating|invalid)|Connection (?:closed|reset) by |Received disconnect from "
    r"|pam_unix\(sshd:session\): session closed|Close session|syslogin_perform_logout|Exiting on signal"
)


def write_labels() -> None:
    """Write SESSIONS_FILE: the open sessions, the logins of this boot, and when they were read (monotonic seconds)."""
    read_at = time.monotonic()
    uid = os.stat(HOME).st_uid
    # In the local run the owner has another name than the one that logs in.
    logins = read_logins({pwd.getpwuid(uid).pw_name, os.path.basename(HOME)})
    found = [labelled(session, logins) for session in open_sessions(uid)]
    if ROOT:
        # The local run has many notebooks on one machine: what no journal of this one's labels is another's.
        found = [each for each in found if each["login"]]
    known = {"read_at": read_at, "sessions": found, "logins": logins[-MOST_LOGINS:]}
    write_text(SESSIONS_FILE, json.dumps({**known, "dropped": max(0, len(logins) - MOST_LOGINS)}))


def open_sessions(uid: int) -> list[tuple[Process, Process]]:
    """Return each process of sshd that runs as the notebook's user below one of root's, with that one.

    sshd names it as TITLE has it, and root's part `sshd: user [priv]`.
    """
    found = []
    for pid in all_pids():
        session = read_process(pid)
        if not session or session.uid != uid or not TITLE.fullmatch(session.title) or not is_sshd(pid):
            continue
        parent = read_process(session.parent)
        if parent and parent.uid == os.getuid() and is_sshd(parent.pid):
            found.append((session, parent))
    return found


def is_sshd(pid: int) -> bool:
    """Return whether a process runs sshd's program."""
    try:
        return os.readlink(f"{PROC}{pid}/exe").removesuffix(REPLACED) in PROGRAMS
    except OSError:
        return False


def labelled(session: tuple[Process, Process], logins: list[Json]) -> Json:
    """Return a session with its login, or None: the newest that its process, or root's above it, wrote since it began.

    An earlier line with this number is another process's.
    """
    process, parent = session
    began = {each.pid: monotonic(each.start) for each in (process, parent)}
    own = [each for each in logins if each["pid"] in began and each["monotonic"] >= began[each["pid"]] - 0.02]
    return {"pid": process.pid, "start": process.start, "title": process.title, "login": own[-1] if own else None}


def monotonic(ticks: int) -> float:
    """Return the monotonic seconds of clock ticks since the boot, which go on in a suspend."""
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return ticks / os.sysconf("SC_CLK_TCK") - asleep


def read_logins(users: set[str]) -> list[Json]:
    """Return the logins of this boot as one of `users`, oldest first, as sshd wrote them into the journal."""
    logins: list[Json] = []
    for entry in journal():
        try:
            pid, at = int(entry["_PID"]), int(entry["__REALTIME_TIMESTAMP"]) // 1_000_000
            text = str(entry["MESSAGE"]).strip()
            program, uid = str(entry["_EXE"]).removesuffix(REPLACED), int(entry["_UID"])
            since_boot = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
        except (LookupError, TypeError, ValueError):
            continue  # journald could not tell, or the line is not text
        if program not in PROGRAMS or uid != os.getuid():
            continue
        match = ACCEPTED.fullmatch(text)
        if match and match["user"] in users:
            logins.append({**match.groupdict(), "pid": pid, "at": at, "monotonic": since_boot, "ended": None})
        elif ENDED.match(text):
            mine = next((each for each in reversed(logins) if each["pid"] == pid), None)
            if mine and mine["ended"] is None:
                mine["ended"] = at
    return logins


def journal() -> list[dict[str, Any]]:
    """Return what sshd wrote in this boot, newest last; nothing if there is no journal, so that no session is labelled."""
    program = ROOT + "/usr/bin/journalctl" if ROOT else shutil.which("journalctl", path=JOURNALCTL_DIRS)
    if not program or not os.path.exists(program):
        return []
    matches = [f"_UID={os.getuid()}", *(f"_EXE={each}{end}" for each in PROGRAMS for end in ("", REPLACED))]
    options = ["--boot", "--no-pager", "--quiet", "--output=json", f"--lines={MOST_LINES}"]
    try:
        ended = subprocess.run(
            [program, *options, *matches], stdin=subprocess.DEVNULL, capture_output=True, timeout=JOURNAL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"notebook-ssh: the journal cannot be read: {error}", file=sys.stderr)
        return []
    entries: list[dict[str, Any]] = []
    for line in ended.stdout.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
