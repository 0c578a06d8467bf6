"""Stand-ins for `systemd-run` and `systemctl`, with the options that the block and the agent use. One file, two names.

A unit is a process of its own that keeps its command running, with the environment that systemd sets: a PATH and the
EnvironmentFile, nothing of the caller's (systemd.exec(5)). Calls are written to `calls` next to this file, one JSON list
a line; `enabled` next to it stands for an sshd that is enabled, `masked` for one that is masked. An unknown option is
an error, as with systemd.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KNOWN = {"Restart", "RestartSec", "RestartPreventExitStatus", "EnvironmentFile", "KillMode"}
SSHD = "sshd"
UNITS = Path("/etc/systemd/system")


def pid_of(unit: str) -> int | None:
    """Return the process id of a unit, or None if it does not run."""
    try:
        pid = int((HERE / f"{unit}.pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    # No process waits for orphans here, so one that has exited may still be listed.
    return None if state == "Z" else pid


def stop_unit(unit: str) -> int:
    """Stop a unit and wait for it; return 5 if there is none (systemctl(1), EXIT STATUS)."""
    pid = pid_of(unit)
    if pid is None:
        return 5
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while pid_of(unit):
        time.sleep(0.01)
    return 0


def systemd_run(words: list[str]) -> int:
    """Start a transient unit: options up to the first word that is none, then the command."""
    name, properties = "", {}
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word.startswith("--unit="):
            name = word[len("--unit=") :]
        elif word.startswith("-p"):
            key, _, value = word[2:].partition("=")
            properties[key] = value
        elif word not in ("--collect", "--quiet"):
            return 1
    if not name or not words or set(properties) - KNOWN or pid_of(name):
        return 1
    environment = {"PATH": f"{HERE}:/usr/bin:/bin:/usr/sbin"}
    path = Path(properties.get("EnvironmentFile", "-/").removeprefix("-"))
    if path.is_file():
        environment |= dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    fork(name, words, environment, properties)
    return 0


def start_unit(unit: str) -> int:
    """Start a unit on disk, of which the agent's is written in the subset that is read here (systemd.service(5))."""
    lines = (UNITS / f"{unit}.service").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line)
    words = [word.replace("%%", "%") for word in shlex.split(settings["ExecStart"])]
    fork(unit, words, {"PATH": f"{HERE}:/usr/bin:/bin:/usr/sbin"}, settings)
    return 0


def fork(name: str, words: list[str], environment: dict[str, str], properties: dict[str, str]) -> None:
    """Let a process of its own keep the command running."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            (HERE / f"{name}.pid").write_text(str(os.getpid()))
            supervise(words, environment, properties)
        os._exit(0)
    os.wait()
    while pid_of(name) is None and not (HERE / f"{name}.pid").exists():
        time.sleep(0.01)


def supervise(words: list[str], environment: dict[str, str], properties: dict[str, str]) -> None:
    """Restart the command until the unit is stopped or the command exits with the status that prevents it."""
    with (HERE / "journal").open("ab") as journal:
        stat = os.fstat(journal.fileno())
        environment |= {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        for descriptor in (1, 2):
            os.dup2(journal.fileno(), descriptor)
    child: subprocess.Popen[bytes] | None = None
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        if child:
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    final = properties.get("RestartPreventExitStatus")
    while not stopped:
        child = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, cwd="/")
        if stopped:
            child.terminate()
        code = child.wait()
        if properties.get("Restart") != "always" or str(code) == final:
            break
    os._exit(0)


def systemctl(words: list[str]) -> int:
    """Run `stop UNIT`, or one of the commands for sshd."""
    match [word for word in words if word != "--quiet"]:
        case ["stop", unit]:
            return stop_unit(unit)
        case ["daemon-reload"]:
            return 0
        case ["enable", unit]:
            wants = UNITS / "multi-user.target.wants"
            wants.mkdir(exist_ok=True)
            (wants / f"{unit}.service").unlink(missing_ok=True)
            (wants / f"{unit}.service").symlink_to(UNITS / f"{unit}.service")
            return 0
        case ["restart", unit]:
            stop_unit(unit)
            return start_unit(unit)
        case ["boot"]:  # what systemd itself does at the start of the machine
            return max(start_unit(link.stem) for link in (UNITS / "multi-user.target.wants").iterdir())
        case ["start", "sshd"]:
            if (HERE / "masked").exists() or not os.access("/usr/sbin/sshd", os.X_OK):
                return 5
            if pid_of(SSHD) is None:
                Path("/run/sshd").mkdir(exist_ok=True)  # RuntimeDirectory= of the unit
                if subprocess.run(
                    ["/usr/sbin/sshd", "-f", "/etc/ssh/sshd_config"], stderr=subprocess.DEVNULL
                ).returncode:
                    return 1
                while pid_of(SSHD) is None:  # Type=notify
                    time.sleep(0.01)
            return 0
        case ["is-active", "sshd"]:
            return 0 if pid_of(SSHD) else 3
        case ["is-enabled", "sshd"]:
            return 0 if (HERE / "enabled").exists() else 1
        case _:
            return 1


def main() -> int:
    """Record the call and run it."""
    name = Path(sys.argv[0]).name
    with (HERE / "calls").open("a") as calls:
        calls.write(json.dumps([name, *sys.argv[1:]]) + "\n")
    return {"systemd-run": systemd_run, "systemctl": systemctl}[name](sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
