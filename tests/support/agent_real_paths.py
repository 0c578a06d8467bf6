"""Run inside new mount, network and process namespaces, as root: a notebook with its real paths and a real ec2-user.

`test_agent_real_paths.py` starts it. It exits with 0 if every assertion held.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import agent_sessions, namespaces
from support.agent_env import (
    ACCESS,
    PROGRAMS,
    PROJECT,
    SECRET,
    SESSION,
    STAND_IN,
    WORKER,
    Download,
    NotebookHost,
    Stack,
    make_reply,
    ngrok_archive,
    wait_until,
    write_identity,
)

import processes
from notebook.metadata_service import MetadataService
from notebook_ssh.model.block_program import BlockSettings, render_block
from patience import LIMIT_S
from sshd import start_sshd

UID = 54321
HOME = Path("/home/ec2-user")
NOTEBOOK_PYTHON = HOME / "anaconda3/envs/JupyterSystemEnv/bin/python"
SYSTEM_PYTHON = "/usr/bin/python3"
SYSTEMD = Path("/mnt/systemd")
DROPPED = "-dac_override,-dac_read_search,-fowner"
RESTRICTED = "setpriv", f"--bounding-set={DROPPED}", f"--inh-caps={DROPPED}"
"""Runs a command as a root that has access to root's own files only (capabilities(7))."""
RESTRICTED_PYTHON = "/mnt/python3"
"""Runs the system's Python in this way."""
AGENT = "/opt/notebook-ssh/agent.py"


class RealNotebookHost(NotebookHost):
    """A notebook whose root is `/`."""

    def boot(self) -> None:
        """Set the environment; `prepare` has created the files."""
        self.credentials = {
            "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SESSION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip


class RealSshd:
    """sshd as on a notebook: port 22, StrictModes."""

    port = 22
    folder = Path("/etc/ssh")


def run(*command: str | Path, input: str | None = None) -> str:  # noqa: A002  (as subprocess names it)
    """Run a command as root and return its output."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S, input=input).stdout


def run_as_user(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as ec2-user, without other privileges."""
    return subprocess.run(
        command, user=UID, group=UID, extra_groups=[], capture_output=True, text=True, cwd=HOME, timeout=LIMIT_S, check=False,
        env={"HOME": str(HOME), "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip


def prepare() -> None:
    """Create the machine's files, which are visible in the namespaces only."""
    namespaces.keep_mounts()
    run("mount", "-t", "proc", "proc", "/proc")  # of this process namespace
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", "169.254.169.254/32", "dev", "lo")
    scratch = Path("/mnt")
    run("mount", "-t", "tmpfs", "none", scratch)
    for name, line in (
        ("passwd", f"ec2-user:x:{UID}:{UID}::{HOME}:/bin/bash\n"),
        ("group", f"ec2-user:x:{UID}:\n"),
        ("shadow", "ec2-user:*:19000::::::\n"),
    ):
        text = Path("/etc", name).read_text()
        (scratch / name).write_text("".join(each for each in text.splitlines(True) if f":{UID}:" not in each) + line)
        (scratch / name).chmod(0o644)
        run("mount", "--bind", scratch / name, f"/etc/{name}")
    needed = {path: os.open(path, os.O_PATH) for path in (PROJECT, Path(sys.prefix), Path(sys.base_prefix))}
    for folder in (
        "/home",
        "/opt",
        "/run",
        "/var/log",
        "/usr/local/bin",
        "/etc/profile.d",
        "/etc/ssh",
        "/etc/systemd/system",
    ):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "none", folder)
    for path, descriptor in needed.items():
        if not path.exists():  # it was below one of these
            path.mkdir(parents=True)
            run("mount", "--rbind", f"/proc/{os.getpid()}/fd/{descriptor}", path)
        os.close(descriptor)
    (HOME / "SageMaker").mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", HOME / "SageMaker")
    _python_with_botocore()
    _conda()
    (HOME / "SageMaker/ssh").mkdir()
    run("chown", "-R", f"{UID}:{UID}", HOME)
    write_identity(Path("/"))
    Path("/opt/notebook-ssh").mkdir(mode=0o700)
    shutil.copy(PROGRAMS / "agent.py", "/opt/notebook-ssh")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/ssh_host_ed25519_key")
    text = "Port 22\nListenAddress 127.0.0.1\nUsePAM no\nStrictModes yes\n"
    sftp = next(path for path in SFTP if os.path.exists(path))
    Path("/etc/ssh/sshd_config").write_text(f"{text}PidFile {SYSTEMD}/sshd.pid\nSubsystem sftp {sftp}\n")
    Path(RESTRICTED_PYTHON).write_text(f'#!/bin/sh\nexec {" ".join(RESTRICTED)} {SYSTEM_PYTHON} "$@"\n')
    Path(RESTRICTED_PYTHON).chmod(0o755)
    SYSTEMD.mkdir()
    for name in ("systemctl", "systemd-run"):
        (SYSTEMD / name).write_text(f"#!{SYSTEM_PYTHON}\n" + (PROJECT / "tests/support/agent_systemd.py").read_text())
        (SYSTEMD / name).chmod(0o755)


SFTP = "/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"


def _conda() -> None:
    """Create the notebook's conda, which prints a line, and a .bashrc that reads /etc/profile.d, as Amazon Linux's does."""
    conda = HOME / "anaconda3"
    (conda / "etc/profile.d").mkdir(parents=True)
    (conda / "bin").mkdir()
    (conda / "etc/profile.d/conda.sh").write_text('echo conda loaded; conda() { echo "the notebook\'s conda"; }\n')
    (conda / "bin/python").write_text(f'#!/bin/sh\nexec {NOTEBOOK_PYTHON} "$@"\n')
    (conda / "bin/python").chmod(0o755)
    (HOME / ".bashrc").write_text("for file in /etc/profile.d/*.sh; do . $file; done\n")


def _python_with_botocore() -> None:
    """Create the notebook's own Python with botocore, which the system's has not, as on a real notebook."""
    import botocore

    run(SYSTEM_PYTHON, "-m", "venv", "--without-pip", NOTEBOOK_PYTHON.parent.parent)
    target = next(NOTEBOOK_PYTHON.parent.parent.glob("lib/python3*/site-packages"))
    source = Path(botocore.__file__).parent.parent
    unused = shutil.ignore_patterns("__pycache__", "ec2", "[!_ps]*-*", "data")
    for name in ("botocore", "jmespath", "dateutil", "urllib3", "six.py", "yaml"):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=unused)
        else:
            shutil.copy(source / name, target)
    (target / "botocore/data").mkdir(exist_ok=True)
    for name in ("endpoints.json", "partitions.json", "_retry.json", "sdk-default-configuration.json"):
        shutil.copy(source / "botocore/data" / name, target / "botocore/data")


def process_owners() -> dict[str, int]:
    """Return the owner of each of the agent's processes, by its last argument."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            uid = entry.stat().st_uid
        except OSError:
            continue
        if "/opt/notebook-ssh/" in line or "start --all" in line:
            found["supervisor" if "NOTEBOOK_SSH_API" in line else "ngrok" if "--all" in line else line.split()[-1]] = (
                uid
            )
    return found


def users_scenario(notebook: RealNotebookHost, stack: Stack) -> None:
    """Test what root and ec2-user do, from a full disk to a shell; root has no access below the home directory."""
    for link, target in (
        (HOME / "SageMaker/SSH_INSTRUCTIONS", "/etc/passwd"),
        (HOME / ".vscode-server", "/etc"),
        (HOME / ".ssh", "/etc/ssh"),
    ):
        link.symlink_to(target)
        os.lchown(link, UID, UID)
    HOME.chmod(0o772)  # which sshd refuses
    before = root_files()
    filler = HOME / "SageMaker/large.bin"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))

    stack.reply = make_reply("ngrok", sync_after=1)
    notebook.start(RESTRICTED_PYTHON)
    problem = wait_until(lambda: stack.last_report().get("problem"), "a full disk is reported", notebook)
    assert problem["code"] == "disk-full", problem
    filler.unlink()
    hard_links = hard_link_root_files()
    assert run_as_user("start-ssh-ngrok").returncode == 0, notebook.logs()
    port = notebook.wait_connected()["port"]

    uids = process_owners()
    assert uids["supervisor"] == 0, uids
    assert stat.S_IMODE(HOME.stat().st_mode) == 0o750, "sshd reads no keys where other users can write"
    assert {uids["work"], uids["ngrok"]} == {UID}, uids
    written = [path for path in HOME.rglob("*") if "anaconda3" not in path.parts and path.lstat().st_uid == 0]
    assert written == [HOME / "SageMaker/precious"], f"root wrote below the home directory: {written}"
    tops = [
        Path(top) for top in ("/opt/notebook-ssh", "/run/notebook-ssh", "/usr/local/bin", "/etc/profile.d", "/var/log")
    ]
    owned = [path for top in tops for path in (top, *top.rglob("*")) if path.lstat().st_uid == 0]
    assert AGENT in map(str, owned)
    assert not [path for path in owned if path.stat().st_mode & 0o022], "only root can write root's files"
    assert Path("/run/notebook-ssh/worker/reply.json").stat().st_mode & 0o077 == 0
    instructions = (HOME / "SageMaker/SSH_INSTRUCTIONS").lstat()
    assert (instructions.st_mode, instructions.st_uid) == (0o100644, UID), "Jupyter, which is ec2-user, reads it"

    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/mnt/key")
    (HOME / "SageMaker/ssh/authorized_keys").write_text(Path("/mnt/key.pub").read_text())
    copied = run_as_user("copy-ssh-keys")
    assert (copied.returncode, copied.stdout) == (0, "Copying 1 SSH keys...\n"), copied
    Path("/mnt/known").write_text(f"[127.0.0.1]:{port} {stack.last_report()['host_keys'][0]}\n")
    Path("/mnt/config").write_text(
        "StrictHostKeyChecking yes\nUserKnownHostsFile /mnt/known\nIdentityFile /mnt/key\nBatchMode yes\n"
    )
    check_shells(notebook, port)
    check_sessions(stack, port)
    swap_paths(notebook, stack)
    assert all(path.read_text() == text for path, text in hard_links.items()), "a hard link's target was written"
    assert {path: kind for path, kind in root_files().items() if path in before} == before, "root's files changed"
    assert Path("/mnt/stderr").read_text() == "", "no program of the agent crashed, or was denied access"


def ssh(port: int, *arguments: str) -> list[str]:
    """Return the command line to log in; the host key is known, and verified from the first login on."""
    return ["ssh", "-F", "/mnt/config", "-p", str(port), "ec2-user@127.0.0.1", *arguments]


def check_shells(notebook: RealNotebookHost, port: int) -> None:
    """Check that a terminal has the notebook's conda, credentials and region, and that programs get no output."""
    assert run(*ssh(port, "id -un")) == "ec2-user\n", "the first login, with the host key verified"
    shell = 'python -c "import botocore.session as b; s = b.Session(); print(s.get_credentials().access_key, '
    shell += "s.get_config_variable('region'))\"; conda which; exit\n"
    at_terminal = run(*ssh(port, "-tt"), input=shell)
    assert f"{ACCESS} eu-west-1" in at_terminal, at_terminal
    assert "the notebook's conda" in at_terminal, at_terminal
    assert "conda loaded" in at_terminal

    assert run(*ssh(port, "true")) == ""
    assert run(*ssh(port, "bash"), input="echo ready\n") == "ready\n", "as an editor starts its server"
    sent, back = Path("/mnt/sent.ipynb"), HOME / "SageMaker/sent.ipynb"
    sent.write_text("a notebook\n")
    line = next(line for line in notebook.instructions.read_text().splitlines() if line.startswith("with plain ssh: "))
    copy = line.partition("scp ")[2].replace("FILE", str(sent)).split()
    for command in (
        ["scp", "-q", "-F", "/mnt/config", *copy],
        ["scp", "-q", "-O", "-F", "/mnt/config", *copy],
        ["rsync", "-e", f"ssh -F /mnt/config -p {port}", str(sent), "ec2-user@127.0.0.1:SageMaker/"],
        ["sftp", "-q", "-b", "/mnt/batch", "-F", "/mnt/config", "-P", str(port), "ec2-user@127.0.0.1"],
    ):
        Path("/mnt/batch").write_text(f"@put {sent} SageMaker/\n")
        assert run(*command) == "", command
        assert back.read_text() == sent.read_text(), command
        back.unlink()


NO_SESSIONS = {"open": 0, "active_at": None}


def check_sessions(stack: Stack, port: int) -> None:
    """Check that open connections are reported: with a terminal, without one, and with a port forward alone."""
    assert run_as_user("ssh-status", "--in-use").returncode == 1
    forwards = ("-N", "-L", "2222:127.0.0.1:22"), ("-N", "-D", "1080")
    for options in (("read x",), ("-tt", "read x"), *forwards):
        started_at = int(time.time())
        with subprocess.Popen(ssh(port, *options), stdin=subprocess.PIPE) as session:
            wait_until(lambda: run_as_user("ssh-status", "--in-use").returncode == 0, "an open session counts as use")
            reported = wait_until(
                lambda: stack.last_report()["sessions"]["open"] == 1 and stack.last_report()["sessions"],
                "it is reported",
            )
            assert started_at <= reported["active_at"] <= time.time(), reported
            session.terminate()
        wait_until(lambda: run_as_user("ssh-status", "--in-use").returncode == 1, "and no longer when it is closed")
        wait_until(lambda: NO_SESSIONS.items() <= stack.last_report()["sessions"].items(), "which is reported, too")


def hard_link_root_files() -> dict[Path, str]:
    """Create hard links to root's files where the agent writes; return those files and their texts."""
    (HOME / ".ssh").unlink()
    links = {
        HOME.parent / "precious": HOME / ".ssh/authorized_keys",
        HOME / "SageMaker/precious": HOME / "SageMaker/.notebook-ssh/ngrok.yml",
    }
    for precious, path in links.items():
        precious.write_text("# root's\n")
        path.parent.mkdir(exist_ok=True)
        os.chown(path.parent, UID, UID)
        path.unlink(missing_ok=True)
        path.hardlink_to(precious)
    return dict.fromkeys(links, "# root's\n")


SWAP_LOOP = """
import contextlib, os, sys
pairs = [pair.split("=") for pair in sys.argv[1:]]
while True:
    for place, target in pairs:
        with contextlib.suppress(OSError):
            os.rename(place, place + ".moved")
        with contextlib.suppress(OSError):
            os.symlink(target, place)
        with contextlib.suppress(OSError):
            os.unlink(place)
        with contextlib.suppress(OSError):
            os.rename(place + ".moved", place)
"""
"""What a user without root could run all day: paths that the agent uses become links to root's, and back."""


def swap_paths(notebook: RealNotebookHost, stack: Stack) -> None:
    """Let ec2-user swap folders and files while the agent uses them, and while root runs the commands."""
    pairs = {
        HOME / ".ssh": "/etc/ssh",
        HOME / "SageMaker/SSH_INSTRUCTIONS": "/etc/passwd",
        HOME / "SageMaker/SSH_INSTRUCTIONS~": "/etc/passwd",
        HOME / "SageMaker/ssh": "/etc/ssh",
        HOME / "SageMaker/.ngrok": "/opt/notebook-ssh",
        HOME / "SageMaker/.notebook-ssh": "/opt/notebook-ssh",
    }
    arguments = [f"{path}={target}" for path, target in pairs.items()]
    count = len(stack.reports)
    with subprocess.Popen(
        [SYSTEM_PYTHON, "-c", SWAP_LOOP, *arguments], user=UID, group=UID, extra_groups=[]
    ) as swapping:
        for command in ("copy-ssh-keys", "start-ssh-ngrok", "copy-ssh-keys", "ssh-status"):
            subprocess.run([*RESTRICTED, command], capture_output=True, timeout=LIMIT_S, check=False)
        wait_until(lambda: len(stack.reports) > count + 2, "the agent continues", notebook)
        swapping.kill()
    for path in pairs:
        if path.is_symlink():
            path.unlink()
        if (moved := path.with_name(path.name + ".moved")).exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            moved.rename(path)
    wait_until(
        lambda: run_as_user("copy-ssh-keys").stdout == "Copying 1 SSH keys...\n",
        "the keys are in place again",
        notebook,
    )
    wait_until(lambda: run_as_user("start-ssh-ngrok").returncode == 0, "the tunnel is up again", notebook)
    assert (HOME / ".ssh/authorized_keys").stat().st_uid == UID
    assert run(*RESTRICTED, "copy-ssh-keys").startswith("Copying 1"), "with sudo it works too"


def root_files() -> dict[Path, tuple[int, int, bytes]]:
    """Return (mode, owner, checksum) of each file in the folders that the user's links point to."""
    found = {}
    for top in ("/etc", "/opt", "/usr/local/bin"):
        for path in Path(top).rglob("*"):
            kind = path.lstat()
            if stat.S_ISREG(kind.st_mode):
                found[path] = kind.st_mode, kind.st_uid, hashlib.sha256(path.read_bytes()).digest()
    return found


def systemd_scenario(notebook: RealNotebookHost, stack: Stack) -> None:
    """Test the block with systemd: unit, second start, crashes, and an sshd that the agent may or may not stop."""
    Path("/run/systemd/system").mkdir(parents=True)
    proxies = SYSTEMD / "environment"
    proxies.write_text("NO_PROXY=inside.example.com\n")
    run("touch", "/etc/environment")
    run("mount", "--bind", proxies, "/etc/environment")
    stack.reply = make_reply("bastion", sync_after=1)

    stack.status = 500
    on_start(notebook)
    wait_until(lambda: "(500, " in notebook.logs(), "the failure is logged", notebook)
    assert notebook.log.read_text() == (SYSTEMD / "journal").read_text(), "in the journal as in the log"
    stack.status = 200
    notebook.wait_connected()
    assert [words[1:] for words in calls()[:3]] == [["daemon-reload"], ["enable", UNIT], ["restart", UNIT]]
    unit = Path(f"/etc/systemd/system/{UNIT}.service")
    assert {"Restart=always", "RestartSec=9", "RestartPreventExitStatus=64"} < set(unit.read_text().splitlines())
    assert f'"NOTEBOOK_SSH_TAG_KEY={TAG_KEY}"' in unit.read_text(), "a space and a quotation mark are preserved"
    if shutil.which("systemd-analyze"):
        verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=LIMIT_S)
        assert (verified.returncode, UNIT in verified.stderr) == (0, False), verified.stderr
    first = wait_until(supervisor_pid, "the supervisor runs", notebook)
    worker = next(pid for pid, line in command_lines().items() if line.endswith("worker.py work "))
    assert b"NO_PROXY=inside.example.com" in Path(f"/proc/{worker}/environ").read_bytes().split(b"\0"), (
        "a child's proxies"
    )
    assert "sshd" in " ".join(calls()[-1]), "sshd was not running"
    assert calls()[-1] == ["systemctl", "--quiet", "start", "sshd"]

    os.kill(first, signal.SIGKILL)
    second = wait_until(
        lambda: supervisor_pid() not in (None, first) and supervisor_pid(), "systemd restarts it", notebook
    )
    count = len(stack.reports)
    wait_until(lambda: len(stack.reports) > count, "and it reports", notebook)

    reboot()
    second = wait_until(supervisor_pid, "the agent runs after a reboot, without the on-start script", notebook)
    count = len(stack.reports)
    wait_until(lambda: len(stack.reports) > count + 1, "and reports", notebook)
    wait_until(lambda: stack.last_report()["phase"] == "connected", "connected", notebook)

    stack.reply = make_reply("off", sync_after=1)
    wait_until(lambda: calls()[-1] == ["systemctl", "--quiet", "stop", "sshd"], "the agent's sshd is stopped", notebook)
    wait_until(lambda: not Path("/run/notebook-ssh/sshd").exists(), "and its state removed", notebook)

    (SYSTEMD / "enabled").touch()
    stack.reply = make_reply("bastion", sync_after=1)
    on_start(notebook)
    third = wait_until(
        lambda: supervisor_pid() not in (None, first, second) and supervisor_pid(),
        "a second start takes over",
        notebook,
    )
    wait_until(lambda: calls()[-1] == ["systemctl", "--quiet", "start", "sshd"], "an enabled one is started", notebook)
    assert [call[1:] for call in calls() if "sshd" not in call][-1] == ["restart", UNIT]
    assert not Path("/opt/notebook-ssh/loop").exists(), "no loop next to the unit"
    assert third == supervisor_pid()
    wait_until(lambda: stack.last_report()["phase"] == "connected", "on again", notebook)
    stack.reply = make_reply("off", sync_after=1)
    wait_until(lambda: stack.last_report()["mode"] == "off", "off once more", notebook)
    count = len(stack.reports)
    wait_until(lambda: len(stack.reports) > count + 1, "off for good", notebook)
    assert calls()[-1] == ["systemctl", "--quiet", "start", "sshd"], "but not stopped: the agent did not start it"
    run(SYSTEMD / "systemctl", "stop", "notebook-ssh")
    run(SYSTEMD / "systemctl", "stop", "sshd")


TAG_KEY = "team's ssh"
UNIT = "notebook-ssh"


def reboot() -> None:
    """Reboot the machine: every process of the agent ends, /run is empty, and systemd starts what is enabled."""
    run(SYSTEMD / "systemctl", "stop", UNIT)
    run(SYSTEMD / "systemctl", "stop", "sshd")
    wait_until(
        lambda: not [line for line in command_lines().values() if "/opt/notebook-ssh/" in line], "all have ended"
    )
    shutil.rmtree("/run/notebook-ssh")
    run(SYSTEMD / "systemctl", "boot")


def command_lines() -> dict[int, str]:
    """Return the command lines of all processes."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def on_start(notebook: RealNotebookHost) -> None:
    """Run the block as a notebook does at its start; it must exit with 0."""
    folder = PROGRAMS
    frame, boot, agent = ((folder / name).read_text() for name in ("block.sh", "boot.py", "agent.py"))
    worker = hashlib.sha256(WORKER.encode()).hexdigest()
    settings = BlockSettings(
        "team-ssh", "1.0.0", "eu-west-1", f"{notebook.stack.url}/v1", "team ssh", worker_sha256=worker
    )
    body = render_block(frame, boot, agent, settings).text().replace(b"team ssh'", b"team'\\''s ssh'")
    script = Path("/mnt/on-start")
    script.write_bytes(b"#!/bin/sh\n" + body)
    subprocess.run(
        ["sh", script],
        check=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
        env={"PATH": f"{SYSTEMD}:/usr/sbin:/usr/bin:/bin"},
    )


def calls() -> list[list[str]]:
    """Return the calls of systemctl and systemd-run, oldest first."""
    return [json.loads(line) for line in (SYSTEMD / "calls").read_text().splitlines()]


def supervisor_pid() -> int | None:
    """Return the process id of the running supervisor."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if command[:3] == [SYSTEM_PYTHON.encode(), b"-I", AGENT.encode()] and command[3].startswith(
                b"NOTEBOOK_SSH_"
            ):
                return int(entry.name)
    return None


def sshd_scenario(notebook: RealNotebookHost, stack: Stack) -> None:
    """Test that a login succeeds whatever is wrong with the system's sshd, and that what was made for it is removed."""
    notebook.environment["PATH"] = f"{SYSTEMD}:/usr/sbin:/usr/bin:/bin"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/mnt/key")
    (HOME / "SageMaker/ssh/authorized_keys").write_text(Path("/mnt/key.pub").read_text())
    usual = {path: path.read_text() for path in Path("/etc/ssh").iterdir()}
    before = root_files()
    for fault in (masked, broken_configuration, no_host_keys, port_taken, not_installed):
        with fault(notebook, stack):
            notebook.start(SYSTEM_PYTHON)
            connected = wait_until(
                lambda: next((each for each in stack.reports if each["phase"] == "connected" and not each["problem"]), None),
                f"{fault.__name__}: connected without a problem", notebook,
            )  # fmt: skip
            log_in(connected, fault.__name__)
            assert listeners("sshd") == {"127.0.0.1"} or fault is not_installed, fault.__name__
            if fault is masked:
                check_keys_alone(connected["port"])
                switch_to_network(notebook, stack)
        stack.reply = make_reply("off", sync_after=1)
        wait_until(lambda: "is off" in notebook.instructions.read_text(), "off", notebook)
        wait_until(lambda: not listeners("sshd"), f"{fault.__name__}: no sshd is left", notebook)
        notebook.stop()
        notebook.agents.clear()
        assert {path: path.read_text() for path in Path("/etc/ssh").iterdir() if path.is_file()} == usual
        assert {path: kind for path, kind in root_files().items() if path in before} == before
        stack.reports.clear()
    assert "Traceback" not in Path("/mnt/stderr").read_text()


def log_in(report: dict[str, Any], fault: str) -> None:
    """Log in at the reported address, with the reported host key; `fault` is named if that fails."""
    Path("/mnt/known").write_text(f"[127.0.0.1]:{report['port']} {report['host_keys'][0]}\n")
    Path("/mnt/config").write_text(
        "StrictHostKeyChecking yes\nUserKnownHostsFile /mnt/known\nIdentityFile /mnt/key\nBatchMode yes\n"
    )
    done = subprocess.run(ssh(report["port"], "id -un"), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.stdout == "ec2-user\n", (fault, done.stderr)
    run(
        "sh",
        "-c",
        f"echo put /etc/hostname SageMaker/ | sftp -q -b - -F /mnt/config -P {report['port']} ec2-user@127.0.0.1",
    )


def check_keys_alone(port: int) -> None:
    """Check that the agent's own sshd offers keys alone, and to one user."""
    options = ["-F", "/mnt/config", "-p", str(port), "-v"]
    for user, words in (("ec2-user", ["-o", "PubkeyAuthentication=no"]), ("root", [])):
        refused = subprocess.run(
            ["ssh", *options, *words, f"{user}@127.0.0.1", "true"], capture_output=True, text=True, timeout=LIMIT_S, check=False
        )  # fmt: skip
        assert refused.returncode == 255
        assert "Authentications that can continue: publickey\n" in refused.stderr.replace("\r", "")


def switch_to_network(notebook: RealNotebookHost, stack: Stack) -> None:
    """Check that the bastion's mode makes the agent's own sshd listen for the network, and ngrok's for the loopback."""
    stack.reply = make_reply("bastion", sync_after=1)
    wait_until(lambda: "0.0.0.0" in listeners("sshd"), "it listens for the network", notebook)
    wait_until(lambda: (stack.last_report()["mode"], stack.last_report()["phase"]) == ("bastion", "connected"), "ready")
    stack.reply = make_reply("ngrok", sync_after=1)
    wait_until(lambda: listeners("sshd") == {"127.0.0.1"}, "it listens on the loopback", notebook)
    stack.reply = make_reply("ngrok eice", sync_after=1)
    wait_until(lambda: "0.0.0.0" in listeners("sshd"), "it listens for both", notebook)
    both = {"ngrok": "connected", "eice": "connected"}
    wait_until(lambda: stack.last_report().get("phases") == both, "both paths", notebook)
    stack.reply = make_reply("ngrok", sync_after=1)
    wait_until(lambda: listeners("sshd") == {"127.0.0.1"}, "it listens on the loopback again", notebook)


def listeners(program: str) -> set[str]:
    """Return the IPv4 addresses on which a program listens."""
    inodes = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text().strip() == program:
                inodes |= {os.readlink(file) for file in (entry / "fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        socket.inet_ntoa(bytes.fromhex(row[1].split(":")[0])[::-1])
        for row in rows
        if row[3] == "0A" and f"socket:[{row[9]}]" in inodes
    }


@contextlib.contextmanager
def masked(notebook: RealNotebookHost, stack: Stack) -> Iterator[None]:
    stack.reply = make_reply("ngrok", sync_after=1)
    (SYSTEMD / "masked").touch()
    yield
    (SYSTEMD / "masked").unlink()


@contextlib.contextmanager
def broken_configuration(notebook: RealNotebookHost, stack: Stack) -> Iterator[None]:
    stack.reply = make_reply("ngrok", sync_after=1)
    path = Path("/etc/ssh/sshd_config")
    text = path.read_text()
    path.write_text("NoSuchOption yes\n")
    yield
    path.write_text(text)


@contextlib.contextmanager
def no_host_keys(notebook: RealNotebookHost, stack: Stack) -> Iterator[None]:
    stack.reply = make_reply("ngrok", sync_after=1)
    moved = [Path(shutil.move(path, "/mnt")) for path in Path("/etc/ssh").glob("ssh_host_*")]
    yield
    for path in moved:
        shutil.move(path, "/etc/ssh")


def one_path_is_left(report: dict[str, Any]) -> bool:
    """Return whether the network's path has failed because of its port, and the tunnel's works."""
    code = report.get("problems", {}).get("eice", {}).get("code")
    return (report.get("phases"), code) == ({"eice": "failed", "ngrok": "connected"}, "sshd-port-taken")


@contextlib.contextmanager
def port_taken(notebook: RealNotebookHost, stack: Stack) -> Iterator[None]:
    """Another program listens on port 22: bastion cannot work, ngrok can."""
    stack.reply = make_reply("bastion", sync_after=1)
    with socket.create_server(("0.0.0.0", 22)):
        notebook.start(SYSTEM_PYTHON)
        wait_until(
            lambda: (stack.last_report().get("problem") or {}).get("code") == "sshd-port-taken", "reported", notebook
        )
        assert stack.last_report()["phase"] == "failed"
        stack.reply = make_reply("ngrok", sync_after=1)
        yield
        stack.reply = make_reply("eice ngrok", sync_after=1)
        wait_until(lambda: one_path_is_left(stack.last_report()), "one path is left", notebook)
        log_in(stack.last_report(), "port taken, two paths")
    both = {"eice": "connected", "ngrok": "connected"}
    wait_until(lambda: stack.last_report().get("phases") == both, "the other path comes back", notebook)


@contextlib.contextmanager
def not_installed(notebook: RealNotebookHost, stack: Stack) -> Iterator[None]:
    """sshd is installed from a repository, if the stack allows it."""
    run("mount", "--bind", "/dev/null", "/usr/sbin/sshd")
    manager = Path("/usr/local/bin/dnf")
    manager.write_text('#!/bin/sh\n[ "$*" = "-y -q install openssh-server" ] && umount /usr/sbin/sshd\n')
    manager.chmod(0o755)
    stack.reply = make_reply("bastion", sync_after=1)
    notebook.start(SYSTEM_PYTHON)
    wait_until(lambda: (stack.last_report().get("problem") or {}).get("code") == "sshd-missing", "reported", notebook)
    assert not os.access("/usr/sbin/sshd", os.X_OK), "nothing is installed unless the stack allows it"
    notebook.stop()
    notebook.agents.clear()
    stack.reports.clear()
    stack.reply = make_reply("ngrok", sync_after=1)
    notebook.settings["INSTALL_SSHD"] = "yes"
    yield
    manager.unlink()


SCENARIOS = {
    "users": users_scenario,
    "systemd": systemd_scenario,
    "sshd": sshd_scenario,
    "sessions": agent_sessions.sessions_scenario,
}


def main(scenario: str) -> int:
    """Prepare the machine, run the scenario, and stop everything."""
    prepare()
    sshd = None
    if scenario in ("users", "sessions"):
        if scenario == "sessions":
            agent_sessions.prepare_journal()
        sshd = start_sshd(
            "the notebook's sshd",
            Path("/etc/ssh/sshd_config"),
            Path("/mnt/sshd.log"),
            RealSshd.port,
            within=agent_sessions.WITHIN if scenario == "sessions" else (),
        )
    program = f'#!/bin/sh\nexec {NOTEBOOK_PYTHON} /home/stand_in.py "$@"\n'
    shutil.copy(STAND_IN, "/home/stand_in.py")
    Path("/home/stand_in.py").chmod(0o644)
    role = {"key": ACCESS, "secret": SECRET, "token": SESSION, "expires": time.time() + 3600}
    MetadataService("role", role, ("169.254.169.254", 80)).start()
    with Stack() as stack, Download() as download:
        download.archive = ngrok_archive(program)
        notebook = RealNotebookHost(Path("/"), stack, RealSshd(), scratch=Path("/mnt"))  # type: ignore[arg-type]
        notebook.settings["ROOT"] = ""
        notebook.download.archive = download.archive
        try:
            SCENARIOS[scenario](notebook, stack)
        except AssertionError:
            print(notebook.logs(), file=sys.stderr)
            raise
        finally:
            notebook.stop()
            if sshd:
                processes.dismiss(sshd, patience=20)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
