"""The worker's main loop: applies what the stack requests, and reports."""

from __future__ import annotations

import json
import os
import re
import select
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, cast

from agent import HOME, PERSIST_DIR, VOLUME_DIR, StackClient, load_json, log, read_text
from worker.access_log import AccessLog
from worker.by_hand import setup_by_hand
from worker.causes import explain, refine
from worker.files import explain_os_error, remove_file, write_file
from worker.granted import load_granted, remember_granted
from worker.instructions import render_instructions
from worker.keys import keys_stamp, sync_authorized_keys
from worker.list_tags import read_own_tags
from worker.model import Json, Problem
from worker.modes import Observed, Path, best_phase, detail, outdated, paths_of, reach_of, tunnel_problem, usable
from worker.ngrok_config import forget_token
from worker.open_sessions import AGAIN_S, WARN_S, Sessions, end, has_journal
from worker.paths import INSTRUCTIONS_FILE, REPLY_FILE, STATUS_FILE, WAKE_FIFO
from worker.reply import check_reply
from worker.sshd import SSH_PORT, SshServer, host_keys, sessions
from worker.tags import apply_tags
from worker.texts import one_line
from worker.tunnel import Tunnel
from worker.volume import link_editor_dirs, persist_for_next_boot

ACCESS_AGAIN_S = 20  # between two reports while the access log lags behind
FILES_RETRY_S = 10  # until files that could not be read or written are tried again


class Worker:
    """Applies to the notebook what the stack requests, and reports to it, until SSH is off."""

    def __init__(self) -> None:
        self.client = StackClient()
        self.client.reply = check_reply(load_json(REPLY_FILE))
        self.sessions, self.orders = Sessions(), cast("Json | None", None)  # orders: of the last answer, until obeyed
        self.client.clock_offset = self.client.reply.get("clock_offset", 0)
        self.access_log = AccessLog()
        self.tunnel = Tunnel()
        self.problems: dict[str, Problem] = {}  # by source
        self.keys_stamp = keys_stamp()  # as `ensure_files` left the file
        self.keys: Json = {"own": 0, "central": 0, "authorities": 0, "rejected": []}
        self.reported: Json | None = None
        self.written: Json | None = None  # to STATUS_FILE
        # Monotonic seconds of the next report, and of the next `ensure_files`.
        self.sync_at, self.files_at = time.monotonic() + 10, 0.0
        self.ssh_port, self.sshd_at, self.sshd_delay = SSH_PORT, 0.0, 5
        self.report_budget, self.report_budget_at = 5.0, time.monotonic()
        self.wakes = self.synced_wakes = 0  # notifications by commands, and how many of them preceded the last report
        if os.path.lexists(WAKE_FIFO):
            os.unlink(WAKE_FIFO)
        os.mkfifo(WAKE_FIFO, 0o600)
        # Opened for writing too, so that it stays open when a command closes its end.
        self.wake_fifo = os.open(WAKE_FIFO, os.O_RDWR | os.O_NONBLOCK)

    def modes(self) -> list[str]:
        """Return the modes that are requested now, the preferred one first; none if SSH is off.

        The reply of a stack before `modes` has one mode, as `mode`.
        """
        mode = self.client.mode()
        modes: list[str] = [] if mode == "off" else self.client.reply.get("modes") or [mode]
        return modes

    def run(self) -> None:
        """Apply, report and wait until SSH is off; then remove what was set up."""
        try:
            if "sync_after" not in self.client.reply:
                self.sync()
            while True:
                while self.modes():
                    self.apply()
                    if time.monotonic() >= self.sync_at or self.report_due():
                        self.sync()
                    else:
                        self.wait()
                if self.teardown():
                    return
        finally:
            self.tunnel.stop()

    def teardown(self) -> bool:
        """Undo what lets users in, and what the agent keeps for a start without the stack (docs/notebook.md).

        Return False if SSH is on again before the sessions were over that the stack may end.

        Until all of it is undone, the reply on the volume stays, by which the next worker, seconds later, tries again;
        that of this boot could say "off" already. The program goes last: the stack sends none when SSH is off.
        """
        if self.orders and self.orders["end"]:
            # Before the tunnel closes, so that a terminal still shows why; and after the keys, so that none is opened again.
            self.undo(lambda: sync_authorized_keys(None))
            end(self.sessions.endable(self.sessions.kinds), self.orders["end"])
        self.tunnel.stop()
        remove_file(REPLY_FILE)
        done = [self.undo(lambda: sync_authorized_keys(None)), self.undo(forget_token)]
        if all(done):
            self.write_status()
            if self.outlast_sessions():
                return False
            done += [self.undo(partial(remove_file, PERSIST_DIR + name)) for name in ("reply.json", "worker.py")]
        self.write_status()
        if not all(done):
            sys.exit("notebook-ssh: not everything is undone; it is tried again")
        return True

    def outlast_sessions(self) -> bool:
        """Report while sessions are open that the stack may end, and end them when it says so; return whether SSH is on again.

        Whatever turned SSH off, also this clock, only an answer of the stack's ends a session, and one that came now.
        """
        while not self.modes():
            orders, self.orders = self.orders, None
            endable = self.sessions.endable(self.sessions.kinds)
            if orders and orders["end"]:
                end(endable, orders["end"])
                endable = []
            if not endable:
                if self.pending_access():
                    self.sync()  # the last that this worker has to say of sessions
                return bool(self.modes())
            select.select([], [], [], max(0, min(60, self.sync_at - time.monotonic())))
            if time.monotonic() >= self.sync_at:
                self.sync()
        return True

    def undo(self, step: Callable[[], object]) -> bool:
        """Run a step of `teardown`; return whether it succeeded."""
        try:
            step()
            return True
        except OSError as error:
            log(f"teardown: {error}")
            return False

    def apply(self) -> None:
        """Apply the requested state: files, tunnel, status."""
        unknown = outdated(self.modes())
        if unknown:
            self.set_problem("modes", *unknown)
        else:
            self.problems.pop("modes", None)
        if time.monotonic() >= self.files_at or keys_stamp() != self.keys_stamp:
            self.files_at = time.monotonic() + 300
            self.ensure_files()
        if "ngrok" in self.modes():
            token, url = self.ngrok_setting("token", r"[\w-]+"), self.ngrok_setting("url", r"tcp://[\w.-]+:\d+")
            self.tunnel.ensure(token, url, self.ssh_port, saved="sync_after" not in self.client.reply)
        else:
            self.tunnel.stop()
        until = self.client.reply.get("until")
        if until is not None:
            self.sessions.warn(until, time.time() + self.client.clock_offset)
        self.write_status()

    def ngrok_setting(self, field: str, pattern: str) -> str | None:
        """Return a field of the reply's `ngrok`, if it is safe to write into config.yml."""
        value = (self.client.reply.get("ngrok") or {}).get(field) or ""
        return value if re.fullmatch(pattern, value) else None

    def ensure_files(self) -> None:
        """Ensure keys, editor directories, SSH_INSTRUCTIONS, and that sshd responds."""
        self.written = None
        try:
            self.problems.pop("files", None)
            reply = self.client.reply
            self.keys, error = sync_authorized_keys(reply.get("authorized_keys") or [], reply.get("certificates"))
            remember_granted(reply)
            if error:
                raise error
            os.makedirs(VOLUME_DIR + "ssh", exist_ok=True)
            link_editor_dirs()
            persist_for_next_boot(self.client.reply)
            if "ngrok" not in self.modes():
                forget_token()
        except OSError as error:
            self.set_problem("files", *explain_os_error(error, HOME))
            self.files_at = min(self.files_at, time.monotonic() + FILES_RETRY_S)
        self.keys_stamp = keys_stamp()
        self.look_for_setup_by_hand()
        self.ensure_sshd()

    def look_for_setup_by_hand(self) -> None:
        """Tell a user whose on-start script still has the set-up by hand to remove it."""
        seen = setup_by_hand(self.tunnel.child.pid if self.tunnel.child else None)
        if seen:
            message = f"an older set-up by hand runs too ({seen}): remove its lines from the on-start script"
            self.set_problem("by hand", "setup-by-hand", message)
        else:
            self.problems.pop("by hand", None)

    def ensure_sshd(self) -> None:
        """Ensure that an SSH server responds where the modes need it: root starts one, at intervals of 5 to 300 seconds."""
        reach = reach_of(self.modes())
        server = SshServer()
        self.ssh_port = server.port
        if server.serves(reach):
            self.problems.pop("sshd", None)
            self.sshd_at, self.sshd_delay = 0.0, 5
            return
        if time.monotonic() >= self.sshd_at:
            os.write(1, reach[:1].encode())  # requests `root_setup` from the supervisor
            self.sshd_at = time.monotonic() + self.sshd_delay
            self.sshd_delay = min(self.sshd_delay * 2, 300)
        self.files_at = min(self.sshd_at, time.monotonic() + 5)
        missing = f"sshd does not respond on port {server.port}; see `systemctl status sshd`"
        self.set_problem("sshd", *(server.problem or ("sshd-down", missing)))

    def set_problem(self, source: str, code: str, message: str) -> None:
        """Set the problem of `source`, and log a change."""
        message = one_line(message)
        if self.problems.get(source) != (code, message):
            self.problems[source] = code, message
            log(f"{code}: {message}")

    # reports

    def paths(self) -> list[Path]:
        """Return the path of each mode, the preferred one first."""
        return paths_of(self.modes(), Observed(self.tunnel, self.problems.get("sshd"), self.client.reply))

    def phase(self) -> str:
        """Return the phase of docs/protocol.md while SSH is on: with several modes, of the best path."""
        return best_phase(self.paths())

    def problem(self) -> Json | None:
        """Return the most important problem to report; with several modes, of those that concern all of them.

        The stack stores reports, not its replies; so a problem with central keys in its reply is reported back to it,
        and why it has no ngrok token for this notebook.
        """
        several = len(self.modes()) > 1
        found = [None if several else tunnel_problem(self.tunnel, self.client.reply)]
        found += [problem for source, problem in self.problems.items() if not several or source != "sshd"]
        found.sort(key=lambda each: each is not None and each[0] == "setup-by-hand")  # the others first
        stack = self.client.reply.get("problem") or {"code": ""}
        if stack["code"].startswith("central-key-"):
            found.append((stack["code"], stack["message"]))
        return next(({"code": each[0], "message": each[1]} for each in found if each), None)

    def build_report(self) -> Json:
        """Return the report (docs/protocol.md) without the sessions and what `StackClient.sync` adds."""
        modes, (host, port) = self.modes(), self.tunnel.address or (None, None)
        token = self.ngrok_setting("token", r"[\w-]+")
        return {
            "modes": modes,
            # For a stack before `modes`: after a rollback, it replies to this worker.
            "mode": " ".join(modes) or "off",
            **self.phases(),
            "host": host,
            "port": port,
            "host_keys": host_keys(),
            "keys": self.keys,
            "problem": self.problem(),
            "token_version": token and self.client.reply["ngrok"].get("token_version"),
        }

    def phases(self) -> Json:
        """Return the report's phase and, with several modes, what is to be known of each."""
        paths = self.paths()
        # A stack before `phases` takes no report with ngrok that is connected without the tunnel's address.
        phase = next((path.phase for path in paths if path.mode == "ngrok"), best_phase(paths))
        return {"phase": phase, **detail(paths)}

    def sync(self) -> None:
        """Send a report and save the reply; without one, at the first time in a boot, apply the notebook's own tags."""
        report, before, wakes = self.build_report(), self.client.reply, self.wakes
        self.orders = None
        self.sessions.find()
        logged = self.pending_access()
        counted = {**sessions(), "unknown": self.sessions.unknown}
        if self.client.sync({**report, **logged, "sessions": counted}):
            self.client.reply = check_reply(self.client.reply)
            self.orders = self.client.reply.pop("sessions")  # never obeyed from a reply that was kept
            self.reported = report
            self.files_at = 0
            new, old = self.client.reply.get("ngrok") or {}, before.get("ngrok") or {}
            if not new.get("token") and new.get("token_version") == old.get("token_version"):
                new["token"] = old.get("token")
            if self.modes():  # `teardown` removes it
                self.client.save_reply()
        elif "sync_after" not in before:
            # The reply was saved in an earlier boot: the notebook's own tags are newer.
            tags = read_own_tags(self.client)
            if tags is not None:
                self.client.reply = apply_tags(before, tags)
                self.client.save_reply()
                self.files_at = 0
        if self.client.error:
            self.client.error = refine(self.client, self.client.error)
        self.synced_wakes = wakes
        self.sync_at = time.monotonic() + self.client.delay
        self.obey()
        if not self.client.error and self.access_log.accepted(logged):
            self.sync_at = min(self.sync_at, time.monotonic() + ACCESS_AGAIN_S)

    def pending_access(self) -> Json:
        """Return the report's fields for the access log; {} if the stack keeps none."""
        if not self.client.reply.get("access_log") or not has_journal():
            return {}
        self.sessions.ask_root()
        boot, offset = self.client.boot["boot"], self.client.clock_offset
        return self.access_log.pending(boot, load_granted(), time.time(), offset)

    def obey(self) -> None:
        """Take note of what the last answer says of sessions, and end those whose key or certificate was withdrawn."""
        if self.client.error:
            return
        orders = self.orders or {"kinds": [], "withdrawn": {}}
        self.sessions.kinds = orders["kinds"]
        if self.sessions.end_withdrawn(orders["withdrawn"], self.client.reply["server_time"]):
            self.sync_at = min(self.sync_at, time.monotonic() + AGAIN_S + 1)

    def report_due(self) -> bool:
        """Return whether to report a change at once: at most five times in a row, then every 20 seconds."""
        now = time.monotonic()
        self.report_budget = min(5, self.report_budget + (now - self.report_budget_at) / 20)
        self.report_budget_at = now
        starting = self.phase() == "connecting" and now - self.tunnel.phase_since < 3
        if starting or self.client.failures or self.report_budget < 1 or self.build_report() == self.reported:
            return False
        self.report_budget -= 1
        return True

    # the user's view

    def ssh_command(self) -> str | None:
        """Return the command that connects, or None if there is no address yet."""
        path = usable(self.paths())
        return path.command if path else None

    def write_status(self) -> None:
        """Update STATUS_FILE, which the commands read, and SSH_INSTRUCTIONS."""
        paths = self.paths()
        problems = [*([self.tunnel.problem] if self.tunnel.problem else []), *self.problems.values()]
        stack, error = self.client.reply.get("problem"), self.client.error
        problems += [(stack["code"], stack["message"])] if stack else []
        problems += [explain(*error)] if error else []
        status = {**self.build_report(), "notebook": self.client.name, "command": self.ssh_command()}
        status.update(phase=best_phase(paths), paths=[asdict(path) for path in paths])
        status.update(problems=problems, tunnel_started_at=self.tunnel.started_at, synced_wakes=self.synced_wakes)
        if status == self.written:
            return
        self.written = status
        try:
            write_file(STATUS_FILE, json.dumps(status))
            text = render_instructions(status)
            if os.path.islink(INSTRUCTIONS_FILE) or read_text(INSTRUCTIONS_FILE) != text:
                write_file(INSTRUCTIONS_FILE, text)
            self.problems.pop("instructions", None)
        except OSError as os_error:
            self.set_problem("instructions", *explain_os_error(os_error, INSTRUCTIONS_FILE))
            self.files_at = min(self.files_at, time.monotonic() + FILES_RETRY_S)

    def wait(self) -> None:
        """Wait until something is due, or ngrok or a command has written something."""
        output = self.tunnel.child and self.tunnel.child.stdout
        files: list[Any] = [self.wake_fifo, *([output] if output else [])]
        readable = select.select(files, [], [], self.seconds_to_wait())[0]
        if self.wake_fifo in readable:
            self.files_at = 0
            self.wakes += 1
            if not self.ssh_command():
                self.sync_at = 0  # a user waits for an address that the stack may know by now
            if b"restart" in os.read(self.wake_fifo, 4096):
                self.tunnel.stop()
        if self.tunnel.child and output in readable:
            self.tunnel.read_log()

    def seconds_to_wait(self) -> float:
        """Return the seconds until something is due: at most a minute, since the monotonic clock stops in a suspend."""
        now = time.monotonic()
        times = [self.sync_at, self.files_at, now + (3 if self.phase() == "connecting" else 60)]
        if "ngrok" in self.modes():
            # A volume that was full is checked again in seconds (Tunnel.has_more_room).
            full = self.tunnel.problem and self.tunnel.problem[0] == "disk-full"
            times.append(min(self.tunnel.due_at, now + FILES_RETRY_S) if full else self.tunnel.due_at)
        until = self.client.reply.get("until")
        if until is not None:
            left = until - time.time() - self.client.clock_offset
            times.append(now + left if self.sessions.warned == until else now + max(0, left - WARN_S))
        return max(0, min(times) - now)
