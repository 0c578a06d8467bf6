"""A few seconds of `make load`: every request answered, and no memory kept for it. docs/reliability.md has the figures."""

from __future__ import annotations

import os
import subprocess

from emulator.process import PROJECT, PYTHON

COMMAND = [str(PYTHON), str(PROJECT / "local/load.py")]
PLACES = {"PYTHONPATH": f"{PROJECT / 'local'}:{PROJECT / 'layers/core'}", "PATH": os.environ["PATH"]}


def loaded(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], env=PLACES, capture_output=True, text=True, timeout=180, check=False)


def test_a_fleet_that_reports_and_people_who_ask_are_all_answered_in_bounded_memory() -> None:
    done = loaded("--notebooks", "200", "--lookups", "10", "--seconds", "8", "--most-growth", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    told = {line.split()[0]: line.split()[1:3] for line in done.stdout.splitlines() if line[:6] in ("report", "lookup")}
    assert told["lookup"] == ["80", "0"]
    assert int(told["report"][0]) > 10
    assert told["report"][1] == "0"
