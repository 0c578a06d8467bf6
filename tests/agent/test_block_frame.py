"""The block run for real: by many shells, in front of owners' scripts, where everything can go wrong.

The agent here is a stand-in that writes down what it was given, waits to be let go, and ends as it is told.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import namespaces
import needs
import pytest
from agent_world import until

from notebook_ssh.model.block_program import BlockSettings, minify, render_block
from notebook_ssh.model.managed_block import Block, Inserted, splice
from patience import LIMIT_S

LAYER = Path(__file__).resolve().parents[2] / "layers" / "notebook_agent"
FRAME, BOOT = (LAYER / "block.sh").read_text(), (LAYER / "boot.py").read_text()
SETTINGS = BlockSettings("team-ssh", "1.0.0", "eu-west-1", "https://a1.execute-api.eu-west-1.amazonaws.com/v1", "ssh")

STAND_IN = """
import json, os, sys
here = os.environ["NOTEBOOK_SSH_ROOT"]
status = os.umask(0)
os.umask(status)
told = {
    "words": sys.argv[1:], "cwd": os.getcwd(), "umask": status, "pid": os.getpid(), "loop": os.getppid(),
    "session": os.getsid(0), "isolated": sys.flags.isolated, "home": os.environ.get("HOME"),
    "fds": [os.readlink("/proc/self/fd/" + f) for f in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + f)],
    "names": sorted(os.environ),
}
with open(here + "/seen", "a") as file:
    file.write(json.dumps(told) + chr(10))
with open(here + "/leave") as pipe:
    sys.exit(int(pipe.read() or 1))
"""

SHELLS = [
    "/bin/sh", "/bin/dash", "/bin/bash", "/bin/bash --posix", "/bin/bash -eu", "/usr/bin/env -S bash -euxo pipefail -C",
    "/bin/dash -euxC", "/usr/bin/env bash", "/bin/bash -m", "/bin/bash -v", "/bin/busybox sh", "/bin/ksh93 -eu",
    "/bin/mksh -eu", "/bin/zsh -eu",
]  # fmt: skip
"""Each is tried on every machine: `make test` installs those that are missing."""


def begun(shell: str, text: bytes = b"") -> bytes:
    """A script for `shell`."""
    needs.program(next(name for name in re.findall(r"\w+", shell) if name not in ("bin", "usr", "env", "S")))
    return f"#!{shell}\n".encode() + text


@dataclass
class Machine:
    """A folder that plays `/`, a stand-in agent, and what ran in it. `home` may hold blanks.

    python: what the block takes for the system's Python. agent: the program in the block.
    """

    home: Path
    python: str = sys.executable
    agent: str = STAND_IN
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = self.home / "the root"
        self.root.mkdir(parents=True)
        os.mkfifo(self.root / "leave")
        # Held open for both, so that neither the agent's opening nor ours waits.
        self.leave = os.open(self.root / "leave", os.O_RDWR | os.O_NONBLOCK)

    def block(self) -> Block:
        return render_block(FRAME, BOOT, self.agent, SETTINGS)

    def spliced(self, script: bytes) -> bytes:
        outcome = splice(script, self.block())
        assert isinstance(outcome, Inserted)
        return outcome.script

    def environment(self) -> dict[str, str]:
        """What SageMaker gives, and no more; `HOME` is not among it."""
        told = {"PATH": f"{self.home}/bin:/usr/bin:/bin", "NOTEBOOK_SSH_ROOT": str(self.root)}
        return told | {"NOTEBOOK_SSH_PYTHON": self.python} | self.extra

    def run(self, script: bytes, **changes: Any) -> subprocess.CompletedProcess[bytes]:
        """Run `script` as the kernel would, by its first line; it ends, and lets go of its output, within the limit."""
        path = self.home / "OnStart"
        path.write_bytes(script)
        path.chmod(0o700)
        usual: dict[str, Any] = {"env": self.environment(), "cwd": "/tmp", "stdin": subprocess.DEVNULL}
        with_output = {"capture_output": True, "timeout": LIMIT_S, "check": False}
        return subprocess.run([path, "first", "second word"], **(usual | with_output | changes))

    def seen(self, count: int = 1) -> list[dict[str, Any]]:
        """What the stand-in wrote down, once it has done so `count` times."""
        path = self.root / "seen"
        until(
            lambda: path.exists() and path.read_text().count("\n") >= count, f"the agent is started {count} times", self
        )
        return [json.loads(line) for line in path.read_text().splitlines()]

    def told(self) -> str:
        """The log; nothing when there is none."""
        path = self.root / "var/log/notebook-ssh.log"
        return path.read_text() if path.exists() else ""

    def logged(self, words: str) -> str:
        """The log, once `words` stand in it."""
        until(lambda: words in self.told(), f"the log says {words!r}", self)
        return self.told()

    def close(self) -> None:
        """End what was started here: the processes whose environment names this very folder."""
        marker = f"NOTEBOOK_SSH_ROOT={self.root}\0".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marker in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
        os.close(self.leave)


def has_ended(process: int) -> bool:
    """Whether `process` is gone, or waits for nothing but its parent's word."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose stand-in agents end with the test."""
    machine = Machine(tmp_path)
    (tmp_path / "bin").mkdir()
    yield machine
    machine.close()


def stub(machine: Machine, name: str, text: str) -> None:
    """A program `name` that comes first in the script's PATH."""
    path = machine.home / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


# --- nothing of the owner's changes -------------------------------------------------------------------------------

LOOK = rb"""printf 'status %s, last argument %s, background %s\n' "$?" "${_-}" "${!-none}"
echo "$0: $# $*"
echo "options $-"
pwd
umask
ls -l /proc/$$/fd
trap
export -p
alias
jobs
set -o
set | grep -Ev '^(_|PPID|LINENO|RANDOM|SRANDOM|SECONDS|EPOCH.*|BASHPID|BASH_LINENO|PIPESTATUS|pipestatus|OPTIND|.*TTYIDLE.*|sysparams.*|\.sh.*|OLDPWD|KSH_VERSION|!|.[$].|pid|epochtime.*|jobstates.*|jobdirs.*|jobtexts.*)=' | grep -a '='
wait
echo "waited $?"
"""


def state(shell: str, seen: subprocess.CompletedProcess[bytes]) -> str:
    """What `LOOK` said, without times and the numbers of pipes."""
    said = seen.stdout.decode()
    if "zsh" in shell:
        # It waits by a pipe of its own until a program is started, and may still hold that when the program looks.
        said = re.sub(r"^l.* ([3-9]|\d\d) -> pipe:.*\n", "", said, flags=re.MULTILINE)
    return re.sub(r"^[dl].* (\d+ -> [^\d\n]*).*$", r"\1", said, flags=re.MULTILINE)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_owners_shell_looks_the_same_with_and_without_the_block(shell: str, machine: Machine) -> None:
    script = begun(shell, LOOK)
    without = machine.run(script)
    with_block = machine.run(machine.spliced(script))
    assert state(shell, with_block) == state(shell, without)
    assert (with_block.returncode, without.returncode) == (0, 0), without.stderr
    assert b"waited 0" in without.stdout
    assert b"options" in without.stdout
    machine.seen()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_agent_runs_apart_from_the_owners_process(shell: str, machine: Machine) -> None:
    read, write = os.pipe()
    kept = os.open("/etc/passwd", os.O_RDONLY)
    script = begun(shell, b"umask 0\ncd /usr\n")
    machine.run(machine.spliced(script), pass_fds=(write, kept), umask=0o007)
    os.close(write)
    os.close(kept)
    (told,) = machine.seen()
    # The stand-in still waits; a descriptor of the owner's in its hands would keep this pipe open.
    assert select.select([read], [], [], LIMIT_S)[0] == [read]
    assert os.read(read, 1) == b""
    os.close(read)
    log = f"{machine.root}/var/log/notebook-ssh.log"
    assert sorted(told["fds"]) == ["/dev/null", log, log]
    assert told["words"] == [
        "NOTEBOOK_SSH_STACK=team-ssh",
        "NOTEBOOK_SSH_VERSION=1.0.0",
        "NOTEBOOK_SSH_REGION=eu-west-1",
        "NOTEBOOK_SSH_API=https://a1.execute-api.eu-west-1.amazonaws.com/v1",
        "NOTEBOOK_SSH_TAG_KEY=ssh",
    ]
    assert (told["cwd"], told["umask"], told["isolated"]) == ("/", 0o022, 1)
    assert told["session"] == told["loop"] not in (os.getsid(0), told["pid"])
    assert "P" not in told["names"]


def test_the_agent_lies_where_only_root_comes(machine: Machine) -> None:
    machine.run(machine.spliced(b"#!/bin/sh\n"))
    machine.seen()
    home = machine.root / "opt/notebook-ssh"
    assert (home / "agent.py").read_text() == minify(STAND_IN)
    assert home.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in home.iterdir()) == ["agent.py", "loop"]


# --- scripts as owners write them ---------------------------------------------------------------------------------

OWNERS: Mapping[str, tuple[str, str]] = {
    "idle stop by cron": ("/bin/bash", r"""
set -e
IDLE_TIME=3600
umask 027
cat > "$HOMEDIR/autostop.py" <<'EOF'
# >>> notebook-ssh is not here
print("idle")
EOF
(crontab -l 2>/dev/null; echo "*/5 * * * * /usr/bin/python $PWD/autostop.py --time $IDLE_TIME") | crontab -
"""),
    "conda environments that persist": ("/bin/bash -e", r"""
sudo -u ec2-user -i <<'EOF'
unset SUDO_UID
WORKING_DIR=/home/ec2-user/SageMaker/custom
for env in one two; do echo "kernel $env of $WORKING_DIR"; done
EOF
echo "restarted with $?"
"""),
    "a proxy, ending in a reboot": ("/bin/bash", r"""
echo "export https_proxy=http://proxy.example.com:3128" >> "$HOMEDIR/profile"
cat "$HOMEDIR/profile"
pretended-reboot
exit 0
"""),
    "strict, and failing": ("/usr/bin/env bash", r"""
set -euo pipefail
trap 'echo "left with $?"; exit 7' ERR
trap 'echo bye' EXIT
grep nothing /dev/null | cat
echo never
"""),
    "a variable that is not set": ("/bin/sh -eu", 'echo "$0"\necho "$NOT_SET"\n'),
    "exec": ("/bin/sh", "exec 3>&1\nexec env printf '%s\\n' \"$@\" >&3\n"),
    "an early exit": ("/bin/sh", "echo early\nexit 3\necho never\n"),
    "a background job of its own": ("/bin/bash", '(echo child >&2) &\nwait $!\necho "ended with $?"\njobs\n'),
    "standard input": ("/bin/sh", 'cat\nread -r line || echo "nothing to read"\n'),
    "no line at all": ("/bin/sh", ""),
}  # fmt: skip


@pytest.mark.parametrize(("shell", "text"), OWNERS.values(), ids=OWNERS.keys())
def test_owners_scripts_do_what_they_did(shell: str, text: str, machine: Machine) -> None:
    stub(machine, "crontab", '#!/bin/sh\n[ "$1" = - ] && echo "crontab: $(cat)"\n')
    stub(machine, "sudo", "#!/bin/sh\nexec /bin/bash\n")
    stub(machine, "pretended-reboot", "#!/bin/sh\necho rebooting\n")
    script = begun(shell, text.encode())
    seen = []
    for number, content in enumerate((script, machine.spliced(script))):
        home = machine.home / f"home {number}"
        home.mkdir()
        machine.extra["HOMEDIR"] = str(home)
        done = machine.run(content, input=b"from outside\n", stdin=None)
        said = re.sub(rb"(line |: )\d+", rb"\1N", done.stderr)
        files = {path.name: path.read_bytes() for path in home.iterdir()}
        seen.append((done.returncode, done.stdout, said, files))
    assert seen[1] == seen[0]
    assert len(machine.seen()) == 1


def test_a_script_without_a_shebang_line_is_run_by_a_shell_as_before(machine: Machine) -> None:
    path = machine.home / "OnStart"
    path.write_bytes(machine.spliced(b"echo hello\nexit 4\n"))
    path.chmod(0o700)
    done = subprocess.run(["sh", "-c", '"$0"', path], env=machine.environment(), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (4, b"hello\n")
    machine.seen()


# --- everything goes wrong ----------------------------------------------------------------------------------------

HELLO = b'set -e\necho "hello $?"\n'


def no_python(machine: Machine) -> str:
    machine.python = "/nowhere/python3"
    return "/nowhere/python3"


def broken_python(machine: Machine) -> str:
    stub(machine, "python", "#!/bin/sh\necho broken >&2\nexit 1\n")
    machine.python = str(machine.home / "bin/python")
    return "broken"


def full_disk(machine: Machine) -> str:
    (machine.root / "opt/notebook-ssh").mkdir(parents=True)
    (machine.root / "opt/notebook-ssh/agent.py~").symlink_to("/dev/full")
    return "nothing was started: OSError(28"


def no_place_for_the_agent(machine: Machine) -> str:
    (machine.root / "opt").write_text("a file")
    return "nothing was started: "


def no_place_at_all(machine: Machine) -> str:
    machine.extra["NOTEBOOK_SSH_ROOT"] = "/proc/self"  # nobody can make a folder there, not even root
    return ""


def no_place_but_a_device(machine: Machine) -> str:
    machine.extra["NOTEBOOK_SSH_ROOT"] = "/dev/null"
    return ""


def a_full_log(machine: Machine) -> str:
    (machine.root / "var/log").mkdir(parents=True)
    (machine.root / "var/log/notebook-ssh.log").symlink_to("/dev/full")
    machine.python = "/nowhere/python3"
    return ""


FAULTS = [
    no_python,
    broken_python,
    full_disk,
    no_place_for_the_agent,
    no_place_at_all,
    no_place_but_a_device,
    a_full_log,
]


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if " -v" not in shell])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_the_logs_affair_and_not_the_owners(
    fault: Callable[[Machine], str], shell: str, machine: Machine
) -> None:
    said = fault(machine)
    script = begun(shell, HELLO)
    done, without = machine.run(machine.spliced(script)), machine.run(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello 0\n", without.stderr)
    if said:
        machine.logged(said)
        assert machine.told().count("\n") == 1


READ_ONLY = """
mount -t tmpfs -o size=64k none "$1" && mkdir -p "$1/var/log" && : >"$1/var/log/notebook-ssh.log"
case $2 in
ro) mount -o remount,ro "$1" ;;
full) dd if=/dev/zero of="$1/var/filler" bs=1k 2>/dev/null ;;
esac
[ "$2" != ro ] || ! touch "$1/probe" 2>/dev/null || exit 99
"$3" && wait && find "$1" -name 'agent.py' -size +0
"""


@pytest.mark.parametrize("state", ["ro", "full"])
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash -eu"])
def test_a_real_file_system_that_is_read_only_or_full(state: str, shell: str, machine: Machine) -> None:
    needs.mounts()
    disk = machine.home / "disk"
    disk.mkdir()
    machine.extra["NOTEBOOK_SSH_ROOT"] = str(disk)
    machine.agent = "import os\n" + "".join(f"name_{n} = {os.urandom(20).hex()!r}\n" for n in range(60))
    script = machine.home / "OnStart"
    script.write_bytes(machine.spliced(begun(shell, HELLO)))
    script.chmod(0o700)
    done = subprocess.run(
        [*namespaces.of_mounts(), "sh", "-c", READ_ONLY, "sh", disk, state, script],
        env=machine.environment(), capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello 0\n", b"")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash -eu"])
def test_an_unwritable_log_does_not_keep_the_agent_from_running(shell: str, machine: Machine) -> None:
    (machine.root / "var/log/notebook-ssh.log").mkdir(parents=True)
    done = machine.run(machine.spliced(begun(shell, HELLO)))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello 0\n", b"")
    assert sorted(machine.seen()[0]["fds"]) == ["/dev/null"] * 3


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_place_for_the_log_the_agent_runs_all_the_same(shell: str, machine: Machine) -> None:
    (machine.root / "var").write_text("a file")
    machine.run(machine.spliced(begun(shell)))
    assert machine.seen()[0]["fds"] == ["/dev/null"] * 3


@pytest.mark.parametrize("shell", SHELLS)
def test_the_environment_may_be_bare(shell: str, machine: Machine) -> None:
    environment = {name: value for name, value in machine.environment().items() if name.startswith("NOTEBOOK")}
    script = begun(shell, b":\n")
    done, without = (machine.run(content, env=environment) for content in (machine.spliced(script), script))
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == without.stderr or " -v" in shell
    machine.seen()


def test_programs_are_found_where_the_path_names_none(machine: Machine) -> None:
    machine.extra["PATH"] = "/nowhere"
    machine.run(machine.spliced(b"#!/bin/sh\n"))
    log = f"{machine.root}/var/log/notebook-ssh.log"
    assert sorted(machine.seen()[0]["fds"]) == ["/dev/null", log, log]


def test_pythons_own_variables_have_no_say(machine: Machine) -> None:
    (machine.home / "base64.py").write_text("raise SystemExit('not the standard library')\n")
    machine.extra["PYTHONPATH"] = str(machine.home)
    machine.run(machine.spliced(b"#!/bin/sh\n"))
    machine.seen()


def test_a_shell_that_forbids_redirections_goes_on_with_the_owners_script(machine: Machine) -> None:
    done = machine.run(machine.spliced(b"#!/bin/bash -re\n" + HELLO))
    assert (done.returncode, done.stdout) == (0, b"hello 0\n")


def damaged(script: bytes, how: str) -> bytes:
    """`script` with other bytes in its payload."""
    start = script.index(b"P='") + 3
    end = script.index(b"'", start)
    payload = script[start:end]
    match how:
        case "cut":
            payload = payload[:-100]
        case "emptied":
            payload = b""
        case "one sign changed":
            payload = payload[:100] + (b"A" if payload[100:101] != b"A" else b"B") + payload[101:]
        case "not base85":
            payload = b"\xff\xfe" + payload
    return script[:start] + payload + script[end:]


@pytest.mark.parametrize("how", ["cut", "emptied", "one sign changed", "not base85"])
def test_a_corrupt_payload_leaves_one_line_in_the_log_and_nothing_else(how: str, machine: Machine) -> None:
    done = machine.run(damaged(machine.spliced(b"#!/bin/bash\n" + HELLO), how))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello 0\n", b"")
    assert machine.logged("notebook-ssh: nothing was started: ").count("\n") == 1
    assert sorted(path.name for path in machine.root.rglob("*")) == ["leave", "log", "notebook-ssh.log", "var"]


def test_a_sound_payload_with_another_sum_is_not_run(machine: Machine) -> None:
    script = re.sub(rb'!="[0-9a-f]{16}"', b'!="0000000000000000"', machine.spliced(b"#!/bin/sh\n"))
    machine.run(script)
    machine.logged("damaged block")
    assert not (machine.root / "opt").exists()


def test_the_owners_script_does_not_wait_for_a_slow_python(machine: Machine) -> None:
    gate = machine.home / "gate"
    os.mkfifo(gate)
    stub(machine, "python", f"#!/bin/sh\nread line <'{gate}'\necho \"let through: $line\" >&2\n")
    machine.python = str(machine.home / "bin/python")
    # Only the owner's own second line opens the gate: a block that waited for its Python would never get there.
    script = f"#!/bin/bash\necho 'the owner goes on' >'{gate}'\nwait\n".encode()
    assert machine.run(machine.spliced(script)).returncode == 0
    machine.logged("let through: the owner goes on")


# --- it stays up --------------------------------------------------------------------------------------------------


def test_the_agent_is_started_again_with_longer_and_longer_pauses_until_it_ends_for_good(machine: Machine) -> None:
    stub(machine, "sleep", '#!/bin/sh\necho "$1" >>"$NOTEBOOK_SSH_ROOT/pauses"\n')
    machine.agent = STAND_IN.rpartition("with open")[0] + (
        "count = len(open(here + '/seen').readlines())\nsys.exit(64 if count == 11 else count % 2)\n"
    )
    machine.run(machine.spliced(b"#!/bin/sh\n"))
    told = machine.seen(11)
    until(lambda: has_ended(told[0]["loop"]), "the loop ends", machine)
    assert (machine.root / "pauses").read_text().split() == ["1", "2", "4", "8", "16", "32", "64", "128", "256", "256"]
    assert len({each["loop"] for each in told}) == 1
    assert len(machine.seen()) == 11


def test_a_loop_ends_with_its_agent_when_a_later_one_has_begun(machine: Machine) -> None:
    stub(machine, "sleep", "#!/bin/sh\n")
    machine.run(machine.spliced(b"#!/bin/sh\n"))
    (first,) = machine.seen()
    machine.run(machine.spliced(b"#!/bin/sh\n"))
    second = machine.seen(2)[1]
    os.kill(first["pid"], signal.SIGTERM)
    until(lambda: has_ended(first["loop"]), "the loop ends", machine)
    os.kill(second["pid"], signal.SIGKILL)
    assert machine.seen(3)[2]["loop"] == second["loop"]


def keeper_text(running: Path) -> str:
    """The shell text with which boot.py ends, looking for systemd at `running` instead."""
    constants = (node.value for node in ast.walk(ast.parse(BOOT)) if isinstance(node, ast.Constant))
    (text,) = (str(value) for value in constants if "systemd-run" in str(value))
    assert text.count("/run/systemd/system") == 1
    return text.replace("/run/systemd/system", f'"{running}"')


def test_where_systemd_runs_it_keeps_the_agent(machine: Machine) -> None:
    record = '#!/bin/sh\necho "${0##*/} $*" >>"$NOTEBOOK_SSH_ROOT/calls"\n'
    stub(machine, "systemctl", record + "exit 5\n")  # there is no such unit yet
    stub(machine, "systemd-run", record)
    subprocess.run(
        ["/bin/sh", "-c", keeper_text(machine.root), "", "/usr/bin/python3", "-I", "/opt/agent.py", "NOTEBOOK_SSH_A=b c"],
        env=machine.environment(), check=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert (machine.root / "calls").read_text().splitlines() == [
        "systemctl stop notebook-ssh",
        "systemd-run --unit=notebook-ssh --collect -pRestart=always -pRestartSec=9 -pRestartPreventExitStatus=64"
        " -pEnvironmentFile=-/etc/environment /usr/bin/python3 -I /opt/agent.py NOTEBOOK_SSH_A=b c",
    ]


@pytest.mark.parametrize("root", ["", "a folder of its own"])
def test_where_systemd_fails_or_is_not_asked_the_loop_keeps_the_agent(root: str, machine: Machine) -> None:
    record = '#!/bin/sh\necho "${0##*/} $*" >>"$NOTEBOOK_SSH_ROOT/calls"\nexit 1\n'
    stub(machine, "systemctl", record)
    stub(machine, "systemd-run", record)
    stub(machine, "agent", '#!/bin/sh\necho once >>"$NOTEBOOK_SSH_ROOT/ran"\nexit 64\n')
    (machine.root / "opt/notebook-ssh").mkdir(parents=True)
    text = keeper_text(machine.root)
    assert text.count("l=$0/opt") == 1
    # The real /opt is not this test's to write to.
    text = text.replace("l=$0/opt", f"l='{machine.root}/opt'")
    subprocess.run(["/bin/sh", "-c", text, root, "agent"], env=machine.environment(), check=False, timeout=LIMIT_S)
    assert (machine.root / "ran").read_text() == "once\n"
    assert (machine.root / "calls").exists() is (root == "")
