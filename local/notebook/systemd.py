"""What systemd is on an instance, for a simulated notebook: `systemctl` and `systemd-run`, as far as scripts need them.

    python systemd.py DISK systemctl WORD…
    python systemd.py DISK systemd-run WORD…

A unit is one process below the notebook's first one, and is not restarted. Unit files are read where systemd reads them on
`DISK` (systemd.unit(5)): ExecStart, and Environment with one variable a line; a link to /dev/null masks. While the file of
`refuse_jobs` is there, nothing can be started (systemctl(1), systemd-run(1)).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

UNIT_FOLDERS = ("etc/systemd/system", "usr/lib/systemd/system")
WANTED_AT_START = "etc/systemd/system/multi-user.target.wants"
MASKED = "/dev/null"
STOP_LIMIT_S = 10

PROGRAM = """\
#!/bin/sh
exec {python} -I {this} {disk} {name} "$@"
"""


def install(disk: Path) -> None:
    """Write both programs, and the folders that they need."""
    for folder in (*UNIT_FOLDERS, WANTED_AT_START, "usr/bin", "var/log", "run/systemd"):
        (disk / folder).mkdir(parents=True, exist_ok=True)
    words = {"python": sys.executable, "this": __file__, "disk": str(disk)}
    for name in ("systemctl", "systemd-run"):
        path = disk / "usr/bin" / name
        path.write_text(PROGRAM.format(name=name, **{key: shlex.quote(value) for key, value in words.items()}))
        path.chmod(0o755)


def unit_file(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The text of a unit that runs `command`."""
    variables = [f"Environment={shlex.quote(f'{name}={value}')}\n" for name, value in environment.items()]
    return f"[Service]\n{''.join(variables)}ExecStart={shlex.join(command).replace('%', '%%')}\n"


class Units:
    """The units of the notebook with the disk `disk`."""

    def __init__(self, disk: Path) -> None:
        self._disk, self._run = disk, disk / "run/systemd"

    @property
    def refuse_jobs(self) -> Path:
        """While this file is there, starting fails."""
        return self._run / "refuse-jobs"

    def file(self, unit: str) -> Path | None:
        """The file of a unit."""
        places = (self._disk / folder / f"{unit}.service" for folder in UNIT_FOLDERS)
        return next((place for place in places if os.path.lexists(place)), None)

    def mask(self, unit: str) -> None:
        """Let a unit never start (systemctl(1), `mask`)."""
        (self._disk / UNIT_FOLDERS[0] / f"{unit}.service").symlink_to(MASKED)

    def enable(self, unit: str) -> None:
        """Let a unit start with the machine."""
        link = self._disk / WANTED_AT_START / f"{unit}.service"
        link.unlink(missing_ok=True)
        link.symlink_to(self.file(unit) or link)

    def disable(self, unit: str) -> None:
        """Let a unit not start with the machine."""
        (self._disk / WANTED_AT_START / f"{unit}.service").unlink(missing_ok=True)

    def enabled(self, unit: str) -> str | None:
        """What `is-enabled` prints; None where there is no such unit."""
        file = self.file(unit)
        if file is None:
            return None
        if _is_masked(file):
            return "masked"
        return "enabled" if os.path.lexists(self._disk / WANTED_AT_START / f"{unit}.service") else "disabled"

    def pid(self, unit: str) -> int | None:
        """The process of a unit, while it runs."""
        try:
            pid = int((self._run / f"{unit}.pid").read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return None if state == "Z" else pid  # the first process reaps it later

    def adopt(self, unit: str, pid: int) -> None:
        """Let a process be the unit's."""
        (self._run / f"{unit}.pid").write_text(str(pid))

    def start(self, unit: str) -> str | None:
        """Start a unit; None, or why not."""
        file = self.file(unit)
        if self.pid(unit):
            return None
        if file is None:
            return f"Unit {unit}.service not found."
        if _is_masked(file):
            return f"Unit {unit}.service is masked."
        settings = [line.partition("=")[::2] for line in file.read_text().splitlines()]
        (command,) = (value for name, value in settings if name == "ExecStart")
        environment = dict(
            word.split("=", 1) for name, value in settings if name == "Environment" for word in shlex.split(value)
        )
        return self.run(unit, [word.replace("%%", "%") for word in shlex.split(command)], environment)

    def run(
        self, unit: str, command: Sequence[str], environment: Mapping[str, str], errors: Path | None = None
    ) -> str | None:
        """Run a command as a unit; None, or why not. errors: where its standard error goes, if not into its log."""
        if self.refuse_jobs.exists():
            return "Connection timed out"
        log = self._disk / "var/log" / f"{unit}.log"
        with open(log, "ab") as output, open(errors or log, "ab") as error_output:
            try:
                process = subprocess.Popen(
                    command,
                    cwd="/",
                    env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=error_output,
                    start_new_session=True,
                )
            except OSError as error:
                return str(error)
        self.adopt(unit, process.pid)
        return None

    def stop(self, unit: str) -> None:
        """Stop a unit, and return when it has ended."""
        pid, deadline = self.pid(unit), time.monotonic() + STOP_LIMIT_S
        with contextlib.suppress(ProcessLookupError):
            while pid and self.pid(unit) == pid:
                os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
                time.sleep(0.02)


def _is_masked(file: Path) -> bool:
    return file.is_symlink() and os.readlink(file) == MASKED


def systemctl(units: Units, words: Sequence[str]) -> int:
    """The command line of systemctl; its exit status."""
    match [word.removesuffix(".service") for word in words if word not in ("-q", "--quiet", "--now", "--no-block")]:
        case ["daemon-reload"]:
            return 0
        case ["is-active", unit]:
            is_active = units.pid(unit) is not None
            print("active" if is_active else "inactive")
            return 0 if is_active else 3
        case ["is-enabled", unit]:
            return _print_enabled(unit, units.enabled(unit))
        case ["start" | "restart" as verb, unit]:
            if verb == "restart":
                units.stop(unit)
            return _tell(f"Failed to {verb} {unit}.service", units.start(unit))
        case ["stop", unit]:
            units.stop(unit)
            return 0
        case ["enable", unit] if units.file(unit):
            units.enable(unit)
            return 0
        case ["disable", unit]:
            units.disable(unit)
            return 0
        case _:
            return _tell("systemctl", f"this stand-in does not know: {' '.join(words)}")


def _print_enabled(unit: str, state: str | None) -> int:
    if state is None:
        return _tell(f"Failed to get unit file state for {unit}.service", "No such file or directory")
    print(state)
    return 0 if state == "enabled" else 1


def systemd_run(units: Units, words: Sequence[str]) -> int:
    """The command line of systemd-run, options first; its exit status."""
    left, unit, errors = list(words), "", None
    while left and left[0].startswith("-"):
        word = left.pop(0)
        if word.startswith("--unit="):
            unit = word.removeprefix("--unit=").removesuffix(".service")
        elif word.startswith("-pStandardError=file:"):
            errors = Path(word.removeprefix("-pStandardError=file:"))
        elif word not in ("-q", "--quiet", "--collect"):
            return _tell("systemd-run", f"this stand-in does not know {word}")
    if not unit or not left:
        return _tell("systemd-run", "this stand-in needs --unit= and a command")
    return _tell("Failed to start transient service unit", units.run(unit, left, {}, errors))


def _tell(what: str, problem: str | None) -> int:
    if problem is None:
        return 0
    print(f"{what}: {problem}", file=sys.stderr)
    return 5 if problem.endswith("not found.") else 1


if __name__ == "__main__":
    PROGRAMS = {"systemctl": systemctl, "systemd-run": systemd_run}
    sys.exit(PROGRAMS[sys.argv[2]](Units(Path(sys.argv[1])), sys.argv[3:]))
