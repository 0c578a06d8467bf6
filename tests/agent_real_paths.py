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
import subprocess
import sys
from pathlib import Path

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
    ngrok_archive,
    until,
)

from notebook_ssh.rules.block import BlockSettings, render_block

UID = 54321
HOME = Path("/home/ec2-user")
PYTHON = HOME / "anaconda3/envs/JupyterSystemEnv/bin/python"
SYSTEM = "/usr/bin/python3"
SYSTEMD = Path("/mnt/systemd")
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


def sh(*command: str | Path) -> str:
    """Run as root; the output."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def as_user(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run as ec2-user, who has no other power."""
    return subprocess.run(
        command, user=UID, group=UID, extra_groups=[], capture_output=True, text=True, cwd=HOME, timeout=60, check=False,
        env={"HOME": str(HOME), "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip


def prepare() -> None:
    """Lay out the machine: nothing of it is seen outside of the namespaces."""
    sh("ip", "link", "set", "lo", "up")
    sh("mount", "--make-rprivate", "/")
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
    for folder in ("/home", "/opt", "/run", "/var/log", "/usr/local/bin", "/etc/profile.d", "/etc/ssh"):
        sh("mount", "-t", "tmpfs", "-o", "mode=755", "none", folder)
    (HOME / "SageMaker").mkdir(parents=True)
    sh("mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", HOME / "SageMaker")
    _python_with_botocore()
    (HOME / "SageMaker/ssh").mkdir()
    sh("chown", "-R", f"{UID}:{UID}", HOME)
    Path("/opt/ml/metadata").mkdir(parents=True)
    identity = '{"ResourceArn": "arn:aws:sagemaker:eu-west-1:111122223333:notebook-instance/research-1", "ResourceName": "Research-1"}'
    Path("/opt/ml/metadata/resource-metadata.json").write_text(identity)
    Path("/opt/notebook-ssh").mkdir(mode=0o700)
    shutil.copy(PROGRAMS / "agent.py", "/opt/notebook-ssh")
    Path("/run/sshd").mkdir()
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/ssh_host_ed25519_key")
    text = "Port 22\nListenAddress 127.0.0.1\nUsePAM no\nStrictModes yes\n"
    Path("/etc/ssh/sshd_config").write_text(f"{text}PidFile {SYSTEMD}/sshd.pid\n")
    SYSTEMD.mkdir()
    for name in ("systemctl", "systemd-run"):
        (SYSTEMD / name).write_text(f"#!{SYSTEM}\n" + (PROJECT / "tests/agent_systemd.py").read_text())
        (SYSTEMD / name).chmod(0o755)


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
    """The story."""
    traps = {
        HOME / "SageMaker/SSH_INSTRUCTIONS": "/etc/passwd",
        HOME / ".vscode-server": "/etc",
        HOME / ".ssh": "/etc/ssh",
    }
    for link, target in traps.items():
        link.symlink_to(target)
        os.lchown(link, UID, UID)
    before = {path: Path(path).read_bytes() for path in ("/etc/passwd", "/etc/ssh/sshd_config")}
    filler = HOME / "SageMaker/large.bin"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))

    stack.answers = an_answer("ngrok", sync_after=1)
    notebook.start(SYSTEM)
    told = until(lambda: stack.last().get("problem"), "a full disk is told", notebook)
    assert told["code"] in ("files", "ngrok-download"), told
    filler.unlink()
    (HOME / ".ssh").unlink()
    assert as_user("start-ssh-ngrok").returncode == 0, notebook.told()
    port = notebook.connected()["port"]

    who = owners()
    assert who["keeper"] == 0, who
    assert {who["work"], who["ngrok"]} == {UID}, who
    assert all(Path(path).read_bytes() == content for path, content in before.items()), "root followed a link"
    roots = [path for path in HOME.rglob("*") if "anaconda3" not in path.parts and path.lstat().st_uid == 0]
    assert roots == [], f"root wrote below the home directory: {roots}"
    assert Path("/run/notebook-ssh/worker/answer.json").stat().st_mode & 0o077 == 0

    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/mnt/key")
    (HOME / "SageMaker/ssh/authorized_keys").write_text(Path("/mnt/key.pub").read_text())
    copied = as_user("copy-ssh-keys")
    assert (copied.returncode, copied.stdout) == (0, "Copying 1 SSH keys...\n"), copied
    Path("/mnt/known").write_text(f"[127.0.0.1]:{port} {stack.last()['host_keys'][0]}\n")
    ssh = ["ssh", "-p", str(port), "-i", "/mnt/key", "-oStrictHostKeyChecking=yes", "-oUserKnownHostsFile=/mnt/known"]
    assert sh(*ssh, "ec2-user@127.0.0.1", "id -un") == "ec2-user\n", "the first login, the host key checked"
    assert sh(*ssh, "ec2-user@127.0.0.1", "true") == ""
    interactive = sh(*ssh, "-tt", "ec2-user@127.0.0.1", "bash -lic 'echo region $AWS_DEFAULT_REGION'")
    assert "region eu-west-1" in interactive

    assert as_user("ssh-status", "--in-use").returncode == 1
    with subprocess.Popen([*ssh, "ec2-user@127.0.0.1", "read x"], stdin=subprocess.PIPE) as session:
        until(lambda: as_user("ssh-status", "--in-use").returncode == 0, "an open session counts as use")
        until(lambda: stack.last()["sessions"]["open"] == 1, "the stack hears of it")
        session.terminate()
    until(lambda: as_user("ssh-status", "--in-use").returncode == 1, "and no longer when it is closed")
    assert sh("copy-ssh-keys").startswith("Copying 1"), "with sudo it works too"
    assert (HOME / ".ssh/authorized_keys").stat().st_uid == UID


def tell_of_systemd(notebook: RealNotebook, stack: Stack) -> None:
    """The block itself, where systemd runs: a unit, a second start, falls, and an sshd that is ours to stop or not."""
    Path("/run/systemd/system").mkdir(parents=True)
    proxies = SYSTEMD / "environment"
    proxies.write_text("NO_PROXY=inside.example.com\n" + "".join(f"{k}={v}\n" for k, v in notebook.environs.items()))
    sh("touch", "/etc/environment")
    sh("mount", "--bind", proxies, "/etc/environment")
    stack.answers = an_answer("bastion", sync_after=1)

    on_start(notebook)
    notebook.connected()
    stop, run, *_ = calls()
    assert stop == ["systemctl", "stop", "notebook-ssh"]
    options = run[: run.index(SYSTEM)]
    assert options[:3] == ["systemd-run", "--unit=notebook-ssh", "--collect"]
    assert {"-pRestart=always", "-pRestartSec=9", "-pRestartPreventExitStatus=64"} < set(options)
    assert run[len(options) :][:3] == [SYSTEM, "-I", AGENT]
    assert f"NOTEBOOK_SSH_TAG_KEY={TAG_KEY}" in run, "a blank and a quotation mark arrive as they are"
    first = keeper()
    environment = Path(f"/proc/{first}/environ").read_bytes().split(b"\0")
    assert b"NO_PROXY=inside.example.com" in environment, "proxies of the machine reach the unit"
    assert "sshd" in " ".join(calls()[-1]), "sshd was not running"
    assert calls()[-1] == ["systemctl", "--quiet", "start", "sshd"]

    os.kill(first, signal.SIGKILL)
    second = until(lambda: keeper() not in (None, first) and keeper(), "systemd starts it again", notebook)
    count = len(stack.reports)
    until(lambda: len(stack.reports) > count, "and it reports", notebook)

    on_start(notebook)
    third = until(lambda: keeper() not in (None, first, second) and keeper(), "a second start takes over", notebook)
    assert calls()[-2][1:] == ["stop", "notebook-ssh"]
    assert calls()[-1][0] == "systemd-run"
    assert not Path("/opt/notebook-ssh/loop").exists(), "no loop beside the unit"
    assert third == keeper()

    stack.answers = an_answer("off", sync_after=1)
    until(lambda: calls()[-1] == ["systemctl", "--quiet", "stop", "sshd"], "our sshd is stopped", notebook)
    until(lambda: not Path("/run/notebook-ssh/sshd").exists(), "and forgotten", notebook)

    (SYSTEMD / "enabled").touch()
    stack.answers = an_answer("bastion", sync_after=1)
    until(lambda: calls()[-1] == ["systemctl", "--quiet", "start", "sshd"], "an enabled one is started", notebook)
    stack.answers = an_answer("off", sync_after=1)
    until(lambda: "is off" in notebook.instructions.read_text(), "off once more", notebook)
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
    body = render_block(frame, boot, agent, settings).body.replace(b"team ssh'", b"team'\\''s ssh'")
    script = Path("/mnt/on-start")
    script.write_bytes(b"#!/bin/sh\n" + body)
    subprocess.run(
        ["sh", script],
        check=True,
        timeout=60,
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
    if story == "users":
        sh("/usr/sbin/sshd", "-f", "/etc/ssh/sshd_config")
    program = f'#!/bin/sh\nexec {PYTHON} /home/stand_in.py "$@"\n'
    shutil.copy(STAND_IN, "/home/stand_in.py")
    Path("/home/stand_in.py").chmod(0o644)
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
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
