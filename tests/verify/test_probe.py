"""The on-start script of a run's notebooks: what it prints, leaves behind, and how it ends."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from notebook_ssh_verify import probe
from support.needs import program

import sshd
from notebook_ssh.model.block_program import BUDGET
from notebook_ssh.model.managed_block import LIMIT
from processes import wait_until

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJkq0Kyq5n verify"
PREFIX = "nbssh-verify-ab12cd34"

WITHOUT_TOOLS = """\
nbssh-verify sshd-runs agent=no
nbssh-verify sshd-runs installed=no
nbssh-verify sshd-runs banner=
nbssh-verify systemd-on-start systemctl=no
nbssh-verify selinux-port mode=none
nbssh-verify imds-role listed=
nbssh-verify end done=yes
"""


def run(script: bytes, root: Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    """Run the script as a notebook does whose disk is `root`, and on which no sshd answers."""
    (root / "OnStart").write_bytes(script)
    return subprocess.run(
        ["/bin/bash", str(root / "OnStart")],
        env={"NOTEBOOK_SSH_ROOT": str(root), "NOTEBOOK_SSH_PORT": "1", "PATH": path},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path


def command_of(pid: int) -> bytes:
    """The words of a process; none once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def install(root: Path, name: str, text: str) -> None:
    """A program of the notebook."""
    path = root / "usr/bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.posix
def test_without_tools_every_line_is_there_and_the_notebook_starts(root: Path) -> None:
    ended = run(probe.script(PREFIX, KEY), root, path=str(root / "empty"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, WITHOUT_TOOLS, "")


@pytest.mark.posix
def test_the_public_key_is_admitted_once_and_nothing_else_stays(root: Path) -> None:
    (root / "etc/ssh").mkdir(parents=True)
    for _ in range(2):
        assert run(probe.script(PREFIX, KEY), root).returncode == 0
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {"OnStart", "home/ec2-user/SageMaker/ssh/authorized_keys"}
    assert (root / "home/ec2-user/SageMaker/ssh/authorized_keys").read_text() == f"{KEY}\n"


@pytest.mark.posix
def test_a_unit_is_started_and_removed(root: Path) -> None:
    (root / "etc/systemd/system").mkdir(parents=True)
    calls = root / "calls"
    install(root, "systemctl", f'echo "$*" >>"{calls}"; [ "$1" != is-active ] || echo active')
    values = probe.parse(run(probe.script(PREFIX, KEY), root).stdout.splitlines()).of("systemd-on-start")
    assert values == {"systemctl": "yes", "status": "0", "active": "active"}
    assert calls.read_text().splitlines()[-5:] == [
        "daemon-reload",
        f"start {PREFIX}",
        f"is-active {PREFIX}",
        f"stop {PREFIX}",
        "daemon-reload",
    ]
    assert not list((root / "etc/systemd/system").iterdir())


SYSTEMD_RUN = """\
for WORD; do
    case $WORD in
    --unit=*) UNIT=${WORD#--unit=} ;;
    -pStandardError=file:*) LOG=${WORD#-pStandardError=file:} ;;
    -*) ;;
    *) break ;;
    esac
    shift
done
"$@" </dev/null >/dev/null 2>"$LOG" &
echo $! >"@root@/$UNIT"
"""


@pytest.mark.posix
def test_where_systemd_runs_the_sshd_on_another_port_is_a_unit_and_ends(root: Path) -> None:
    (root / "etc/ssh").mkdir(parents=True)
    (root / "etc/systemd/system").mkdir(parents=True)
    install(root, "sshd", 'exec {} "$@"'.format(program("sshd")))
    install(root, "systemd-run", SYSTEMD_RUN.replace("@root@", str(root)))
    install(root, "systemctl", f'[ "$1" != stop ] || kill "$(cat "{root}/$2")"')
    sshd.prepare("the test's sshd")
    values = probe.parse(run(probe.script(PREFIX, KEY), root).stdout.splitlines()).of("selinux-port")
    assert values == {"mode": "none", "valid": "0", "listens": "yes"}
    pid = int((root / f"{PREFIX}-sshd").read_text())
    wait_until("the unit has ended", lambda: not command_of(pid))
    assert not list((root / "etc/ssh").iterdir())


@pytest.mark.posix
def test_a_program_that_hangs_costs_no_more_than_its_time(root: Path) -> None:
    install(root, "getenforce", "exec sleep 300")
    values = probe.parse(run(probe.script(PREFIX, KEY), root).stdout.splitlines()).of("selinux-port")
    assert values == {"mode": "none"}


@pytest.mark.posix
def test_a_value_is_one_line_and_short(root: Path) -> None:
    install(root, "getenforce", "printf 'one\\ntwo'; printf '%0300d' 0")
    printed = run(probe.script(PREFIX, KEY), root).stdout
    assert f"nbssh-verify selinux-port mode=one two{'0' * 193}\n" in printed


@pytest.mark.posix
def test_a_block_in_the_script_is_seen(root: Path) -> None:
    script = probe.script(PREFIX, KEY).replace(b"\n", b"\n# >>> notebook-ssh stack=team version=1.0.0 >>>\n", 1)
    assert "nbssh-verify sshd-runs agent=yes\n" in run(script, root).stdout


@pytest.mark.posix
def test_without_a_public_key_none_is_admitted(root: Path) -> None:
    assert run(probe.script(PREFIX, ""), root).returncode == 0
    assert not (root / "home").exists()


def test_the_first_start_counts() -> None:
    lines = ["x nbssh-verify sshd-runs agent=no", "nbssh-verify sshd-runs agent=yes\r", "nothing", "nbssh-verify"]
    assert probe.parse(lines).of("sshd-runs") == {"agent": "no"}
    assert probe.parse([]).of("sshd-runs") == {}


def test_the_script_leaves_a_blocks_room() -> None:
    script = probe.script(PREFIX, KEY)
    assert script.startswith(b"#!/bin/bash\n")
    assert b"notebook-ssh" not in script, "it would count as a script with a block"
    assert len(script) <= probe.SCRIPT_LIMIT < LIMIT - BUDGET


@pytest.mark.parametrize("prefix", ["", "a b", "$(id)", "a'b"])
def test_no_other_prefix_is_put_into_the_script(prefix: str) -> None:
    with pytest.raises(ValueError, match="is no prefix"):
        probe.script(prefix, KEY)


@pytest.mark.parametrize("key", ["ssh-ed25519", "ssh-ed25519 AAAA'", "a b\nc d", 'command="id" ssh-ed25519 AAAA'])
def test_nothing_but_a_public_key_is_put_into_the_script(key: str) -> None:
    with pytest.raises(ValueError, match="public key"):
        probe.script(PREFIX, key)
