"""The worker: does on the notebook what its tags request. Tunnel, keys, commands, and the texts for the user.

The stack sends this source with its reply; the agent compares it with the SHA-256 in the block and runs it (agent.py,
docs/notebook.md). Everything here runs as the owner of /home/ec2-user, so that whatever a path there may be, nothing is
reached that this user could not reach anyway; only `root_setup` and `root_teardown` run as root, and they touch nothing
but root's own paths.

In this order: files; keys and sessions; ngrok's configuration, program and tunnel; the worker, which uses all of these;
the notebook's own tags; what the worker maintains; texts for the user; root's part; the user's commands.

Standard library only, Python 3.9 or later; agent.py is in the same directory.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import errno
import glob
import hashlib
import json
import os
import pwd
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import IO, Any, BinaryIO, NoReturn, cast

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from agent import (
    HOME,
    INSTALL_DIR,
    PERSIST_DIR,
    REGION,
    ROOT,
    RUN_DIR,
    STATE_DIR,
    VOLUME_DIR,
    StackClient,
    drop_privileges,
    load_json,
    log,
    read_text,
    spawn,
    write_text,
)

MODES = "ngrok", "bastion", "off"
NGROK_DIR = VOLUME_DIR + ".ngrok/"
NGROK_LOG = ROOT + "/var/log/ngrok.log"
INSTRUCTIONS_FILE = VOLUME_DIR + "SSH_INSTRUCTIONS"
OWN_KEYS_FILE = VOLUME_DIR + "ssh/authorized_keys"
REPLY_FILE = STATE_DIR + "reply.json"
STATUS_FILE = STATE_DIR + "status.json"
WAKE_FIFO = STATE_DIR + "wake"
SSH_PORT = int(os.environ.get("NOTEBOOK_SSH_PORT") or 22)
COMMANDS = "ssh-status", "copy-ssh-keys", "start-ssh-ngrok", "start-ngrok-ssh"
YEAR_S = 365 * 86400
EXIT_TIMEOUT_S = 5  # for a child that should exit
API_TIMEOUT_S = 2.0  # for ngrok's local API
# VS Code, Cursor, and of JetBrains: servers, their plugins, and what PyCharm installs for an SSH interpreter.
EDITOR_DIRS = ".vscode-server", ".cursor-server", ".cache/JetBrains", ".local/share/JetBrains", ".pycharm_helpers"

Json = dict[str, Any]
Problem = tuple[str, str]  # (code, message)
Address = tuple[str, int]  # (host, port)


class AgentError(Exception):
    """A problem that is reported: `AgentError(code, message)`, the message for the user. Never holds a secret."""


# --- files ---------------------------------------------------------------------------------------------------


def describe_os_error(error: OSError, path: str) -> str:
    """Return the message for a file that could not be read or written. path: used if `error` has none."""
    return f"{error.filename2 or error.filename or path}: {error.strerror}; free up space, or move the file away"


def read_all(path: str) -> str:
    """Return the text of a user's file that will be written back. OSError if it is too large for `read_text`."""
    text = read_text(path)
    if len(text) == 1 << 20:
        raise OSError(errno.EFBIG, "larger than 1 MB", path)
    return text


def open_exclusive(path: str) -> BinaryIO:
    """Create an empty file and open it for bytes; a symbolic link or FIFO at `path` is removed, not followed."""
    if os.path.lexists(path):
        os.unlink(path)
    return open(path, "xb")


# --- keys and sessions ---------------------------------------------------------------------------------------

HOST_KEY_TYPES = "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"
SECTION_BEGIN, SECTION_END = "# notebook-ssh: begin, managed by the agent", "# notebook-ssh: end"

# sshd(8), AUTHORIZED_KEYS FILE FORMAT: [options] type base64 [comment]; quotes in options may hold spaces.
# Each character matches in one way only, or a line with many `\"` would backtrack without end.
PUBLIC_KEY = re.compile(
    r'(?:(?:[^\s"]|"(?:\\"|[^"\\]|\\(?!"))*")+[ \t]+)?((?:ssh-|ecdsa-|sk-)[\w@.-]+)[ \t]+([A-Za-z0-9+/]+=*)(?:\s.*)?'
)


def parse_keys(text: str) -> tuple[dict[str, str], list[Json]]:
    """Parse an authorized_keys text into ({key data: line}, [{"line", "reason"}]).

    The first result has the public keys without duplicates, the second the lines that are no public keys.
    """
    valid: dict[str, str] = {}
    rejected = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = PUBLIC_KEY.fullmatch(line)
        if match and is_public_key(match[1], match[2]):
            valid.setdefault(match[2], line)
        else:
            reason = "a damaged public key" if match else "not a public key"
            if "PRIVATE KEY" in line:
                reason = "part of a private key: remove it from this file"
            rejected.append({"line": number, "reason": reason})
    return valid, rejected


def is_public_key(key_type: str, data: str) -> bool:
    """Return whether `data` (base64) is complete and begins with the type's name, as length and text (RFC 4253 §6.6)."""
    try:
        rest, parts = base64.b64decode(data, validate=True), []
        while rest:
            (length,) = struct.unpack(">I", rest[:4])
            if len(rest) < 4 + length:
                return False
            parts.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
            if "-cert-" in key_type:
                break  # a certificate goes on with numbers (OpenSSH, PROTOCOL.certkeys)
        return len(data) > 60 and parts[0] == key_type.encode() and (len(parts) > 1 or "-cert-" in key_type)
    except (binascii.Error, struct.error):
        return False


def sync_authorized_keys(central: list[Json] | None) -> tuple[Json, OSError | None]:
    """Update the agent's section of ~/.ssh/authorized_keys; return (what it holds, the error of the user's own file).

    central: [{"user", "keys"}] as in docs/protocol.md; None removes the section. The lines outside the section are the
    user's and stay as they are.
    """
    directory = HOME + "/.ssh"
    path = os.path.realpath(directory + "/authorized_keys")
    before = read_all(path)
    section = re.compile(rf"(?ms)^{SECTION_BEGIN}\n((?:(?!{SECTION_BEGIN}).)*?)^{SECTION_END}\n")
    rest = section.sub("", before)
    if central is None:
        if rest != before:
            write_text(path, rest, 0o600)
        return {}, None
    current = section.search(before)
    own, rejected, error = read_own_keys(current[1] if current else "")
    central_lines, count = central_key_lines(central, own)
    os.makedirs(directory, 0o700, exist_ok=True)
    for folder in directory, HOME:  # sshd reads no keys where other users can write (sshd_config(5), StrictModes)
        os.chmod(folder, os.stat(folder).st_mode & 0o7755)
    if rest and not rest.endswith("\n"):
        rest += "\n"
    text = rest + "\n".join([SECTION_BEGIN, *own.values(), *central_lines, SECTION_END, ""])
    if text != before or os.stat(path).st_mode & 0o77:
        write_text(path, text, 0o600)
    return {"own": len(own), "central": count, "rejected": rejected[:20]}, error


def read_own_keys(section: str) -> tuple[dict[str, str], list[Json], OSError | None]:
    """Return the keys of the user's own file, as `parse_keys` does, and the error if it could not be read.

    An unreadable file is not an empty one: then the keys stay that `section` holds above the first central one.
    """
    try:
        return (*parse_keys(read_text(OWN_KEYS_FILE)), None)
    except OSError as error:
        return (*parse_keys(re.split(r"(?m)^#", section)[0]), error)


def central_key_lines(central: list[Json], own: dict[str, str]) -> tuple[list[str], int]:
    """Return the section's lines for the central keys that are not in `own`, and how many central keys there are."""
    lines, count = [], 0
    for user in central:
        keys, _ = parse_keys("\n".join(user["keys"]))
        count += len(keys)
        lines.append(f"# {user['user']}" if re.fullmatch(r"[\w.@+-]+", user["user"]) else "#")
        lines += [line for data, line in keys.items() if data not in own]
    return lines, count


def host_keys() -> list[str]:
    """Return the host's public keys, `type base64`. Only of the types that the stack accepts in a report."""
    texts = (read_text(path).split() for path in sorted(glob.glob(ROOT + "/etc/ssh/ssh_host_*_key.pub")))
    return [" ".join(words[:2]) for words in texts if len(words) > 1 and words[0] in HOST_KEY_TYPES][:8]


def sessions() -> Json:
    """Return {"open", "active_at"} of the notebook user's SSH sessions.

    sshd names a session's process `sshd: user@pts/0` or `user@notty` (since 9.8 `sshd-session:`). A terminal's last
    use is its device's time; a session without one (scp, VS Code) counts as in use for as long as it is open.
    """
    user, active = pwd.getpwuid(os.stat(HOME).st_uid).pw_name, []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            match = re.match(rf"sshd\S*: {re.escape(user)}@(\S+)", read_text(path).replace("\0", " "))
            if match:
                terminals = [os.stat("/dev/" + name) for name in match[1].split(",") if name.startswith("pts/")]
                active.append(int(max((max(t.st_atime, t.st_mtime) for t in terminals), default=time.time())))
        except OSError:
            continue  # the process has ended
    return {"open": len(active), "active_at": max(active, default=None)}


# --- ngrok's configuration -----------------------------------------------------------------------------------

AGENT_COMMENT = "  # notebook-ssh"


def edit_yaml(text: str, path: Sequence[str], change: Callable[[str | None], str | None], pad: str = "") -> str:
    """Return `text` (YAML in block style) with the value at `path` replaced by change(value or None); None removes it.

    Everything else is unchanged. A step `- name: x` selects the item of a list that has this line.
    """
    step, rest = path[0], path[1:]
    first = re.match(r"(?:[ \t]*(?:#.*)?\n)*( *)\S", text)
    pad = first[1] if first else pad
    if step.startswith("- "):
        return edit_list_item(text, step[2:], rest, change, pad)
    match = re.search(rf"(?m)^{pad}{step}:[ \t]*(.*)\n((?:{pad}(?: |- ).*\n|[ \t]*(?:#.*)?\n)*)", text)
    at = len(text) if not pad else first.start(1) if first else 0
    begin, middle, end = (match.start(), match.start(2), match.end()) if match else (at, at, at)
    old = match[1].strip() if match else None
    if not rest:
        new = change(old)
        head = text[begin:middle] if new == old else f"{pad}{step}: {new}\n" if new else ""
        return text[:begin] + head + text[middle:]
    if old and not old.startswith("#"):
        message = f"~/SageMaker/.ngrok/config.yml: put what follows `{step}:` on its own lines, indented"
        raise AgentError("ngrok-config", message)
    block = edit_yaml(text[middle:end], rest, change, pad + "  ")
    head = text[begin:middle] or (f"{pad}{step}:\n" if block else "")
    return text[:begin] + head + block + text[end:]


def edit_list_item(
    text: str, line: str, rest: Sequence[str], change: Callable[[str | None], str | None], pad: str
) -> str:
    """Apply `edit_yaml` to the item of a list that has `line`; the item is added if there is none."""
    key, _, value = line.partition(": ")
    items = re.split(rf"(?m)^(?={pad}- )", text)
    pattern = re.compile(rf"(?m)^{pad}[- ] {key}: *[\"']?{value}[\"']?[ \t\r]*(?:#.*)?$")
    index = next((number for number, item in enumerate(items) if pattern.search(item)), None)
    if index is None:
        index = 1
        items.insert(index, f"{pad}- {line}\n")
    edited = edit_yaml(items[index].replace(f"{pad}- ", f"{pad}  ", 1), rest, change)
    items[index] = f"{pad}- " + edited[len(pad) + 2 :]
    return "".join(items)


def free_local_address(old: str | None) -> str:
    """Return a loopback address for ngrok's local API: with the port in `old` if that is free, else with any free one."""
    preferred = re.search(r":(\d{1,5})\b", old or "")
    for port in (int(preferred[1]), 0) if preferred else (0,):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return f"127.0.0.1:{probe.getsockname()[1]}"
            except (OSError, OverflowError):
                continue
    raise AgentError("ngrok-config", "no loopback port is free for ngrok's local API")


def configure_ngrok(text: str, token: str | None, url: str | None) -> str:
    """Return `text` of config.yml (version 2 or 3) with the endpoint `ssh`, the token, and remote management disabled.

    An address that the user has set is kept unless `url` (from the tag) is given; what the agent sets carries
    AGENT_COMMENT. References: https://ngrok.com/docs/agent/config/v3, …/v2. A text without a version predates both and
    is read as version 2.
    """
    text += "" if text.endswith("\n") or not text else "\n"
    text = edit_yaml(text, ["version"], lambda old: old or ("2" if text.strip() else "3"))
    if re.search(r"(?m)^version:\W*3", text):
        top, update, ssh = ["agent"], "update_check", ["endpoints", "- name: ssh"]
        # An endpoint without url would be https.
        text = edit_yaml(text, [*ssh, "upstream", "url"], lambda old: old or f"tcp://127.0.0.1:{SSH_PORT}")
        text = edit_yaml(text, [*ssh, "url"], lambda old: address_to_keep(old, url) or "tcp://" + AGENT_COMMENT)
    else:
        top, update, ssh = [], "update", ["tunnels", "ssh"]
        text = edit_yaml(text, [*ssh, "remote_addr"], lambda old: address_to_keep(old, url and url[len("tcp://") :]))
        text = edit_yaml(text, [*ssh, "addr"], lambda old: old or str(SSH_PORT))
        text = edit_yaml(text, [*ssh, "proto"], lambda old: old or "tcp")
    text = edit_yaml(text, [*top, update], lambda old: "false")
    text = edit_yaml(text, [*top, "remote_management"], lambda old: "false")
    text = edit_yaml(text, [*top, "web_addr"], free_local_address)
    return edit_yaml(text, [*top, "authtoken"], lambda old: token or old)


def address_to_keep(old: str | None, desired: str | None) -> str | None:
    """Return the address for config.yml: the tag's, else the one that the user has set, else None."""
    if desired:
        return desired + AGENT_COMMENT
    return old if old and AGENT_COMMENT.strip() not in old and old.strip("\"'") else None


# --- ngrok's program -----------------------------------------------------------------------------------------

# Always the latest of version 3; ngrok publishes no checksum (https://ngrok.com/download).
DOWNLOAD_URL = "https://bin.equinox.io/c/bNyj1mQVY4c/ngrok-v3-stable-linux-{arch}.tgz"


def install_ngrok(force: bool) -> str:
    """Install ngrok's agent on the volume, if needed, and return its path. force: ngrok refuses the installed one.

    It is downloaded if there is none, if another one is configured, and after a year (agents are supported for
    14 months). A download that fails leaves the installed one in place.
    """
    machine = "arm64" if os.uname().machine == "aarch64" else "amd64"
    url = (os.environ.get("NOTEBOOK_SSH_NGROK_DOWNLOAD") or DOWNLOAD_URL).replace("{arch}", machine)
    sha256 = os.environ.get("NOTEBOOK_SSH_NGROK_SHA256", "").lower()
    path, source = NGROK_DIR + "ngrok", f"{url} {sha256}\n"
    installed = os.path.isfile(path) and os.access(path, os.X_OK)
    current = (
        installed
        and not force
        and read_text(path + ".from") == source
        and time.time() - os.stat(path).st_mtime < YEAR_S
    )
    if current:
        return path
    try:
        download_ngrok(url, sha256, path)
        write_text(path + ".from", source)
    except (OSError, ValueError, LookupError, EOFError, tarfile.TarError, subprocess.SubprocessError) as error:
        if not installed:
            raise AgentError("ngrok-download", f"ngrok's agent could not be downloaded from {url}: {error}") from error
        emit(f"ngrok's agent was not updated: {error}")
    return path


def download_ngrok(url: str, sha256: str, path: str) -> None:
    """Install the program in the archive at `url`, if the archive has the SHA-256 (unless "") and the program runs."""
    archive, new = path + ".tgz", path + ".new"
    digest, deadline = hashlib.sha256(), time.monotonic() + 300
    try:
        with urllib.request.urlopen(url, timeout=20) as response, open_exclusive(archive) as file:
            # read1 returns after each piece, so that the deadline holds for a slow sender too.
            for chunk in iter(lambda: response.read1(1 << 16), b""):
                digest.update(chunk)
                file.write(chunk)
                if file.tell() > 1 << 27 or time.monotonic() > deadline:
                    raise ValueError("it is larger than 128 MB or takes longer than 5 minutes")
        if sha256 and digest.hexdigest() != sha256:
            raise ValueError(f"its SHA-256 is {digest.hexdigest()}, not {sha256} as configured in the stack")
        extract_ngrok(archive, new)
        os.chmod(new, 0o755)
        ended = subprocess.run([new, "version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        if b"version 3" not in ended.stdout:
            raise ValueError("it contains no ngrok agent of version 3")
        os.replace(new, path)
    finally:
        for temporary in archive, new:
            if os.path.lexists(temporary):
                os.unlink(temporary)


def extract_ngrok(archive: str, path: str) -> None:
    """Write the archive's member `ngrok` to `path`."""
    with tarfile.open(archive) as members, open_exclusive(path) as file:
        member = members.extractfile("ngrok")
        if member is None:
            raise ValueError("its ngrok is not a file")
        file.write(member.read())


def emit(text: str, **fields: Any) -> None:
    """Print a line for the worker, in the format of ngrok's log."""
    print(json.dumps({"msg": text, "obj": "notebook-ssh", **fields}), flush=True)


def run_tunnel(request: Json) -> None:
    """Prepare ngrok and replace this process by it; errors are emitted on standard output."""
    os.dup2(1, 2)
    os.close(3)  # the agent's log, which ngrok must not hold open
    try:
        os.makedirs(NGROK_DIR, 0o700, exist_ok=True)
        program = install_ngrok(request["force_install"])
        path = NGROK_DIR + "config.yml"
        before = read_all(path)
        text = configure_ngrok(before, request["token"], request["url"])
        if not re.search(r"(?m)^ *authtoken: *\S", text):
            message = "there is no ngrok token yet: an admin stores it in the stack's secret"
            raise AgentError("ngrok-token-missing", message)
        if text != before or os.stat(path).st_mode & 0o77:
            write_text(path, text, 0o600)
        address = re.search(r"(?m)^ *web_addr: *(\S+)", text)
        emit("starting web service", addr=address and address[1])
        os.execv(program, ["ngrok", "start", "--all", "--config", path, "--log=stdout", "--log-format=json"])
    except OSError as error:
        emit("problem", agent_problem=["files", describe_os_error(error, NGROK_DIR)])
    except AgentError as error:
        emit("problem", agent_problem=error.args)


# --- the tunnel ----------------------------------------------------------------------------------------------

# Problems by ngrok's error codes (https://ngrok.com/docs/errors).
NGROK_ERRORS = {
    "105 106 107 300 4018": (
        "ngrok-token-invalid",
        "ngrok refuses the token: an admin stores a valid one in the stack's secret",
    ),
    "108 348 349": (
        "ngrok-session-limit",
        "the ngrok account runs as many agents as its plan allows: stop one, or upgrade",
    ),
    "121": ("ngrok-agent-old", "ngrok refuses this version of its agent; a new one is downloaded"),
    "307 309 310 311": (
        "ngrok-address-refused",
        "the reserved address does not belong to this ngrok account: correct the tag or config.yml",
    ),
    "334": ("ngrok-address-busy", "another ngrok agent uses this address: stop that one, or reserve another address"),
    "725 726 729": (
        "ngrok-monthly-limit",
        "the ngrok account has reached its monthly limit: wait for the next month, or upgrade the plan",
    ),
    "8013": (
        "ngrok-card-required",
        "ngrok requires a card on file for TCP addresses: add one at dashboard.ngrok.com, Billing",
    ),
    "9009": (
        "ngrok-proxy-plan",
        "ngrok through a proxy needs a paid plan: upgrade, or allow the notebook direct access",
    ),
}
PROBLEM_OF_ERROR = {number: problem for numbers, problem in NGROK_ERRORS.items() for number in numbers.split()}

# Retryable errors: a session that has not timed out after a restart, a network that is down.
RETRYABLE = "ngrok-session-limit", "ngrok-address-busy", "ngrok-unreachable", "ngrok-ended"


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
        self.desired: tuple[str | None, str | None] = None, None  # (token, url)
        self.secrets: list[str | None] = []

    def ensure(self, token: str | None, url: str | None) -> None:
        """Start, restart or poll ngrok for this token (None: the one in config.yml) and this reserved address."""
        if (token, url) != self.desired:
            # A token that ngrok runs with already is no reason to give the users another address.
            same = token and not self.desired[0] and f"authtoken: {token}\n" in read_text(NGROK_DIR + "config.yml")
            if not same or url != self.desired[1]:
                self.stop()
            self.desired = token, url
        if time.monotonic() < self.due_at:
            return
        if self.child:
            self.poll_api()
        else:
            self.start()

    def start(self) -> None:
        """Start the child; `read_log` reads its output."""
        token, url = self.desired
        # ngrok prints a token that it refuses, be it the stack's or one in config.yml.
        config = read_text(NGROK_DIR + "config.yml")
        self.secrets = [token, *re.findall(r"""(?m)^ *authtoken:[ \t]*["']?([^\s"'#]+)""", config)]
        force = bool(self.problem and self.problem[0] == "ngrok-agent-old")
        self.child = spawn(sys.executable, INSTALL_DIR + "worker.py", "tunnel")
        try:
            with cast("IO[bytes]", self.child.stdin) as stdin:
                stdin.write(json.dumps({"token": token, "url": url, "force_install": force}).encode())
        except OSError:
            pass  # it has exited already, as `read_log` will find
        self.api_address, self.buffer, self.session_lost = None, b"", False
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
        message = " ".join(message.split())[:400]
        if (code, message) != self.problem:
            self.problem = code, message
            log(f"{code}: {message}")

    def read_log(self) -> None:
        """Read what the child has written, and log it without the token; at its end, schedule the next start."""
        child = cast("subprocess.Popen[bytes]", self.child)
        data = os.read(cast("IO[bytes]", child.stdout).fileno(), 1 << 16)
        *lines, self.buffer = (self.buffer[-(1 << 16) :] + data).split(b"\n")
        for secret in filter(None, self.secrets):
            lines = [line.replace(secret.encode(), b"...") for line in lines]
        if lines:
            append_ngrok_log(b"\n".join([*lines, b""]))
        for line in lines:
            self.parse_log_line(line.decode(errors="replace"))
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
        elif "established" in message:
            self.session_lost = False
        elif "session closed" in message or "reconnect" in message:
            self.session_lost = True
            self.set_phase("connecting")
        if event.get("name") == "ssh" and event.get("url"):
            self.set_address(event["url"])
        self.parse_error(line, str(event.get("err") or ""))

    def parse_error(self, line: str, error: str) -> None:
        """Set the problem that a line of ngrok's log reports, if any. error: its field `err`."""
        code = re.search(r"ERR_NGROK_(\d+)", line)
        if code and code[1] in PROBLEM_OF_ERROR:
            name, message = PROBLEM_OF_ERROR[code[1]]
            self.set_problem(name, f"{message} (ERR_NGROK_{code[1]})")
        elif code and not self.problem:
            self.set_problem("ngrok-failed", f"ngrok: {error or line}")
        elif error not in ("", "<nil>") and self.session_lost:
            message = f"ngrok cannot be reached; check the network path (proxy, NAT): {error}"
            self.set_problem("ngrok-unreachable", message)
        elif line.startswith("ERROR") and not self.problem:
            self.set_problem("ngrok-failed", f"ngrok: {line[6:].strip()}")

    def poll_api(self) -> None:
        """Get the address from ngrok's local API: /api/endpoints, or /api/tunnels of older agents."""
        self.due_at = time.monotonic() + (0.5 if self.phase == "connecting" else 30)
        for kind in "endpoints", "tunnels":
            try:
                for item in query_local_api(self.api_address, kind):
                    if item.get("name") == "ssh":
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


def query_local_api(address: str | None, kind: str) -> Any:
    """Return the list `kind` of ngrok's local API at `address`. OSError or ValueError unless it is complete in time.

    urlopen's own timeout applies to each read: a slow sender would block the worker without end.
    """

    def raise_timeout(*_: object) -> NoReturn:
        raise TimeoutError(f"{address} takes longer than {API_TIMEOUT_S} seconds")

    signal.signal(signal.SIGALRM, raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, API_TIMEOUT_S)
    try:
        with urllib.request.urlopen(f"http://{address}/api/{kind}", timeout=API_TIMEOUT_S) as response:
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


# --- the worker ----------------------------------------------------------------------------------------------


class Worker:
    """Applies to the notebook what the stack requests, and reports to it, until SSH is off."""

    def __init__(self) -> None:
        self.client = StackClient()
        self.client.reply = load_json(REPLY_FILE)
        self.client.clock_offset = self.client.reply.get("clock_offset", 0)
        self.tunnel = Tunnel()
        self.problems: dict[str, Problem] = {}  # by source
        self.keys: Json = {"own": 0, "central": 0, "rejected": []}
        self.reported: Json | None = None
        self.written: Json | None = None  # to STATUS_FILE
        # Monotonic seconds of the next report, and of the next `ensure_files`.
        self.sync_at, self.files_at = time.monotonic() + 10, 0.0
        self.report_budget, self.report_budget_at = 5.0, time.monotonic()
        self.wakes = self.synced_wakes = 0  # notifications by commands, and how many of them preceded the last report
        if os.path.lexists(WAKE_FIFO):
            os.unlink(WAKE_FIFO)
        os.mkfifo(WAKE_FIFO, 0o600)
        # Opened for writing too, so that it stays open when a command closes its end.
        self.wake_fifo = os.open(WAKE_FIFO, os.O_RDWR | os.O_NONBLOCK)

    def run(self) -> None:
        """Apply, report and wait until the mode is "off"; then remove what was set up."""
        try:
            if "sync_after" not in self.client.reply:
                self.sync()
            while self.client.mode() != "off":
                self.apply()
                if time.monotonic() >= self.sync_at or self.report_due():
                    self.sync()
                else:
                    self.wait()
            self.teardown()
        finally:
            self.tunnel.stop()

    def teardown(self) -> None:
        """Restore the home directory."""
        self.tunnel.stop()
        for step in (
            lambda: sync_authorized_keys(None),
            lambda: os.unlink(PERSIST_DIR + "reply.json"),
            lambda: os.unlink(REPLY_FILE),
        ):
            try:
                step()
            except OSError as error:
                log(f"teardown: {error}")
        self.write_status()

    def apply(self) -> None:
        """Apply the requested state: files, tunnel, status."""
        mode = self.client.mode()
        if mode in MODES:
            self.problems.pop("mode", None)
        else:
            message = f"restart the notebook: its agent does not know the mode {mode}"
            self.set_problem("mode", "agent-outdated", message)
        if time.monotonic() >= self.files_at:
            self.files_at = time.monotonic() + 300
            self.ensure_files()
        if mode == "ngrok":
            token, url = self.ngrok_setting("token", r"[\w-]+"), self.ngrok_setting("url", r"tcp://[\w.-]+:\d+")
            self.tunnel.ensure(token, url)
        else:
            self.tunnel.stop()
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
            self.keys, error = sync_authorized_keys(self.client.reply.get("authorized_keys") or [])
            if error:
                raise error
            os.makedirs(VOLUME_DIR + "ssh", exist_ok=True)
            link_editor_dirs()
            persist_for_next_boot(self.client.reply)
        except OSError as error:
            self.set_problem("files", "files", describe_os_error(error, HOME))
        if sshd_responds():
            self.problems.pop("sshd", None)
            return
        os.write(1, b"!")  # requests `root_setup` from the supervisor
        self.files_at = time.monotonic() + 5
        self.set_problem("sshd", "sshd-down", f"sshd does not respond on port {SSH_PORT}; see `systemctl status sshd`")

    def set_problem(self, source: str, code: str, message: str) -> None:
        """Set the problem of `source`, and log a change."""
        if self.problems.get(source) != (code, message):
            self.problems[source] = code, message
            log(f"{code}: {message}")

    # reports

    def phase(self) -> str:
        """Return the phase of docs/protocol.md while SSH is on."""
        if self.client.mode() == "ngrok":
            return self.tunnel.phase if self.tunnel.phase != "off" else "connecting"
        return "failed" if {"sshd", "mode"} & self.problems.keys() else "connected"

    def problem(self) -> Json | None:
        """Return the most important problem to report.

        The stack stores reports, not its replies; so a problem with central keys in its reply is reported back to it.
        """
        found = [self.tunnel.problem, *self.problems.values()]
        stack = self.client.reply.get("problem") or {"code": ""}
        if stack["code"].startswith("central-key-"):
            found.append((stack["code"], stack["message"]))
        return next(({"code": each[0], "message": each[1]} for each in found if each), None)

    def build_report(self) -> Json:
        """Return the report (docs/protocol.md) without the sessions and what `StackClient.sync` adds."""
        mode, (host, port) = self.client.mode(), self.tunnel.address or (None, None)
        token = self.ngrok_setting("token", r"[\w-]+")
        return {
            "mode": mode,
            "phase": self.phase() if mode != "off" else "off",
            "host": host,
            "port": port,
            "host_keys": host_keys(),
            "keys": self.keys,
            "problem": self.problem(),
            "token_version": token and self.client.reply["ngrok"].get("token_version"),
        }

    def sync(self) -> None:
        """Send a report and save the reply; without one, at the first time in a boot, apply the notebook's own tags."""
        report, before, wakes = self.build_report(), self.client.reply, self.wakes
        if self.client.sync({**report, "sessions": sessions()}):
            self.reported = report
            self.files_at = 0
            new, old = self.client.reply.get("ngrok") or {}, before.get("ngrok") or {}
            if not new.get("token") and new.get("token_version") == old.get("token_version"):
                new["token"] = old.get("token")
            self.client.save_reply()
        elif "sync_after" not in before:
            # The reply was saved in an earlier boot: the notebook's own tags are newer.
            result = self.client.run_helper(INSTALL_DIR + "worker.py", "list-tags", {"arn": self.client.arn})
            if result.get("tags") is not None:
                self.client.reply = apply_tags(before, result["tags"])
                self.client.save_reply()
                self.files_at = 0
        self.synced_wakes = wakes
        self.sync_at = time.monotonic() + self.client.delay

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
        if self.tunnel.address:
            return "ssh -p {1} ec2-user@{0}".format(*self.tunnel.address)
        bastion = self.client.reply.get("bastion") or {}
        if self.client.mode() == "bastion" and bastion.get("private_ip"):
            return f"ssh -J {bastion['user']}@{bastion['host']} ec2-user@{bastion['private_ip']}"
        return None

    def write_status(self) -> None:
        """Update STATUS_FILE, which the commands read, and SSH_INSTRUCTIONS."""
        problems = [*([self.tunnel.problem] if self.tunnel.problem else []), *self.problems.values()]
        stack, error = self.client.reply.get("problem"), self.client.error
        problems += [(stack["code"], stack["message"])] if stack else []
        problems += [explain(*error)] if error else []
        status = {**self.build_report(), "notebook": self.client.name, "command": self.ssh_command()}
        status.update(problems=problems, tunnel_started_at=self.tunnel.started_at, synced_wakes=self.synced_wakes)
        if status == self.written:
            return
        self.written = status
        try:
            write_text(STATUS_FILE, json.dumps(status))
            text = render_instructions(status)
            if os.path.islink(INSTRUCTIONS_FILE) or read_text(INSTRUCTIONS_FILE) != text:
                write_text(INSTRUCTIONS_FILE, text)
            self.problems.pop("instructions", None)
        except OSError as os_error:
            self.set_problem("instructions", "files", describe_os_error(os_error, INSTRUCTIONS_FILE))

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
        if self.client.mode() == "ngrok":
            times.append(self.tunnel.due_at)
        until = self.client.reply.get("until")
        if until:
            times.append(now + until - time.time() - self.client.clock_offset)
        return max(0, min(times) - now)


# --- the notebook's own tags ---------------------------------------------------------------------------------

# As the stack parses the same tags (rules/tags.py, docs/tags.md).
NGROK_URL_TAG = re.compile(
    r"tcp://(?=[^:]{1,253}:)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+:([1-9][0-9]{0,4})"
)
UNTIL_TAG = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:Z|([+-][0-9]{2}):?([0-9]{2}))?", re.I
)


def parse_tags(tags: dict[str, str]) -> Json:
    """Return what the notebook's own tags request: {"mode", "until", "ngrok": {"url"}, "users"}.

    One invalid tag turns everything off: without the stack nothing can report it, so less access is given, not more.
    """
    key = os.environ.get("NOTEBOOK_SSH_TAG_KEY") or "ssh"
    value = {
        part: tags.get(key + part, "").strip() for part in ("", "-ngrok-url", "-users", "-until", "-restart", "-wake")
    }
    off: Json = {"mode": "off", "until": None, "ngrok": {"url": None}, "users": []}
    mode, url, users = value[""].lower(), value["-ngrok-url"].lower(), value["-users"].split()
    match = NGROK_URL_TAG.fullmatch(url)
    valid = (
        mode in MODES
        and mode != "off"
        and (not url or mode == "bastion" or (match and int(match[1]) <= 65535))
        and all(re.fullmatch(r"[A-Za-z0-9._@-]{1,64}", name) for name in users)
        and value["-restart"].lower() in ("", "now")
        and value["-wake"].lower() in ("", "yes")
    )
    if not valid:
        return off
    try:
        until = parse_time(value["-until"]) if value["-until"] else None
    except ValueError:
        return off
    users = list(dict.fromkeys(users))
    return {"mode": mode, "until": until, "ngrok": {"url": url or None if mode == "ngrok" else None}, "users": users}


def parse_time(text: str) -> int:
    """Return the epoch seconds of a date and time in ISO 8601, UTC unless it has a zone. ValueError for other text."""
    match = UNTIL_TAG.fullmatch(text)
    if not match:
        raise ValueError(text)
    day, minute, second, hours, minutes = match.groups()
    zone = f"{hours}:{minutes}" if hours else "+00:00"
    return int(datetime.datetime.fromisoformat(f"{day}T{minute}{second or ':00'}{zone}").timestamp())


def apply_tags(reply: Json, tags: dict[str, str]) -> Json:
    """Return the saved reply, changed to what the tags request. Users whom they do not name are not admitted."""
    requested = parse_tags(tags)
    users = requested.pop("users")
    admitted = [user for user in reply.get("authorized_keys") or [] if user["user"] in users]
    return {**reply, **requested, "authorized_keys": admitted}


def list_tags(request: Json) -> None:
    """Print the tags of the notebook `arn`, as SageMaker returns them: the fallback without the stack."""
    try:
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        sys.exit(3)
    config = Config(connect_timeout=5, read_timeout=5, retries={"max_attempts": 1})
    try:
        client: Any = botocore.session.Session().create_client("sagemaker", REGION, config=config)
        tags = client.list_tags(ResourceArn=request["arn"])["Tags"]
        print(json.dumps({"tags": {tag["Key"]: tag["Value"] for tag in tags}}))
    except (BotoCoreError, ClientError) as error:
        print(json.dumps({"text": repr(error)}))


# --- what the worker maintains -------------------------------------------------------------------------------


def sshd_responds() -> bool:
    """Return whether an SSH server listens on the notebook's port."""
    try:
        with socket.create_connection(("127.0.0.1", SSH_PORT), 3) as probe:
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


def link_editor_dirs() -> None:
    """Link the editors' directories to the volume, so that they are not installed again at each start."""
    for name in EDITOR_DIRS:
        link, target = f"{HOME}/{name}", f"{PERSIST_DIR}editors/{name}"
        if not os.path.lexists(link):
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(target, link)
        if os.path.realpath(link) == os.path.realpath(target):
            os.makedirs(target, exist_ok=True)


def persist_for_next_boot(reply: Json) -> None:
    """Save for a next boot without the stack: this program, and the reply without secrets."""
    os.makedirs(PERSIST_DIR, 0o700, exist_ok=True)
    saved = {key: value for key, value in reply.items() if key in ("mode", "until", "bastion", "authorized_keys")}
    saved["ngrok"] = {"url": (reply.get("ngrok") or {}).get("url")}
    for name, text in (("reply.json", json.dumps(saved)), ("worker.py", read_text(INSTALL_DIR + "worker.py"))):
        if read_text(PERSIST_DIR + name) != text:
            write_text(PERSIST_DIR + name, text, 0o600)


# --- texts for the user --------------------------------------------------------------------------------------


def explain(status: int, text: str) -> Problem:
    """Return the problem for a report that failed. status: the HTTP status, or 0 if there was no response."""
    if not status:
        hint = "check the network path (proxy, NAT or VPC endpoint)"
        return "api-unreachable", f"the stack cannot be reached; {hint}: {text[:200]}"
    try:
        message = json.loads(text)["message"]
    except (ValueError, LookupError, TypeError):
        message = "it is retried"
    if status == 403 and message == "Forbidden":
        # API Gateway's message for a request through an interface endpoint that does not serve this API.
        message = "a VPC endpoint for execute-api blocks the public API; an admin sets the stack's ApiUrl"
    code = "api-refused" if status < 500 else "api-unavailable"
    return code, f"the stack did not accept the report ({status}): {message}"


def no_address_text(status: Json) -> str:
    """Return the text in place of an address that is missing."""
    if status["mode"] == "bastion" and status["phase"] == "connected":
        return "The notebook is ready; its private address is not known yet. Try again in a few seconds."
    return f"There is no address yet: {status['phase']}."


def rejected_line_text(rejected: Json, file: str) -> str:
    """Return the text for a line of `file` that holds no public key."""
    return f"Line {rejected['line']} of {file} was skipped: it is {rejected['reason']}."


def render_instructions(status: Json) -> str:
    """Return the text of SSH_INSTRUCTIONS for a status as in STATUS_FILE."""
    if status["mode"] == "off":
        return "SSH to this notebook is off. To turn it on, tag the notebook instance ssh=ngrok or ssh=bastion.\n"
    lines = [f"SSH to {status['notebook']}: {status['phase']}", ""]
    lines += [f"    {status['command'] or no_address_text(status)}", ""]
    for code, message in status["problems"]:
        lines += [f"Problem: {message} [{code}]", ""]
    for key in status["host_keys"]:
        kind, data = key.split()
        digest = base64.b64encode(hashlib.sha256(base64.b64decode(data)).digest()).decode().rstrip("=")
        lines += [f"Host key: SHA256:{digest} ({kind})"]
    lines += render_keys(status["keys"])
    if status["command"]:
        lines += render_usage(status["command"])
    lines += ["", "In a terminal here: ssh-status, copy-ssh-keys, start-ssh-ngrok; each has --help.", ""]
    return "\n".join(lines)


def render_keys(keys: Json) -> list[str]:
    """Return the lines of SSH_INSTRUCTIONS on the keys that are admitted."""
    lines = [
        "",
        f"Keys admitted: {keys['own']} from ~/SageMaker/ssh/authorized_keys, {keys['central']} from your admin.",
    ]
    lines += [rejected_line_text(rejected, "that file") for rejected in keys["rejected"]]
    if not keys["own"] + keys["central"]:
        lines += ["You cannot log in yet: there is no key."]
    return [
        *lines,
        "To add one, write the public key (a file that ends in .pub) into that file, on a line of its own,",
        "and run copy-ssh-keys in a terminal here.",
    ]


def render_usage(command: str) -> list[str]:
    """Return the lines of SSH_INSTRUCTIONS on other programs, given the command that connects."""
    target = command.split()[-1]
    copy = command.replace("ssh -p", "scp -P").replace("ssh -J", "scp -J").replace(target, f"FILE {target}:SageMaker/")
    return [
        "",
        f"Copy a file here:   {copy}",
        'VS Code, Cursor:    Remote-SSH, "Connect to Host", then the line above',
        "PyCharm:            Remote Development or SSH interpreter, with the same host, port and user",
    ]


# --- root's part ---------------------------------------------------------------------------------------------

# For interactive sessions over SSH only: scp, rsync and an editor's server must get no output and no delay.
# `-O`: root, or another user who logs in, never reads this user's files.
PROFILE_SCRIPT = """\
case $-:$SSH_CONNECTION in *i*:?*) if [ -O {home}/SageMaker ]; then
  export AWS_DEFAULT_REGION="${{AWS_DEFAULT_REGION:-{region}}}"
  export AWS_REGION="${{AWS_REGION:-$AWS_DEFAULT_REGION}}"
  if [ -r {home}/anaconda3/etc/profile.d/conda.sh ]; then
    . {home}/anaconda3/etc/profile.d/conda.sh
    case :$PATH: in *:{home}/anaconda3/bin:*) ;; *) PATH={home}/anaconda3/bin:$PATH ;; esac
  fi
fi ;; esac
"""


def root_setup() -> None:
    """Install, as root, the commands, the profile script and ngrok's log, and start sshd if it does not run."""
    for folder in ROOT + "/usr/local/bin", ROOT + "/etc/profile.d":
        os.makedirs(folder, exist_ok=True)
    for name in COMMANDS:
        settings = f"NOTEBOOK_SSH_ROOT='{ROOT}' NOTEBOOK_SSH_PORT={SSH_PORT}"
        text = f"#!/bin/sh\n{settings} exec '{sys.executable}' -I '{INSTALL_DIR}worker.py' {name} \"$@\"\n"
        write_text(f"{ROOT}/usr/local/bin/{name}", text, 0o755)
    write_text(ROOT + "/etc/profile.d/notebook-ssh.sh", PROFILE_SCRIPT.format(home=HOME, region=REGION))
    owner = os.stat(HOME)
    file = os.open(NGROK_LOG, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.fchmod(file, 0o600)
    os.fchown(file, owner.st_uid, owner.st_gid)
    os.close(file)
    if not ROOT and not sshd_responds():
        # An sshd that is starting, or that was enabled by the owner's script, is not the agent's to stop. /etc is new
        # at every start, so enabling it would have no effect.
        if systemctl("is-enabled") and systemctl("is-active"):
            write_text(RUN_DIR + "sshd", "started by the agent\n")
        systemctl("start")


def root_teardown() -> None:
    """Stop, as root, an sshd that the agent started. The commands stay until the next start: they report that SSH is off."""
    if read_text(RUN_DIR + "sshd"):
        systemctl("stop")
        os.unlink(RUN_DIR + "sshd")


def systemctl(verb: str) -> int:
    """Return the exit status of `systemctl verb sshd`; 0 means yes, or done."""
    return subprocess.run(["systemctl", "--quiet", verb, "sshd"], stdin=subprocess.DEVNULL, timeout=60).returncode


# --- the user's commands -------------------------------------------------------------------------------------

HELP = {
    "ssh-status": """\
ssh-status            shows how to connect, and any problems
ssh-status --in-use   prints nothing; its exit status shows whether an SSH session is open
Exit status: 0 connected (or in use), 1 not, 2 wrong usage.""",
    "copy-ssh-keys": """\
copy-ssh-keys         admits the public keys in ~/SageMaker/ssh/authorized_keys
Exit status: 0 done, 1 SSH is off or a file cannot be read or written, 2 wrong usage.""",
    "start-ssh-ngrok": """\
start-ssh-ngrok       restarts the tunnel and shows its address; also named start-ngrok-ssh
Exit status: 0 connected, 1 not, 2 wrong usage.""",
}


def run_command(name: str, *arguments: str) -> int:
    """Run one of the user's commands and return its exit status."""
    name = "start-ssh-ngrok" if name == "start-ngrok-ssh" else name
    if arguments == ("--in-use",) and name == "ssh-status":
        return 0 if sessions()["open"] else 1
    if arguments:
        print(HELP[name])
        return 0 if arguments in (("--help",), ("-h",)) else 2
    if os.getuid() == 0:
        drop_privileges()  # with sudo, too, a user's files are accessed with that user's privileges only
    status = load_json(STATUS_FILE)
    if status.get("mode", "off") == "off":
        print(render_instructions({"mode": "off"}), end="")
        return 1
    if name == "copy-ssh-keys":
        return copy_ssh_keys()
    return show_status(status, restart=name == "start-ssh-ngrok")


def show_status(status: Json, restart: bool) -> int:
    """Run `ssh-status`, or `start-ssh-ngrok` if `restart`, while SSH is on."""
    if restart and status["mode"] != "ngrok":
        print(f"This notebook is in mode {status['mode']}: there is no tunnel to start.")
        return 1
    if not notify(b"restart" if restart else b"status"):
        print("The agent is not running; restart the notebook, or ask your admin.")
        return 1
    if restart:
        before = status["tunnel_started_at"]
        status = wait_for_status(30, lambda new: new["tunnel_started_at"] != before and new["phase"] != "connecting")
    elif not status["command"]:
        count = status["synced_wakes"]
        status = wait_for_status(10, lambda new: new["synced_wakes"] != count)
    print(status["command"] or no_address_text(status))
    for code, message in status["problems"]:
        print(f"Problem: {message} [{code}]")
    if restart and status["phase"] != "connected":
        print(f"The end of {NGROK_LOG}:", *read_text(NGROK_LOG).splitlines()[-5:], sep="\n")
    return 0 if status["phase"] == "connected" else 1


def copy_ssh_keys() -> int:
    """Run `copy-ssh-keys` while SSH is on."""
    try:
        keys, error = sync_authorized_keys(load_json(REPLY_FILE).get("authorized_keys") or [])
        if error:
            raise error
    except OSError as error:
        print(f"Problem: {describe_os_error(error, HOME)}")
        return 1
    print(f"Copying {keys['own'] + keys['central']} SSH keys...")
    for rejected in keys["rejected"]:
        print(rejected_line_text(rejected, "~/SageMaker/ssh/authorized_keys"))
    notify(b"keys")
    return 0


def wait_for_status(seconds: int, condition: Callable[[Json], bool]) -> Json:
    """Return the status as soon as `condition` holds for it, or as it is after `seconds`."""
    for _ in range(seconds * 10):
        time.sleep(0.1)
        status = load_json(STATUS_FILE)
        if condition(status):
            break
    return status


def notify(word: bytes) -> bool:
    """Write a word to the running worker; return False if none runs."""
    try:
        fifo = os.open(WAKE_FIFO, os.O_WRONLY | os.O_NONBLOCK)  # fails if no process reads it (fifo(7))
        os.write(fifo, word)
        os.close(fifo)
        return True
    except OSError:
        return False


if __name__ == "__main__":
    verb = sys.argv[1]
    if verb in COMMANDS:
        sys.exit(run_command(*sys.argv[1:]))
    elif verb in ("tunnel", "list-tags"):
        {"tunnel": run_tunnel, "list-tags": list_tags}[verb](json.load(sys.stdin))
    else:
        {"work": lambda: Worker().run(), "root-setup": root_setup, "root-teardown": root_teardown}[verb]()
