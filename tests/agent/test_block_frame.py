"""The block executed by many shells, in front of script owners' scripts, with faults of every kind.

The agent here is a stand-in that records its arguments and environment, waits for the test, and exits with its status.
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

import pytest
from support import namespaces, needs
from support.agent_env import wait_until

from notebook_ssh.model.block_program import BlockSettings, minify, render_block
from notebook_ssh.model.managed_block import Block, Inserted, insert_block
from notebook_ssh.model.shebang import SHELLS as ACCEPTED
from patience import LIMIT_S

LAYER = Path(__file__).resolve().parents[2] / "layers" / "notebook_agent"
FRAME, BOOT = (LAYER / "block.sh").read_text(), (LAYER / "boot.py").read_text()
SETTINGS = BlockSettings("team-ssh", "1.0.0", "eu-west-1", "https://a1.execute-api.eu-west-1.amazonaws.com/v1", "ssh")

STAND_IN = """
import json, os, sys
root = os.environ["NOTEBOOK_SSH_ROOT"]
umask = os.umask(0)
os.umask(umask)
record = {
    "arguments": sys.argv[1:], "cwd": os.getcwd(), "umask": umask, "pid": os.getpid(), "loop": os.getppid(),
    "session": os.getsid(0), "isolated": sys.flags.isolated, "home": os.environ.get("HOME"),
    "fds": [os.readlink("/proc/self/fd/" + f) for f in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + f)],
    "names": sorted(os.environ),
}
with open(root + "/records", "a") as file:
    file.write(json.dumps(record) + chr(10))
with open(root + "/exit") as fifo:
    sys.exit(int(fifo.read() or 1))
"""

SHELLS = [
    "/bin/sh", "/bin/dash", "/bin/bash", "/bin/bash --posix", "/bin/bash -eu", "/usr/bin/env -S bash -euxo pipefail -C",
    "/bin/dash -euxC", "/usr/bin/env bash", "/bin/bash -m", "/bin/bash -v", "/bin/busybox sh", "/bin/ksh93 -eu",
    "/bin/mksh -eu", "/bin/zsh -eu",
]  # fmt: skip
"""Each is tested on every machine: `make test` installs those that are missing."""


def by_day_in(*shells: str, test: str, without: str = "none") -> list[Any]:
    """SHELLS as the parameters of `test`, at night but for those named: other tests try each shell every day.

    without: an option; shells that have it are left out.
    """
    at_night = pytest.mark.nightly(sibling=test)
    tried = [shell for shell in SHELLS if f" {without}" not in shell]
    return [shell if shell in shells else pytest.param(shell, marks=at_night) for shell in tried]


def script_for(shell: str, text: bytes = b"") -> bytes:
    """Return a script for `shell`."""
    needs.program(next(name for name in re.findall(r"\w+", shell) if name not in ("bin", "usr", "env", "S")))
    return f"#!{shell}\n".encode() + text


@dataclass
class Machine:
    """A folder in the place of `/`, and a stand-in agent. `home` may contain spaces.

    python: the system's Python for the block. agent: the program in the block.
    """

    home: Path
    python: str = sys.executable
    agent: str = STAND_IN
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = self.home / "the root"
        self.root.mkdir(parents=True)
        os.mkfifo(self.root / "exit")
        # Open for reading and writing, so that neither the agent's open nor this one blocks.
        self.exit_fifo = os.open(self.root / "exit", os.O_RDWR | os.O_NONBLOCK)

    def block(self) -> Block:
        return render_block(FRAME, BOOT, self.agent, SETTINGS)

    def with_block(self, script: bytes) -> bytes:
        outcome = insert_block(script, self.block())
        assert isinstance(outcome, Inserted)
        return outcome.script

    def environment(self) -> dict[str, str]:
        """Return the environment that SageMaker gives to a script; it has no `HOME`."""
        variables = {"PATH": f"{self.home}/bin:/usr/bin:/bin", "NOTEBOOK_SSH_ROOT": str(self.root)}
        return variables | {"NOTEBOOK_SSH_PYTHON": self.python} | self.extra

    def run(self, script: bytes, **changes: Any) -> subprocess.CompletedProcess[bytes]:
        """Run `script` as the kernel does, by its first line; it must exit and close its output within the timeout."""
        path = self.home / "OnStart"
        path.write_bytes(script)
        path.chmod(0o700)
        defaults: dict[str, Any] = {"env": self.environment(), "cwd": "/tmp", "stdin": subprocess.DEVNULL}
        with_output = {"capture_output": True, "timeout": LIMIT_S, "check": False}
        return subprocess.run([path, "first", "second word"], **(defaults | with_output | changes))

    def records(self, count: int = 1) -> list[dict[str, Any]]:
        """Return the stand-in's records, once there are `count`."""
        path = self.root / "records"
        wait_until(
            lambda: path.exists() and path.read_text().count("\n") >= count, f"the agent is started {count} times", self
        )
        return [json.loads(line) for line in path.read_text().splitlines()]

    def logs(self) -> str:
        """Return the log, or "" if there is none."""
        path = self.root / "var/log/notebook-ssh.log"
        return path.read_text() if path.exists() else ""

    def wait_for_log(self, text: str) -> str:
        """Return the log, once it contains `text`."""
        wait_until(lambda: text in self.logs(), f"the log contains {text!r}", self)
        return self.logs()

    def close(self) -> None:
        """Kill the processes whose environment has this folder."""
        marker = f"NOTEBOOK_SSH_ROOT={self.root}\0".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marker in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
        os.close(self.exit_fifo)


def has_exited(process: int) -> bool:
    """Return whether `process` has exited; it may be a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose stand-in agents are killed after the test."""
    machine = Machine(tmp_path)
    (tmp_path / "bin").mkdir()
    yield machine
    machine.close()


def stub(machine: Machine, name: str, text: str) -> None:
    """Create a program `name` in the first directory of the script's PATH."""
    path = machine.home / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


# --- the owner's shell is unchanged -------------------------------------------------------------------------------

PRINT_STATE = rb"""printf 'status %s, last argument %s, background %s\n' "$?" "${_-}" "${!-none}"
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


def state(shell: str, completed: subprocess.CompletedProcess[bytes]) -> str:
    """Return what `PRINT_STATE` printed, without times and the numbers of pipes."""
    output = completed.stdout.decode()
    if "zsh" in shell:
        # It uses a pipe of its own until a program is started, and may still have it open when the program lists them.
        output = re.sub(r"^l.* ([3-9]|\d\d) -> pipe:.*\n", "", output, flags=re.MULTILINE)
    return re.sub(r"^[dl].* (\d+ -> [^\d\n]*).*$", r"\1", output, flags=re.MULTILINE)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_owners_shell_has_the_same_state_with_and_without_the_block(shell: str, machine: Machine) -> None:
    script = script_for(shell, PRINT_STATE)
    without = machine.run(script)
    with_block = machine.run(machine.with_block(script))
    assert state(shell, with_block) == state(shell, without)
    assert (with_block.returncode, without.returncode) == (0, 0), without.stderr
    assert b"waited 0" in without.stdout
    assert b"options" in without.stdout
    machine.records()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_agent_runs_detached_from_the_owners_process(shell: str, machine: Machine) -> None:
    read, write = os.pipe()
    inherited = os.open("/etc/passwd", os.O_RDONLY)
    script = script_for(shell, b"umask 0\ncd /usr\n")
    machine.run(machine.with_block(script), pass_fds=(write, inherited), umask=0o007)
    os.close(write)
    os.close(inherited)
    (record,) = machine.records()
    # The stand-in still runs; with a descriptor of the owner's it would keep this pipe open.
    assert select.select([read], [], [], LIMIT_S)[0] == [read]
    assert os.read(read, 1) == b""
    os.close(read)
    log = f"{machine.root}/var/log/notebook-ssh.log"
    assert sorted(record["fds"]) == ["/dev/null", log, log]
    assert record["arguments"] == [
        "NOTEBOOK_SSH_STACK=team-ssh",
        "NOTEBOOK_SSH_VERSION=1.0.0",
        "NOTEBOOK_SSH_REGION=eu-west-1",
        "NOTEBOOK_SSH_API=https://a1.execute-api.eu-west-1.amazonaws.com/v1",
        "NOTEBOOK_SSH_TAG_KEY=ssh",
    ]
    assert (record["cwd"], record["umask"], record["isolated"]) == ("/", 0o022, 1)
    assert record["session"] == record["loop"] not in (os.getsid(0), record["pid"])
    assert "P" not in record["names"]


def test_every_shell_that_is_accepted_is_tried() -> None:
    """The others are refused. busybox is ash, and Amazon Linux's and Debian's ksh is ksh93."""
    tried = {re.findall(r"\w+", re.sub(r" -.*", "", shell.replace("-S ", "")))[-1] for shell in SHELLS}
    assert tried - {"sh"} | {"sh", "ash", "ksh"} == ACCEPTED


JOBS = {
    "wait": "wait; echo $?",
    "wait for one": "sleep 0.1 & wait $!; echo $?",
    "wait -n": "(exit 3) & wait -n; echo $?",
    "wait -n for nothing": "wait -n; echo $?",
    "jobs": "jobs; jobs -p; echo end",
    "a job control of its own": "set -m; sleep 0.1 & fg >&2; wait; jobs; echo $?",
    "a job by its number": "sleep 0.1 & wait %1; echo $?",
    "errexit": "set -e; sleep 0.1 & wait $!; wait; false; echo never",
    "a trap for its children": "trap 'echo child' CHLD; sleep 0.1; wait; echo end",
    "a trap at its end": "trap 'wait; jobs; echo end' EXIT; exit 5",
    "until no job is left": 'sleep 0.1 & while [ -n "$(jobs -r)" ]; do sleep 0.1; done; echo end',
    "the last of the background": 'echo "${!-none}"',
}
"""What owners' scripts do with their jobs. The agent is none of them, or a start would never end."""


@pytest.mark.parametrize("shell", by_day_in("/bin/sh", "/bin/bash", test="test_the_agent_is_none_of_the_owners_jobs"))
def test_the_agent_is_none_of_the_owners_jobs(shell: str, machine: Machine) -> None:
    for number, (name, text) in enumerate(JOBS.items(), 1):
        script = script_for(shell, text.encode() + b"\n")
        outcomes = []
        for content in (script, machine.with_block(script)):
            done = machine.run(content)  # a `wait` for the agent would not return
            outcomes.append((done.returncode, re.sub(rb"\d{3,}", b"N", done.stdout)))
        assert outcomes[1] == outcomes[0], name
        machine.records(number)  # or two would install the agent at once, which a notebook's one start never does


def test_the_agent_is_installed_where_only_root_has_access(machine: Machine) -> None:
    machine.run(machine.with_block(b"#!/bin/sh\n"))
    machine.records()
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
def test_owners_scripts_have_the_same_effects(shell: str, text: str, machine: Machine) -> None:
    stub(machine, "crontab", '#!/bin/sh\n[ "$1" = - ] && echo "crontab: $(cat)"\n')
    stub(machine, "sudo", "#!/bin/sh\nexec /bin/bash\n")
    stub(machine, "pretended-reboot", "#!/bin/sh\necho rebooting\n")
    script = script_for(shell, text.encode())
    effects = []
    for number, content in enumerate((script, machine.with_block(script))):
        home = machine.home / f"home {number}"
        home.mkdir()
        machine.extra["HOMEDIR"] = str(home)
        done = machine.run(content, input=b"from outside\n", stdin=None)
        errors = re.sub(rb"(line |: )\d+", rb"\1N", done.stderr)
        files = {path.name: path.read_bytes() for path in home.iterdir()}
        effects.append((done.returncode, done.stdout, errors, files))
    assert effects[1] == effects[0]
    assert len(machine.records()) == 1


def test_a_script_without_a_shebang_line_still_runs_in_a_shell(machine: Machine) -> None:
    path = machine.home / "OnStart"
    path.write_bytes(machine.with_block(b"echo hello\nexit 4\n"))
    path.chmod(0o700)
    done = subprocess.run(["sh", "-c", '"$0"', path], env=machine.environment(), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (4, b"hello\n")
    machine.records()


# --- faults ----------------------------------------------------------------------------------------

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
    return "not started: OSError(28"


def no_directory_for_the_agent(machine: Machine) -> str:
    (machine.root / "opt").write_text("a file")
    return "not started: "


def no_writable_root(machine: Machine) -> str:
    machine.extra["NOTEBOOK_SSH_ROOT"] = "/proc/self"  # not even root can create a folder there
    return ""


def a_device_as_the_root(machine: Machine) -> str:
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
    no_directory_for_the_agent,
    no_writable_root,
    a_device_as_the_root,
    a_full_log,
]


@pytest.mark.parametrize(
    "shell",
    by_day_in(
        "/bin/sh", "/bin/bash -eu", test="test_a_fault_is_logged_and_does_not_affect_the_owners_script", without="-v"
    ),
)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_logged_and_does_not_affect_the_owners_script(
    fault: Callable[[Machine], str], shell: str, machine: Machine
) -> None:
    message = fault(machine)
    script = script_for(shell, HELLO)
    done, without = machine.run(machine.with_block(script)), machine.run(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello 0\n", without.stderr)
    if message:
        machine.wait_for_log(message)
        assert machine.logs().count("\n") == 1


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
    script.write_bytes(machine.with_block(script_for(shell, HELLO)))
    script.chmod(0o700)
    done = subprocess.run(
        [*namespaces.of_mounts(), "sh", "-c", READ_ONLY, "sh", disk, state, script],
        env=machine.environment(), capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello 0\n", b"")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash -eu"])
def test_the_agent_runs_with_an_unwritable_log(shell: str, machine: Machine) -> None:
    (machine.root / "var/log/notebook-ssh.log").mkdir(parents=True)
    done = machine.run(machine.with_block(script_for(shell, HELLO)))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello 0\n", b"")
    assert sorted(machine.records()[0]["fds"]) == ["/dev/null"] * 3


@pytest.mark.parametrize(
    "shell", by_day_in("/bin/bash -eu", test="test_the_agent_runs_without_a_directory_for_the_log")
)
def test_the_agent_runs_without_a_directory_for_the_log(shell: str, machine: Machine) -> None:
    (machine.root / "var").write_text("a file")
    machine.run(machine.with_block(script_for(shell)))
    assert machine.records()[0]["fds"] == ["/dev/null"] * 3


@pytest.mark.parametrize("shell", by_day_in("/bin/bash -eu", test="test_the_environment_may_be_empty"))
def test_the_environment_may_be_empty(shell: str, machine: Machine) -> None:
    environment = {name: value for name, value in machine.environment().items() if name.startswith("NOTEBOOK")}
    script = script_for(shell, b":\n")
    done, without = (machine.run(content, env=environment) for content in (machine.with_block(script), script))
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == without.stderr or " -v" in shell
    machine.records()


def test_programs_are_found_without_a_usable_path(machine: Machine) -> None:
    machine.extra["PATH"] = "/nowhere"
    machine.run(machine.with_block(b"#!/bin/sh\n"))
    log = f"{machine.root}/var/log/notebook-ssh.log"
    assert sorted(machine.records()[0]["fds"]) == ["/dev/null", log, log]


def test_pythons_environment_variables_are_ignored(machine: Machine) -> None:
    (machine.home / "base64.py").write_text("raise SystemExit('not the standard library')\n")
    machine.extra["PYTHONPATH"] = str(machine.home)
    machine.run(machine.with_block(b"#!/bin/sh\n"))
    machine.records()


def test_a_shell_that_forbids_redirections_runs_the_owners_script(machine: Machine) -> None:
    done = machine.run(machine.with_block(b"#!/bin/bash -re\n" + HELLO))
    assert (done.returncode, done.stdout) == (0, b"hello 0\n")


def damaged(script: bytes, how: str) -> bytes:
    """Return `script` with other bytes in its payload."""
    start = script.index(b"P='") + 3
    end = script.index(b"'", start)
    payload = script[start:end]
    match how:
        case "cut":
            payload = payload[:-100]
        case "emptied":
            payload = b""
        case "one character changed":
            payload = payload[:100] + (b"A" if payload[100:101] != b"A" else b"B") + payload[101:]
        case "not base85":
            payload = b"\xff\xfe" + payload
    return script[:start] + payload + script[end:]


@pytest.mark.parametrize("how", ["cut", "emptied", "one character changed", "not base85"])
def test_a_corrupt_payload_leaves_one_line_in_the_log_and_nothing_else(how: str, machine: Machine) -> None:
    done = machine.run(damaged(machine.with_block(b"#!/bin/bash\n" + HELLO), how))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello 0\n", b"")
    assert machine.wait_for_log("notebook-ssh: not started: ").count("\n") == 1
    assert sorted(path.name for path in machine.root.rglob("*")) == ["exit", "log", "notebook-ssh.log", "var"]


def test_a_payload_with_another_checksum_is_not_run(machine: Machine) -> None:
    script = re.sub(rb'!="[0-9a-f]{16}"', b'!="0000000000000000"', machine.with_block(b"#!/bin/sh\n"))
    machine.run(script)
    machine.wait_for_log("damaged block")
    assert not (machine.root / "opt").exists()


def test_the_owners_script_does_not_wait_for_a_slow_python(machine: Machine) -> None:
    gate = machine.home / "gate"
    os.mkfifo(gate)
    stub(machine, "python", f"#!/bin/sh\nread line <'{gate}'\necho \"released: $line\" >&2\n")
    machine.python = str(machine.home / "bin/python")
    # Only the owner's second line opens the gate: with a block that waited for its Python it would never run.
    script = f"#!/bin/bash\necho 'the owner continues' >'{gate}'\nwait\n".encode()
    assert machine.run(machine.with_block(script)).returncode == 0
    machine.wait_for_log("released: the owner continues")


# --- restarts --------------------------------------------------------------------------------------------------


def test_the_agent_is_restarted_with_a_back_off_until_it_exits_with_64(machine: Machine) -> None:
    stub(machine, "sleep", '#!/bin/sh\necho "$1" >>"$NOTEBOOK_SSH_ROOT/delays"\n')
    machine.agent = STAND_IN.rpartition("with open")[0] + (
        "count = len(open(root + '/records').readlines())\nsys.exit(64 if count == 11 else count % 2)\n"
    )
    machine.run(machine.with_block(b"#!/bin/sh\n"))
    records = machine.records(11)
    wait_until(lambda: has_exited(records[0]["loop"]), "the loop ends", machine)
    assert (machine.root / "delays").read_text().split() == ["1", "2", "4", "8", "16", "32", "64", "128", "256", "256"]
    assert len({each["loop"] for each in records}) == 1
    assert len(machine.records()) == 11


def test_a_loop_ends_with_its_agent_when_a_later_one_has_started(machine: Machine) -> None:
    stub(machine, "sleep", "#!/bin/sh\n")
    machine.run(machine.with_block(b"#!/bin/sh\n"))
    (first,) = machine.records()
    machine.run(machine.with_block(b"#!/bin/sh\n"))
    second = machine.records(2)[1]
    os.kill(first["pid"], signal.SIGTERM)
    wait_until(lambda: has_exited(first["loop"]), "the loop ends", machine)
    os.kill(second["pid"], signal.SIGKILL)
    assert machine.records(3)[2]["loop"] == second["loop"]


def launcher_text(running: Path, units: Path) -> str:
    """Return the shell text that boot.py executes, with `running` and `units` in the place of systemd's directories."""
    constants = (node.value for node in ast.walk(ast.parse(BOOT)) if isinstance(node, ast.Constant))
    (text,) = (str(value) for value in constants if "daemon-reload" in str(value))
    assert (text.count("/run/systemd/system"), text.count("/etc/systemd/system")) == (1, 1)
    return text.replace("/run/systemd/system", f'"{running}"').replace("/etc/systemd/system", f'"{units}"')


def test_systemd_runs_the_agent_where_it_is_available(machine: Machine) -> None:
    """As an enabled unit on disk: a transient one would be lost in a `reboot` of the owner's script."""
    record = '#!/bin/sh\necho "${0##*/} $*" >>"$NOTEBOOK_SSH_ROOT/calls"\n'
    stub(machine, "systemctl", record)
    units = machine.root / "units of systemd"
    units.mkdir()
    subprocess.run(
        ["/bin/sh", "-c", launcher_text(machine.root, units), "", "the unit's text\n100%%", "/usr/bin/python3", "-I"],
        env=machine.environment(), check=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert (machine.root / "calls").read_text().splitlines() == [
        "systemctl daemon-reload",
        "systemctl enable notebook-ssh",
        "systemctl restart notebook-ssh",
    ]
    assert (units / "notebook-ssh.service").read_text() == "the unit's text\n100%%"


@pytest.mark.parametrize("root", ["", "a folder of its own"])
def test_a_loop_runs_the_agent_where_systemd_fails_or_is_not_used(root: str, machine: Machine) -> None:
    record = '#!/bin/sh\necho "${0##*/} $*" >>"$NOTEBOOK_SSH_ROOT/calls"\nexit 1\n'
    stub(machine, "systemctl", record)
    stub(machine, "agent", '#!/bin/sh\necho once >>"$NOTEBOOK_SSH_ROOT/ran"\nexit 64\n')
    (machine.root / "opt/notebook-ssh").mkdir(parents=True)
    text = launcher_text(machine.root, machine.root)
    assert text.count("l=$0/opt") == 1
    # The test must not write to the real /opt.
    text = text.replace("l=$0/opt", f"l='{machine.root}/opt'")
    subprocess.run(
        ["/bin/sh", "-c", text, root, "the unit's text", "agent"],
        env=machine.environment(),
        check=False,
        timeout=LIMIT_S,
    )
    assert (machine.root / "ran").read_text() == "once\n"
    assert (machine.root / "calls").exists() is (root == "")
