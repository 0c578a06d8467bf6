"""The tunnel: ngrok as a child of the worker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from typing import IO, Any, NoReturn, cast

from agent import INSTALL_DIR, load_json, log, read_text, spawn
from worker.files import free_bytes
from worker.model import Address, Json, Problem
from worker.ngrok_config import ENDPOINT, OWN_CONFIG, USER_CONFIG, UserConfig, parse_user_config, token_of, value_of
from worker.ngrok_errors import RETRYABLE, explain_error
from worker.paths import NGROK_LOG
from worker.texts import one_line, printable

EXIT_TIMEOUT_S = 5  # for a child that should exit
API_TIMEOUT_S = 2.0  # for ngrok's local API
MAX_ERROR_LINES = 12
MORE_ROOM_BYTES = 1 << 20
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past any proxy


class Tunnel:
    """ngrok as a child of the worker: its log is read as it is written, and its local API is polled for the address.

    phase: `off`, `connecting`, `connected` or `failed`. due_at: when to call `ensure` next (monotonic seconds).
    """

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self.address: Address | None = None  # where users connect
        self.problem: Problem | None = None
        self.phase, self.phase_since = "off", 0.0
        self.due_at, self.started_at = 0.0, cast("float | None", None)
        self.starts = 0  # without a connection since
        self.session_lost = False
        self.api_address: str | None = None
        self.buffer = b""  # of the log, an incomplete line
        self.desired: Json = {}  # what `ensure` was called with
        self.endpoint = ENDPOINT  # the name of the one that leads to sshd
        self.secrets: list[str | None] = []
        self.room = 0  # bytes that were free on the volume when the last child ended
        self.error_lines: list[str] = []  # of ngrok's last words, without their prefix

    def ensure(self, token: str | None, url: str | None, port: int, saved: bool) -> None:
        """Start, restart or poll ngrok for this token, reserved address and port of sshd.

        token: None for the user's own, or, if `saved`, that of an earlier start.
        """
        desired = {"token": token, "url": url, "port": port, "saved": saved}
        if desired != self.desired:
            # A token that ngrok runs with already is no reason to give the users another address.
            running = self.desired.get("saved") and token and token == token_of(load_json(OWN_CONFIG))
            if not running or {**desired, "token": None, "saved": True} != {**self.desired, "token": None}:
                self.stop()
            self.desired = desired
        if time.monotonic() < self.due_at and not self.has_more_room():
            return
        if self.child:
            self.poll_api()
        else:
            self.start()

    def has_more_room(self) -> bool:
        """Return whether a start that failed because the volume was full can be tried again: there is more room than then.

        Not without: a download is large.
        """
        full = not self.child and self.problem is not None and self.problem[0] == "disk-full"
        return full and free_bytes() > self.room + MORE_ROOM_BYTES

    def start(self) -> None:
        """Start the child; `read_log` reads its output."""
        # ngrok prints a token that it refuses, be it the stack's or the user's.
        own = read_user_config().token
        self.secrets = [self.desired.get("token"), token_of(load_json(OWN_CONFIG)), own]
        force = bool(self.problem and self.problem[0] == "ngrok-agent-old")
        self.child = spawn(INSTALL_DIR + "worker.py", "tunnel")
        try:
            with cast("IO[bytes]", self.child.stdin) as stdin:
                stdin.write(json.dumps({**self.desired, "force_install": force}).encode())
        except OSError:
            pass  # it has exited already, as `read_log` will find
        self.api_address, self.buffer, self.session_lost, self.error_lines = None, b"", False, []
        self.starts += 1
        self.started_at = time.time()
        self.due_at = time.monotonic() + 60
        self.set_phase("connecting")

    def stop(self) -> None:
        """Terminate the child, if there is one, and clear its failures."""
        if self.child:
            self.child.terminate()
            self.wait_for_exit()
        self.due_at = self.starts = 0
        self.problem = None
        self.set_phase("off")

    def wait_for_exit(self) -> int:
        """Return the child's exit status; it is killed if it takes too long to exit."""
        child, self.child = cast("subprocess.Popen[bytes]", self.child), None
        cast("IO[bytes]", child.stdout).close()
        try:
            return child.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    def set_phase(self, phase: str, address: Address | None = None) -> None:
        """Set phase and address, and log a change."""
        if (phase, address) != (self.phase, self.address):
            log(f"tunnel: {phase} {address or ''}")
            self.phase, self.address, self.phase_since = phase, address, time.monotonic()

    def set_problem(self, code: str, message: str) -> None:
        """Set the problem, and log a change."""
        message = one_line(message)
        if (code, message) != self.problem:
            self.problem = code, message
            log(f"{code}: {message}")

    def read_log(self) -> None:
        """Read what the child has written, and log it without the token; at its end, schedule the next start."""
        child = cast("subprocess.Popen[bytes]", self.child)
        data = os.read(cast("IO[bytes]", child.stdout).fileno(), 1 << 16)
        *complete, self.buffer = (self.buffer[-(1 << 16) :] + data).split(b"\n")
        lines = [printable(line.decode(errors="replace")) for line in complete]
        for secret in filter(None, self.secrets):
            lines = [line.replace(secret, "...") for line in lines]
        if lines:
            append_ngrok_log("\n".join([*lines, ""]).encode())
        for line in lines:
            self.parse_log_line(line)
        if data:
            # The log shows that something happened; the local API shows what.
            self.due_at = min(self.due_at, time.monotonic() + (0.05 if self.phase == "connecting" else 1))
            return
        status = self.wait_for_exit()
        if not self.problem:
            self.set_problem("ngrok-ended", f"ngrok exited with status {status}; its log is {NGROK_LOG}")
        self.schedule_restart()

    def schedule_restart(self) -> None:
        """Schedule the next start: within a minute after a retryable error, within a quarter of an hour after others."""
        self.room = free_bytes()
        code = self.problem[0] if self.problem else ""
        soon = code in RETRYABLE or (code == "ngrok-agent-old" and self.starts == 1)
        delay = min(2 ** (self.starts - 1), 60) if soon else min(60 * 2**self.starts, 900)
        self.due_at = time.monotonic() + delay
        self.set_phase("connecting" if soon and self.starts < 5 else "failed")

    def parse_log_line(self, line: str) -> None:
        """Update the state from one line of ngrok's log (JSON), or of what it prints when it gives up."""
        try:
            event = dict(json.loads(line))
        except (ValueError, TypeError):
            event = {}
        message = str(event.get("msg", ""))
        if event.get("agent_problem"):
            self.set_problem(*event["agent_problem"])
        elif message == "starting web service":
            self.api_address = event.get("addr")
            self.endpoint = event.get("endpoint") or self.endpoint
        elif "established" in message:
            self.session_lost = False
        elif "session closed" in message or "reconnect" in message:
            self.session_lost = True
            self.set_phase("connecting")
        if event.get("name") == self.endpoint and event.get("url"):
            self.set_address(event["url"])
        self.parse_error(line, event)

    def parse_error(self, line: str, event: Json) -> None:
        """Set the problem that a line of ngrok's log reports, if any: a JSON event, or one of the lines when it gives up."""
        error = str(event.get("err") or "")
        if line.startswith("ERROR"):
            # The first says that something is wrong, the others what and where.
            self.error_lines = [*self.error_lines, line.partition(":")[2].strip()][:MAX_ERROR_LINES]
            text, name = " ".join(filter(None, self.error_lines)), None
        elif "ERR_NGROK_" in error:
            text, name = error, event.get("name")
        elif error not in ("", "<nil>") and self.session_lost:
            message = f"ngrok cannot be reached; check the network path (proxy, NAT): {error}"
            self.set_problem("ngrok-unreachable", message)
            return
        else:
            return
        code, message = explain_error(text, name, self.endpoint, self.reserved_address())
        # What the agent or an event has explained is not replaced by lines that explain nothing.
        if (
            code not in ("ngrok-failed", "ngrok-config")
            or not self.problem
            or self.problem[0] in ("ngrok-failed", "ngrok-config")
        ):
            self.set_problem(code, message)

    def reserved_address(self) -> str:
        """Return `host:port` of the address that the tag, or else config.yml, reserves for SSH; or ""."""
        endpoint = read_user_config().endpoint
        url = self.desired.get("url") or value_of(endpoint, "url") or value_of(endpoint, "remote_addr")
        return url.rpartition("//")[2]

    def poll_api(self) -> None:
        """Get the address from ngrok's local API: /api/endpoints, or /api/tunnels of older agents."""
        self.due_at = time.monotonic() + (0.5 if self.phase == "connecting" else 30)
        for kind in "endpoints", "tunnels":
            try:
                for item in query_local_api(self.api_address, kind):
                    if item.get("name") == self.endpoint:
                        self.set_address(item.get("url") or item.get("public_url"))
                        return
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                continue

    def set_address(self, url: object) -> None:
        """Set the address in `url` and the phase `connected`, unless the session with ngrok is lost."""
        match = re.fullmatch(r"tcp://([\w.-]+):(\d+)", str(url))
        if match and not self.session_lost:
            self.problem, self.starts = None, 0
            self.set_phase("connected", (match[1], int(match[2])))


def read_user_config() -> UserConfig:
    """Return what is read of the user's config.yml; of an empty one if it cannot be read, which the child reports."""
    try:
        return parse_user_config(read_text(USER_CONFIG))
    except OSError:
        return parse_user_config("")


def query_local_api(address: str | None, kind: str) -> Any:
    """Return the list `kind` of ngrok's local API at `address`. OSError or ValueError unless it is complete in time.

    urlopen's own timeout applies to each read: a slow sender would block the worker without end.
    """

    def raise_timeout(*_: object) -> NoReturn:
        raise TimeoutError(f"{address} takes longer than {API_TIMEOUT_S} seconds")

    signal.signal(signal.SIGALRM, raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, API_TIMEOUT_S)
    try:
        with DIRECT.open(f"http://{address}/api/{kind}", timeout=API_TIMEOUT_S) as response:
            return json.loads(response.read(1 << 20))[kind]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def append_ngrok_log(data: bytes) -> None:
    """Append to ngrok's log, of which the newer half is kept when it exceeds 1 MB. If the disk is full, `data` is lost."""
    try:
        with open(NGROK_LOG, "r+b") as file:
            if file.seek(0, os.SEEK_END) > 1 << 20:
                file.seek(1 << 19)
                rest = file.read()
                file.seek(0)
                file.truncate()
                file.write(rest)
            file.write(data)
    except OSError:
        pass
