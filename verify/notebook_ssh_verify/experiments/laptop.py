"""Facts about OpenSSH for Windows, tried with the ssh of this machine in a configuration of its own.

No server is needed: ssh asks KnownHostsCommand before it sends the first packet, whose order of host key algorithms shows
the key that it got (ssh_config(5), "%I": ORDER).
"""

from __future__ import annotations

import base64
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from notebook_ssh_verify.experiments.base import Experiment, Need
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab

LIMIT_S = 30

BANNER = b"SSH-2.0-nbssh_verify\r\n"

KEXINIT = 20
"""The number of the first packet's message (RFC 4253, section 7.1)."""

HOST = "nbssh-verify"
PORT = 4711
"""What stands below a `Match exec` that applies."""


class Machine(NamedTuple):
    """This machine. platform: as sys.platform. ssh: the program, "" if there is none. python: what ssh is to run."""

    platform: str
    ssh: str
    python: str


def this_machine(environ: Mapping[str, str]) -> Machine:
    """Return the machine that this runs on."""
    return Machine(sys.platform, shutil.which("ssh", path=environ.get("PATH")) or "", sys.executable)


def _why_not(machine: Machine) -> str:
    """Return why nothing can be found out on a machine, or ""."""
    if machine.platform != "win32":
        return "this machine is no Windows"
    return "" if machine.ssh else "there is no ssh on this machine"


class Ran(NamedTuple):
    """How ssh ended."""

    status: int
    output: str
    errors: str


def _run(words: Sequence[str]) -> Ran:
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Ran(-1, "", str(error))
    return Ran(done.returncode, done.stdout, done.stderr)


# ---- KnownHostsCommand -----------------------------------------------------------------------------


class KnownHosts(NamedTuple):
    """What ssh did with a KnownHostsCommand that prints an RSA key.

    version: of `ssh -V`. algorithms: what its first packet asks for, in its order; empty if it sent none. errors: its last
    words. why_not: why it was not tried.
    """

    version: str
    has_run: bool
    algorithms: tuple[str, ...]
    errors: str
    why_not: str = ""


def observe_known_hosts(lab: Lab) -> KnownHosts:
    """Try it with this machine's ssh."""
    seen = try_known_hosts(this_machine(lab.environ))
    if not seen.why_not:
        first = next(iter(seen.algorithms), "none")
        lab.account.note(f"ssh with KnownHostsCommand, {seen.version}", f"first algorithm {first} {seen.errors}")
    return seen


def try_known_hosts(machine: Machine) -> KnownHosts:
    """Let ssh connect to a listener on the loopback."""
    if why_not := _why_not(machine):
        return KnownHosts("", False, (), "", why_not)
    with tempfile.TemporaryDirectory(prefix="nbssh-verify-") as folder, Listener() as listener:
        config = write_known_hosts(Path(folder), machine.python, listener.port)
        ran = _run([machine.ssh, "-F", str(config), "-o", "ConnectTimeout=10", HOST])
        listener.join()
        has_run = (Path(folder) / "has-run").exists()
    return KnownHosts(_version(machine.ssh), has_run, host_key_algorithms(listener.received), _last(ran.errors))


def write_known_hosts(folder: Path, python: str, port: int) -> Path:
    """Write the command, which says that it ran, and a configuration with it; return the latter's path."""
    command, config, missing = folder / "command.py", folder / "config", _for_ssh(folder / "missing")
    command.write_text(
        "import pathlib, sys\n"
        "pathlib.Path(__file__).with_name('has-run').touch()\n"
        f"print(sys.argv[1], 'ssh-rsa {rsa_key()}')\n"
    )
    config.write_text(
        f"Host {HOST}\n"
        f"    HostName 127.0.0.1\n    Port {port}\n    User {HOST}\n"
        f"    BatchMode yes\n    StrictHostKeyChecking yes\n    ProxyCommand none\n    ControlPath none\n"
        f"    UserKnownHostsFile {missing}\n    GlobalKnownHostsFile {missing}\n"
        f"    KnownHostsCommand {_for_ssh(Path(python))} -I {_for_ssh(command)} %H\n"
    )
    return config


def _for_ssh(path: Path) -> str:
    """A path in ssh's configuration (ssh_config(5): double quotes, and percent expansion)."""
    return '"' + str(path).replace("\\", "/").replace("%", "%%") + '"'


def rsa_key() -> str:
    """Return base64 of a public key (RFC 4253, section 6.6) of which nobody has the private one: ssh reads its length alone."""
    parts = b"ssh-rsa", b"\x01\x00\x01", b"\x00" + (2**2047 + 1).to_bytes(256, "big")
    return base64.b64encode(b"".join(struct.pack(">I", len(part)) + part for part in parts)).decode()


class Listener:
    """Answers one connection on the loopback as an SSH server would, until the client's first packet."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LIMIT_S)
        self.port: int = self._listener.getsockname()[1]
        self.received = b""
        self._thread = threading.Thread(target=self._serve, name="listener", daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()

    def join(self) -> None:
        """Let nobody in any more, and return when who was let in is gone."""
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()  # wakes accept on every system
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            client, _ = self._listener.accept()
            with client:
                client.settimeout(LIMIT_S)
                client.sendall(BANNER)
                while not host_key_algorithms(self.received):
                    data = client.recv(65536)
                    if not data:
                        return
                    self.received += data


def host_key_algorithms(received: bytes) -> tuple[str, ...]:
    """Return the host key algorithms in a client's first packet, after its banner; empty until it is whole."""
    packet = received.partition(b"\n")[2]
    with suppress(struct.error):
        (size,) = struct.unpack_from(">I", packet)
        if len(packet) < 4 + size or packet[5:6] != bytes([KEXINIT]):
            return ()
        at = 4 + 1 + 1 + 16  # length, padding's length, message, cookie
        (length,) = struct.unpack_from(">I", packet, at)  # the key exchange algorithms come first
        at += 4 + length
        (length,) = struct.unpack_from(">I", packet, at)
        return tuple(packet[at + 4 : at + 4 + length].decode("ascii", "replace").split(","))
    return ()


def decide_known_hosts(seen: KnownHosts) -> Decision:
    """The key that the command prints must be used."""
    match seen:
        case KnownHosts(why_not=why_not) if why_not:
            return Undecided(why_not)
        case KnownHosts(version, _, (first, *_)) if first.startswith(("rsa-", "ssh-rsa")):
            return Holds(f"{version} runs the command, and uses the key that it prints")
        case KnownHosts(version, True, (_, *_)):
            return Refuted(f"{version} runs the command, and does not use the key that it prints")
        case KnownHosts(version, False, (_, *_)):
            return Refuted(f"{version} does not run the command")
        case KnownHosts(version, errors=errors) if "bad configuration option" in errors.lower():
            return Refuted(f"{version} does not know the option")
        case KnownHosts(version, errors=errors):
            return Undecided(f"{version} ended before its first packet: {errors}")


# ---- Match exec ------------------------------------------------------------------------------------


class MatchExec(NamedTuple):
    """What `ssh -G` says below two `Match exec`. applies: of a command that succeeds, and of one that fails."""

    version: str
    applies: tuple[bool, bool]
    errors: str
    why_not: str = ""


def observe_match_exec(lab: Lab) -> MatchExec:
    """Try it with this machine's ssh."""
    seen = try_match_exec(this_machine(lab.environ))
    if not seen.why_not:
        lab.account.note(f"ssh -G with Match exec, {seen.version}", f"applies: {seen.applies} {seen.errors}")
    return seen


def try_match_exec(machine: Machine) -> MatchExec:
    """Ask ssh for its configuration, without a connection."""
    python = machine.python.replace("\\", "/")
    why_not = _why_not(machine)
    if not why_not and any(letter.isspace() or letter in "\"'%" for letter in python):
        why_not = f"the path of Python has characters that a command without quotes cannot have: {python}"
    if why_not:
        return MatchExec("", (False, False), "", why_not)
    with tempfile.TemporaryDirectory(prefix="nbssh-verify-") as folder:
        config = Path(folder) / "config"
        config.write_text(
            f'Match exec "{python} -I -c pass"\n    Port {PORT}\nMatch exec "{python} -I -c 1/0"\n    User {HOST}\n'
        )
        ran = _run([machine.ssh, "-G", "-F", str(config), HOST])
    lines = ran.output.lower().splitlines()
    errors = "" if ran.status == 0 else _last(ran.errors) or f"exit status {ran.status}"
    return MatchExec(_version(machine.ssh), (f"port {PORT}" in lines, f"user {HOST}" in lines), errors)


def decide_match_exec(seen: MatchExec) -> Decision:
    """What a command that succeeds selects must count, and what another selects must not."""
    match seen:
        case MatchExec(why_not=why_not) if why_not:
            return Undecided(why_not)
        case MatchExec(version, _, errors) if errors:
            return Undecided(f"{version} did not say its configuration: {errors}")
        case MatchExec(version, (True, False)):
            return Holds(f"{version} runs a program by its path with slashes")
        case MatchExec(version, (False, False)):
            return Refuted(f"{version} does not run a program by its path with slashes")
        case MatchExec(version):
            return Refuted(f"{version} does not heed how the program ends")


def _version(ssh: str) -> str:
    """The first line of `ssh -V`, which it writes to standard error."""
    return _last(_run([ssh, "-V"]).errors) or "ssh"


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")[:200]


EXPERIMENTS = (
    Experiment(
        "windows-known-hosts",
        "let this machine's ssh, on Windows, run a KnownHostsCommand against a listener on the loopback",
        frozenset[Need](),
        observe_known_hosts,
        decide_known_hosts,
    ),
    Experiment(
        "windows-match-exec",
        "let this machine's ssh, on Windows, evaluate a Match exec",
        frozenset[Need](),
        observe_match_exec,
        decide_match_exec,
    ),
)
