"""Root's part of sshd: starts the system's, or one of our own where the system's cannot serve.

Whether sshd runs on a notebook of today's platform is UNCONFIRMED(sshd-runs), and so is why it would not: not installed, masked, a
configuration that `sshd -t` refuses, no host keys, another program on port 22. So whatever the reason, our own server
is a unit of its own with a configuration of its own, which changes nothing of the system's.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

from agent import HOME, ROOT, RUN_DIR, load_json, read_text, write_text
from worker.model import Problem
from worker.sshd import SSH_PORT, STATE_FILE, SshServer, responds

UNIT = "notebook-ssh-sshd"
# In /etc/ssh, where SELinux lets sshd read; new at every start of the instance.
OWN_DIR = ROOT + "/etc/ssh/notebook-ssh/"
PID_FILE = RUN_DIR + "sshd.pid"
STARTED_FILE = RUN_DIR + "sshd"  # the system's sshd was started by the agent
PROGRAM_DIRS = ":".join(ROOT + folder for folder in ("/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"))
# The system's crypto policy, as Fedora's and Amazon Linux's sshd_config includes it.
CRYPTO_POLICY = "/etc/crypto-policies/back-ends/opensshserver.config"
INSTALL_RETRY_S = 600

# Keys only, one user, no root. PAM's session and account steps are the system's; the first value of an option counts.
CONFIG = """\
Port {port}
{listen}
{host_keys}
AllowUsers {user}
PermitRootLogin no
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthenticationMethods publickey
AuthorizedKeysFile .ssh/authorized_keys
UsePAM {pam}
Subsystem sftp internal-sftp
PidFile {pid_file}
"""


def ensure_sshd(reach: str) -> None:
    """Let an SSH server respond. reach: `loopback` or `network`: who must reach it, or "" for the system's alone.

    With `either` the network must, or as long as another program has its port, at least the loopback.
    """
    server = SshServer()
    if server.serves(reach) if reach else responds(server.port):
        if not server.reach:
            write_state({})
        return
    if reach == "either" and server.is_displaced() and not is_free(SSH_PORT):
        write_state({**load_json(STATE_FILE), "problem": port_taken()})
        return
    stop_own()
    start_system()
    if responds(SSH_PORT):
        write_state({})
    elif reach:
        problem = start_own(reach)
        if problem:
            write_state({"problem": problem, **installation(problem)})


def stop_sshd() -> None:
    """Stop what the agent started, and remove its files."""
    stop_own()
    write_state({})
    if read_text(STARTED_FILE):
        systemctl("stop")
        os.unlink(STARTED_FILE)


def write_state(state: dict[str, object]) -> None:
    """Write STATE_FILE, which the worker reads, or remove it if there is nothing to tell."""
    if state:
        write_text(STATE_FILE, json.dumps(state))
    elif os.path.lexists(STATE_FILE):
        os.unlink(STATE_FILE)


# --- the system's --------------------------------------------------------------------------------------------


def start_system() -> None:
    """Start the system's sshd. It fails for many reasons; what counts is whether an SSH server responds then."""
    # An sshd that is starting, or that was enabled by the owner's script, is not the agent's to stop. /etc is new at
    # every start, so enabling it would have no effect.
    ours = bool(systemctl("is-enabled") and systemctl("is-active"))
    if ours:
        write_text(STARTED_FILE, "started by the agent\n")
    if systemctl("start") and ours:
        with contextlib.suppress(FileNotFoundError):  # an agent before this one may be at the same
            os.unlink(STARTED_FILE)


def systemctl(verb: str, unit: str = "sshd") -> int:
    """Return the exit status of `systemctl verb unit`; 0 means yes, or done."""
    try:
        return subprocess.run(["systemctl", "--quiet", verb, unit], stdin=subprocess.DEVNULL, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired):
        return 1


# --- our own -------------------------------------------------------------------------------------------------


def start_own(reach: str) -> Problem | None:
    """Start our own server and write its state; return the problem if that fails."""
    program = shutil.which("sshd", path=PROGRAM_DIRS)
    if not program:
        return "sshd-missing", explain_missing()
    port, listen = SSH_PORT, "loopback" if reach == "loopback" else "network"
    if not is_free(port):
        if reach == "network":
            return port_taken()
        port, listen = free_port(), "loopback"
    os.makedirs(OWN_DIR, 0o755, exist_ok=True)
    keys = host_key_files()
    if not keys:
        return "sshd-down", f"ssh-keygen could generate no host key in {OWN_DIR}: see that the root volume has room"
    refusal = configure(program, port, listen, keys)
    if refusal:
        return "sshd-down", f"sshd refuses {OWN_DIR}sshd_config, too ({refusal}): let `sshd -t` accept the system's"
    launch(program)
    deadline = time.monotonic() + 10
    while not responds(port):
        if time.monotonic() > deadline:
            return "sshd-down", f"the agent's sshd does not respond on port {port}; see `journalctl -u {UNIT}`"
        time.sleep(0.1)
    public = [derive_public_key(path) for path in keys]
    state = {"port": port, "reach": listen, "host_keys": [line for line in public if line]}
    write_state({**state, "problem": port_taken()} if (reach, listen) == ("either", "loopback") else state)
    print(f"notebook-ssh: the agent's own sshd listens on port {port} ({listen})", file=sys.stderr)
    return None


def port_taken() -> Problem:
    """Return the problem that another program has the port on which the network has to reach SSH."""
    return (
        "sshd-port-taken",
        f"another program listens on port {SSH_PORT}, where SSH has to: root's `ss -ltnp sport = {SSH_PORT}` names it; "
        "stop it, or set the tag to ngrok",
    )


def explain_missing() -> str:
    """Return what to do where sshd is not installed."""
    if not may_install():
        return "sshd is not installed: install openssh-server in the on-start script, or an admin sets InstallSshd=true"
    manager = package_manager()
    if not manager:
        return "sshd is not installed, and neither dnf nor yum is there to do it: install openssh-server in the on-start script"
    return (
        f"sshd is not installed: `{manager} install openssh-server` is tried every {INSTALL_RETRY_S // 60} minutes; if it "
        "stays so, see that the notebook reaches the repository, and `journalctl -u notebook-ssh-install`"
    )


def is_free(port: int) -> bool:
    """Return whether no program listens on the port, on any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have just ended do not count
        try:
            probe.bind(("", port))
            return True
        except OSError:
            return False


def free_port() -> int:
    """Return a port of the loopback on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def host_key_files() -> list[str]:
    """Return the host's private keys that can be read, or else generate some.

    In FIPS mode ssh-keygen refuses Ed25519, so there are three types, and one suffices.
    """
    found = [path for path in sorted(glob.glob(ROOT + "/etc/ssh/ssh_host_*_key")) if derive_public_key(path)]
    if found:
        return found
    for kind, bits in ("ed25519", "256"), ("ecdsa", "256"), ("rsa", "3072"):
        path = f"{OWN_DIR}ssh_host_{kind}_key"
        if not derive_public_key(path):
            for old in path, path + ".pub":
                if os.path.lexists(old):
                    os.unlink(old)
            keygen("-q", "-t", kind, "-b", bits, "-N", "", "-f", path)
    return [path for path in sorted(glob.glob(OWN_DIR + "ssh_host_*_key")) if derive_public_key(path)]


def derive_public_key(path: str) -> str:
    """Return the public key of a private key without a passphrase, `type base64`, or ""."""
    return " ".join(keygen("-y", "-P", "", "-f", path).split()[:2])


def keygen(*words: str) -> str:
    """Return the output of ssh-keygen, or "" if it fails."""
    try:
        ended = subprocess.run(
            [shutil.which("ssh-keygen", path=PROGRAM_DIRS) or "ssh-keygen", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if ended.returncode else ended.stdout.decode(errors="replace")


def configure(program: str, port: int, reach: str, keys: list[str]) -> str:
    """Write our own sshd_config; return what `sshd -t` objects to, or "".

    The crypto policy goes first unless sshd refuses it there: older policies are options of the command line.
    """
    text = CONFIG.format(
        port=port,
        listen="ListenAddress 127.0.0.1" if reach == "loopback" else "AddressFamily any",
        host_keys="\n".join(f"HostKey {path}" for path in keys),
        user=pwd.getpwuid(os.stat(HOME).st_uid).pw_name,
        pam="yes" if os.path.exists(ROOT + "/etc/pam.d/sshd") else "no",
        pid_file=PID_FILE,
    )
    path = OWN_DIR + "sshd_config"
    refusal = ""
    for policy in (f"Include {CRYPTO_POLICY}\n" if os.path.exists(CRYPTO_POLICY) else "", ""):
        write_text(path, policy + text, 0o600)
        refusal = check_configuration(program, path)
        if not refusal:
            break
    return refusal


def check_configuration(program: str, path: str) -> str:
    """Return the last line of what `sshd -t` objects to, or "". A directory that it misses is created."""
    for _ in range(2):
        ended = subprocess.run([program, "-t", "-f", path], stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        output = ended.stderr.decode(errors="replace").strip()
        missing = re.search(r"privilege separation directory: (/\S+)", output)
        if not missing or not ended.returncode:
            break
        os.makedirs(missing[1], 0o755, exist_ok=True)  # it is below /run, and sshd's unit would create it
    return (output.splitlines() or [f"status {ended.returncode}"])[-1][:200] if ended.returncode else ""


def launch(program: str) -> None:
    """Start our own server as a unit, or as a daemon where there is no systemd."""
    path = OWN_DIR + "sshd_config"
    unit = ["systemd-run", "--quiet", f"--unit={UNIT}", "--collect", "-pRestart=always", "-pRestartSec=9"]
    unit.append("-pKillMode=process")  # sessions outlive the server, as with the system's unit
    try:
        if not subprocess.run([*unit, program, "-D", "-f", path], stdin=subprocess.DEVNULL, timeout=60).returncode:
            return
    except (OSError, subprocess.TimeoutExpired):
        pass
    subprocess.run([program, "-f", path], stdin=subprocess.DEVNULL, timeout=60)


def stop_own() -> None:
    """Stop our own server and remove its files; sessions stay."""
    if not os.path.isdir(OWN_DIR):
        return
    systemctl("stop", UNIT)
    pid = read_text(PID_FILE).strip()
    if pid.isdigit() and "sshd" in read_text(f"/proc/{pid}/cmdline"):
        os.kill(int(pid), signal.SIGTERM)
    for path in (PID_FILE, OWN_DIR + "sshd_config"):
        if os.path.lexists(path):
            os.unlink(path)


# --- installation --------------------------------------------------------------------------------------------


def may_install() -> bool:
    """Return whether the stack allows to install a package."""
    return os.environ.get("NOTEBOOK_SSH_INSTALL_SSHD") == "yes"


def package_manager() -> str | None:
    """Return the path of dnf or yum."""
    return shutil.which("dnf", path=PROGRAM_DIRS) or shutil.which("yum", path=PROGRAM_DIRS)


def installation(problem: Problem) -> dict[str, object]:
    """Start the installation of the package if sshd is missing and the stack allows it; return what to remember of it.

    It runs in the background, at most once in INSTALL_RETRY_S: a package manager must not be killed by a timeout.
    """
    if problem[0] != "sshd-missing" or not may_install():
        return {}
    before = load_json(STATE_FILE).get("installed_at", 0)
    manager = package_manager()
    if not manager or time.time() - before < INSTALL_RETRY_S:
        return {"installed_at": before}
    print("notebook-ssh: installing openssh-server", file=sys.stderr)
    command = [manager, "-y", "-q", "install", "openssh-server"]
    unit = ["systemd-run", "--quiet", "--unit=notebook-ssh-install", "--collect"]
    try:
        started = not subprocess.run([*unit, *command], stdin=subprocess.DEVNULL, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired):
        started = False
    if not started:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    return {"installed_at": int(time.time())}
