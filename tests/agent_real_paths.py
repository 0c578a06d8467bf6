"""Run inside new mount, network and process namespaces, as root: a notebook with its real paths and a real ec2-user.

`test_agent_real_paths.py` starts it. It ends with 0 when everything held; else with the assertion that did not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import namespaces
from agent_world import (
    ACCESS,
    PROGRAMS,
    PROJECT,
    SECRET,
    SESSION,
    STAND_IN,
    Download,
    Notebook,
    Stack,
    an_answer,
    lay_identity,
    ngrok_archive,
    until,
)

import processes
from notebook.metadata_service import MetadataService
from notebook_ssh.model.block_program import BlockSettings, render_block
from patience import LIMIT_S
from sshd import start_sshd

UID = 54321
HOME = Path("/home/ec2-user")
PYTHON = HOME / "anaconda3/envs/JupyterSystemEnv/bin/python"
SYSTEM = "/usr/bin/python3"
SYSTEMD = Path("/mnt/systemd")
LESS = "-dac_override,-dac_read_search,-fowner"
POWERLESS = "setpriv", f"--bounding-set={LESS}", f"--inh-caps={LESS}"
"""Runs a command as a root that may read and write what is root's, and no more (capabilities(7))."""
POWERLESS_SYSTEM = "/mnt/python3"
"""The system's Python, so run."""
AGENT = "/opt/notebook-ssh/agent.py"


class RealNotebook(Notebook):
    """A notebook whose root is `/`."""

    def boot(self) -> None:
        """The namespaces are the boot: `prepare` has made the files."""
        self.environs = {
            "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SESSION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip


class RealSshd:
    """sshd as it is on a notebook: port 22, StrictModes."""

    port = 22
    folder = Path("/etc/ssh")


def sh(*command: str | Path, input: str | None = None) -> str:  # noqa: A002  (as subprocess names it)
    """Run as root; the output."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S, input=input).stdout


def as_user(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run as ec2-user, who has no other power."""
    return subprocess.run(
        command, user=UID, group=UID, extra_groups=[], capture_output=True, text=True, cwd=HOME, timeout=LIMIT_S, check=False,
        env={"HOME": str(HOME), "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip


def prepare() -> None:
    """Lay out the machine: nothing of it is seen outside of the namespaces."""
    namespaces.keep_mounts()
    sh("mount", "-t", "proc", "proc", "/proc")  # of this process namespace
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "address", "add", "169.254.169.254/32", "dev", "lo")
    scratch = Path("/mnt")
    sh("mount", "-t", "tmpfs", "none", scratch)
    for name, line in (
        ("passwd", f"ec2-user:x:{UID}:{UID}::{HOME}:/bin/bash\n"),
        ("group", f"ec2-user:x:{UID}:\n"),
        ("shadow", "ec2-user:*:19000::::::\n"),
    ):
        text = Path("/etc", name).read_text()
        (scratch / name).write_text("".join(each for each in text.splitlines(True) if f":{UID}:" not in each) + line)
        (scratch / name).chmod(0o644)
        sh("mount", "--bind", scratch / name, f"/etc/{name}")
    ours = {place: os.open(place, os.O_PATH) for place in map(Path, (PROJECT, sys.prefix, sys.base_prefix))}
    for folder in ("/home", "/opt", "/run", "/var/log", "/usr/local/bin", "/etc/profile.d", "/etc/ssh"):
        sh("mount", "-t", "tmpfs", "-o", "mode=755", "none", folder)
    for place, was in ours.items():
        if not place.exists():  # it lay below one of these
            place.mkdir(parents=True)
            sh("mount", "--rbind", f"/proc/{os.getpid()}/fd/{was}", place)
        os.close(was)
    (HOME / "SageMaker").mkdir(parents=True)
    sh("mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", HOME / "SageMaker")
    _python_with_botocore()
    _conda()
    (HOME / "SageMaker/ssh").mkdir()
    sh("chown", "-R", f"{UID}:{UID}", HOME)
    lay_identity(Path("/"))
    Path("/opt/notebook-ssh").mkdir(mode=0o700)
    shutil.copy(PROGRAMS / "agent.py", "/opt/notebook-ssh")
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/ssh_host_ed25519_key")
    text = "Port 22\nListenAddress 127.0.0.1\nUsePAM no\nStrictModes yes\n"
    sftp = next(path for path in SFTP if os.path.exists(path))
    Path("/etc/ssh/sshd_config").write_text(f"{text}PidFile {SYSTEMD}/sshd.pid\nSubsystem sftp {sftp}\n")
    Path(POWERLESS_SYSTEM).write_text(f'#!/bin/sh\nexec {" ".join(POWERLESS)} {SYSTEM} "$@"\n')
    Path(POWERLESS_SYSTEM).chmod(0o755)
    SYSTEMD.mkdir()
    for name in ("systemctl", "systemd-run"):
        (SYSTEMD / name).write_text(f"#!{SYSTEM}\n" + (PROJECT / "tests/agent_systemd.py").read_text())
        (SYSTEMD / name).chmod(0o755)


SFTP = "/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"


def _conda() -> None:
    """The notebook's conda, which speaks when it is read; and a .bashrc that reads /etc/profile.d, as Amazon Linux's does."""
    conda = HOME / "anaconda3"
    (conda / "etc/profile.d").mkdir(parents=True)
    (conda / "bin").mkdir()
    (conda / "etc/profile.d/conda.sh").write_text('echo conda speaks; conda() { echo "the notebook\'s conda"; }\n')
    (conda / "bin/python").write_text(f'#!/bin/sh\nexec {PYTHON} "$@"\n')
    (conda / "bin/python").chmod(0o755)
    (HOME / ".bashrc").write_text("for file in /etc/profile.d/*.sh; do . $file; done\n")


def _python_with_botocore() -> None:
    """The system's Python has no botocore; the notebook's own environment has, as on a real notebook."""
    import botocore

    sh(SYSTEM, "-m", "venv", "--without-pip", PYTHON.parent.parent)
    target = next(PYTHON.parent.parent.glob("lib/python3*/site-packages"))
    source = Path(botocore.__file__).parent.parent
    needless = shutil.ignore_patterns("__pycache__", "ec2", "[!_ps]*-*", "data")
    for name in ("botocore", "jmespath", "dateutil", "urllib3", "six.py", "yaml"):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=needless)
        else:
            shutil.copy(source / name, target)
    (target / "botocore/data").mkdir(exist_ok=True)
    for name in ("endpoints.json", "partitions.json", "_retry.json", "sdk-default-configuration.json"):
        shutil.copy(source / "botocore/data" / name, target / "botocore/data")


def owners() -> dict[str, int]:
    """The owner of each of our processes, by its last words."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            uid = entry.stat().st_uid
        except OSError:
            continue
        if "/opt/notebook-ssh/" in line or "start --all" in line:
            found["keeper" if "NOTEBOOK_SSH_API" in line else "ngrok" if "--all" in line else line.split()[-1]] = uid
    return found


def tell(notebook: RealNotebook, stack: Stack) -> None:
    """Root's part and ec2-user's, from a full disk to a shell; root has no power to look below the home directory."""
    for link, target in (
        (HOME / "SageMaker/SSH_INSTRUCTIONS", "/etc/passwd"),
        (HOME / ".vscode-server", "/etc"),
        (HOME / ".ssh", "/etc/ssh"),
    ):
        link.symlink_to(target)
        os.lchown(link, UID, UID)
    HOME.chmod(0o772)  # which sshd refuses
    before = roots_files()
    filler = HOME / "SageMaker/large.bin"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))

    stack.answers = an_answer("ngrok", sync_after=1)
    notebook.start(POWERLESS_SYSTEM)
    told = until(lambda: stack.last().get("problem"), "a full disk is told", notebook)
    assert told["code"] in ("files", "ngrok-download"), told
    filler.unlink()
    hard_links = link_roots_files()
    assert as_user("start-ssh-ngrok").returncode == 0, notebook.told()
    port = notebook.connected()["port"]

    who = owners()
    assert who["keeper"] == 0, who
    assert stat.S_IMODE(HOME.stat().st_mode) == 0o750, "what others may write, sshd does not read"
    assert {who["work"], who["ngrok"]} == {UID}, who
    roots = [path for path in HOME.rglob("*") if "anaconda3" not in path.parts and path.lstat().st_uid == 0]
    assert roots == [HOME / "SageMaker/precious"], f"root wrote below the home directory: {roots}"
    tops = [
        Path(top) for top in ("/opt/notebook-ssh", "/run/notebook-ssh", "/usr/local/bin", "/etc/profile.d", "/var/log")
    ]
    mine = [place for top in tops for place in (top, *top.rglob("*")) if place.lstat().st_uid == 0]
    assert AGENT in map(str, mine)
    assert not [place for place in mine if place.stat().st_mode & 0o022], "nobody but root writes what is root's"
    assert Path("/run/notebook-ssh/worker/answer.json").stat().st_mode & 0o077 == 0
    instructions = (HOME / "SageMaker/SSH_INSTRUCTIONS").lstat()
    assert (instructions.st_mode, instructions.st_uid) == (0o100644, UID), "Jupyter, which is ec2-user, reads it"

    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/mnt/key")
    (HOME / "SageMaker/ssh/authorized_keys").write_text(Path("/mnt/key.pub").read_text())
    copied = as_user("copy-ssh-keys")
    assert (copied.returncode, copied.stdout) == (0, "Copying 1 SSH keys...\n"), copied
    Path("/mnt/known").write_text(f"[127.0.0.1]:{port} {stack.last()['host_keys'][0]}\n")
    Path("/mnt/config").write_text(
        "StrictHostKeyChecking yes\nUserKnownHostsFile /mnt/known\nIdentityFile /mnt/key\nBatchMode yes\n"
    )
    tell_of_shells(notebook, port)
    tell_of_use(stack, port)
    race(notebook, stack)
    assert all(path.read_text() == text for path, text in hard_links.items()), "what was linked to was written"
    assert {path: kind for path, kind in roots_files().items() if path in before} == before, "root's files changed"
    assert Path("/mnt/stderr").read_text() == "", "no program of ours fell, or was refused anything"


def ssh(port: int, *words: str) -> list[str]:
    """The command line to log in; the host key is known, and checked from the first time on."""
    return ["ssh", "-F", "/mnt/config", "-p", str(port), "ec2-user@127.0.0.1", *words]


def tell_of_shells(notebook: RealNotebook, port: int) -> None:
    """A person at a terminal has the notebook's conda, credentials and region; programs hear nothing."""
    assert sh(*ssh(port, "id -un")) == "ec2-user\n", "the first login, the host key checked"
    shell = 'python -c "import botocore.session as b; s = b.Session(); print(s.get_credentials().access_key, '
    shell += "s.get_config_variable('region'))\"; conda which; exit\n"
    at_terminal = sh(*ssh(port, "-tt"), input=shell)
    assert f"{ACCESS} eu-west-1" in at_terminal, at_terminal
    assert "the notebook's conda" in at_terminal, at_terminal
    assert "conda speaks" in at_terminal

    assert sh(*ssh(port, "true")) == ""
    assert sh(*ssh(port, "bash"), input="echo ready\n") == "ready\n", "as an editor starts its server"
    sent, back = Path("/mnt/sent.ipynb"), HOME / "SageMaker/sent.ipynb"
    sent.write_text("a notebook\n")
    line = next(line for line in notebook.instructions.read_text().splitlines() if "scp" in line)
    copy = line.partition("scp ")[2].replace("FILE", str(sent)).split()
    for command in (
        ["scp", "-q", "-F", "/mnt/config", *copy],
        ["scp", "-q", "-O", "-F", "/mnt/config", *copy],
        ["rsync", "-e", f"ssh -F /mnt/config -p {port}", str(sent), "ec2-user@127.0.0.1:SageMaker/"],
        ["sftp", "-q", "-b", "/mnt/batch", "-F", "/mnt/config", "-P", str(port), "ec2-user@127.0.0.1"],
    ):
        Path("/mnt/batch").write_text(f"@put {sent} SageMaker/\n")
        assert sh(*command) == "", command
        assert back.read_text() == sent.read_text(), command
        back.unlink()


def tell_of_use(stack: Stack, port: int) -> None:
    """An open session counts, with a terminal and without one."""
    assert as_user("ssh-status", "--in-use").returncode == 1
    for words in ((), ("-tt",)):
        began = int(time.time())
        with subprocess.Popen(ssh(port, *words, "read x"), stdin=subprocess.PIPE) as session:
            until(lambda: as_user("ssh-status", "--in-use").returncode == 0, "an open session counts as use")
            told = until(lambda: stack.last()["sessions"]["open"] == 1 and stack.last()["sessions"], "the stack hears")
            assert began <= told["active_at"] <= time.time(), told
            session.terminate()
        until(lambda: as_user("ssh-status", "--in-use").returncode == 1, "and no longer when it is closed")
        until(lambda: stack.last()["sessions"] == {"open": 0, "active_at": None}, "which the stack hears, too")


def link_roots_files() -> dict[Path, str]:
    """Put hard links to root's files where the agent writes; those files and what they hold."""
    (HOME / ".ssh").unlink()
    links = {
        HOME.parent / "precious": HOME / ".ssh/authorized_keys",
        HOME / "SageMaker/precious": HOME / "SageMaker/.ngrok/config.yml",
    }
    for precious, place in links.items():
        precious.write_text("# root's\n")
        place.parent.mkdir(exist_ok=True)
        os.chown(place.parent, UID, UID)
        place.unlink(missing_ok=True)
        place.hardlink_to(precious)
    return dict.fromkeys(links, "# root's\n")


SWAP = """
import contextlib, os, sys
pairs = [pair.split("=") for pair in sys.argv[1:]]
while True:
    for place, target in pairs:
        with contextlib.suppress(OSError):
            os.rename(place, place + ".was")
        with contextlib.suppress(OSError):
            os.symlink(target, place)
        with contextlib.suppress(OSError):
            os.unlink(place)
        with contextlib.suppress(OSError):
            os.rename(place + ".was", place)
"""
"""What a person without root could run all day: what the agent uses becomes a link to what is root's, and back."""


def race(notebook: RealNotebook, stack: Stack) -> None:
    """Let ec2-user swap folders and files under the agent's hands while it works, and while root runs the commands."""
    pairs = {
        HOME / ".ssh": "/etc/ssh",
        HOME / "SageMaker/SSH_INSTRUCTIONS": "/etc/passwd",
        HOME / "SageMaker/SSH_INSTRUCTIONS~": "/etc/passwd",
        HOME / "SageMaker/ssh": "/etc/ssh",
        HOME / "SageMaker/.ngrok": "/opt/notebook-ssh",
        HOME / "SageMaker/.notebook-ssh": "/opt/notebook-ssh",
    }
    words = [f"{place}={target}" for place, target in pairs.items()]
    count = len(stack.reports)
    with subprocess.Popen([SYSTEM, "-c", SWAP, *words], user=UID, group=UID, extra_groups=[]) as swapping:
        for command in ("copy-ssh-keys", "start-ssh-ngrok", "copy-ssh-keys", "ssh-status"):
            subprocess.run([*POWERLESS, command], capture_output=True, timeout=LIMIT_S, check=False)
        until(lambda: len(stack.reports) > count + 2, "the agent goes on", notebook)
        swapping.kill()
    for place in pairs:
        if place.is_symlink():
            place.unlink()
        if (was := place.with_name(place.name + ".was")).exists():
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
            was.rename(place)
    until(lambda: as_user("copy-ssh-keys").stdout == "Copying 1 SSH keys...\n", "as if nothing had been", notebook)
    until(lambda: as_user("start-ssh-ngrok").returncode == 0, "the tunnel too", notebook)
    assert (HOME / ".ssh/authorized_keys").stat().st_uid == UID
    assert sh(*POWERLESS, "copy-ssh-keys").startswith("Copying 1"), "with sudo it works too"


def roots_files() -> dict[Path, tuple[int, int, bytes]]:
    """(mode, owner, content's sum) of every file of root's in the places that a person's links lead to."""
    found = {}
    for top in ("/etc", "/opt", "/usr/local/bin"):
        for path in Path(top).rglob("*"):
            kind = path.lstat()
            if stat.S_ISREG(kind.st_mode):
                found[path] = kind.st_mode, kind.st_uid, hashlib.sha256(path.read_bytes()).digest()
    return found


def tell_of_systemd(notebook: RealNotebook, stack: Stack) -> None:
    """The block itself, where systemd runs: a unit, a second start, falls, and an sshd that is ours to stop or not."""
    Path("/run/systemd/system").mkdir(parents=True)
    proxies = SYSTEMD / "environment"
    proxies.write_text("NO_PROXY=inside.example.com\n" + "".join(f"{k}={v}\n" for k, v in notebook.environs.items()))
    sh("touch", "/etc/environment")
    sh("mount", "--bind", proxies, "/etc/environment")
    stack.answers = an_answer("bastion", sync_after=1)

    stack.status = 500
    on_start(notebook)
    until(lambda: "(500, " in notebook.told(), "the failure is logged", notebook)
    assert notebook.log.read_text() == (SYSTEMD / "journal").read_text(), "in the journal as in the log"
    stack.status = 200
    notebook.connected()
    stop, run, *_ = calls()
    assert stop == ["systemctl", "stop", "notebook-ssh"]
    options = run[: run.index(SYSTEM)]
    assert options[:3] == ["systemd-run", "--unit=notebook-ssh", "--collect"]
    assert {"-pRestart=always", "-pRestartSec=9", "-pRestartPreventExitStatus=64"} < set(options)
    assert run[len(options) :][:3] == [SYSTEM, "-I", AGENT]
    assert f"NOTEBOOK_SSH_TAG_KEY={TAG_KEY}" in run, "a blank and a quotation mark arrive as they are"
    first = until(keeper, "the keeper runs", notebook)
    environment = Path(f"/proc/{first}/environ").read_bytes().split(b"\0")
    assert b"NO_PROXY=inside.example.com" in environment, "proxies of the machine reach the unit"
    assert "sshd" in " ".join(calls()[-1]), "sshd was not running"
    assert calls()[-1] == ["systemctl", "--quiet", "start", "sshd"]

    os.kill(first, signal.SIGKILL)
    second = until(lambda: keeper() not in (None, first) and keeper(), "systemd starts it again", notebook)
    count = len(stack.reports)
    until(lambda: len(stack.reports) > count, "and it reports", notebook)

    stack.answers = an_answer("off", sync_after=1)
    until(lambda: calls()[-1] == ["systemctl", "--quiet", "stop", "sshd"], "our sshd is stopped", notebook)
    until(lambda: not Path("/run/notebook-ssh/sshd").exists(), "and forgotten", notebook)

    (SYSTEMD / "enabled").touch()
    stack.answers = an_answer("bastion", sync_after=1)
    on_start(notebook)
    third = until(lambda: keeper() not in (None, first, second) and keeper(), "a second start takes over", notebook)
    until(lambda: calls()[-1] == ["systemctl", "--quiet", "start", "sshd"], "an enabled one is started", notebook)
    units = [call for call in calls() if "sshd" not in call]
    assert units[-2][1:] == ["stop", "notebook-ssh"]
    assert units[-1][0] == "systemd-run"
    assert not Path("/opt/notebook-ssh/loop").exists(), "no loop beside the unit"
    assert third == keeper()
    until(lambda: stack.last()["phase"] == "connected", "on again", notebook)
    stack.answers = an_answer("off", sync_after=1)
    until(lambda: stack.last()["mode"] == "off", "off once more", notebook)
    count = len(stack.reports)
    until(lambda: len(stack.reports) > count + 1, "off for good", notebook)
    assert calls()[-1] == ["systemctl", "--quiet", "start", "sshd"], "but not stopped: it was not ours"
    sh(SYSTEMD / "systemctl", "stop", "notebook-ssh")
    sh(SYSTEMD / "systemctl", "stop", "sshd")


TAG_KEY = "team's ssh"


def on_start(notebook: RealNotebook) -> None:
    """Run the block as a notebook does at its start; it ends with 0."""
    folder = PROGRAMS
    frame, boot, agent = ((folder / name).read_text() for name in ("block.sh", "boot.py", "agent.py"))
    worker = hashlib.sha256((folder / "worker.py").read_bytes()).hexdigest()
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
    """What systemd was asked, oldest first."""
    return [json.loads(line) for line in (SYSTEMD / "calls").read_text().splitlines()]


def keeper() -> int | None:
    """The id of the keeper's process that runs now."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[:3] == [SYSTEM.encode(), b"-I", AGENT.encode()] and words[3].startswith(b"NOTEBOOK_SSH_"):
                return int(entry.name)
    return None


STORIES = {"users": tell, "systemd": tell_of_systemd}


def main(story: str) -> int:
    """Prepare, tell the story, end everything."""
    prepare()
    sshd = None
    if story == "users":
        sshd = start_sshd("the notebook's sshd", Path("/etc/ssh/sshd_config"), Path("/mnt/sshd.log"), RealSshd.port)
    program = f'#!/bin/sh\nexec {PYTHON} /home/stand_in.py "$@"\n'
    shutil.copy(STAND_IN, "/home/stand_in.py")
    Path("/home/stand_in.py").chmod(0o644)
    role = {"key": ACCESS, "secret": SECRET, "token": SESSION, "expires": time.time() + 3600}
    MetadataService("role", role, ("169.254.169.254", 80)).start()
    with Stack() as stack, Download() as download:
        download.content = ngrok_archive(program)
        notebook = RealNotebook(Path("/"), stack, RealSshd(), aside=Path("/mnt"))  # type: ignore[arg-type]
        notebook.settings["ROOT"] = ""
        notebook.download.content = download.content
        try:
            STORIES[story](notebook, stack)
        except AssertionError:
            print(notebook.told(), file=sys.stderr)
            raise
        finally:
            notebook.stop()
            if sshd:
                processes.dismiss(sshd, patience=20)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
