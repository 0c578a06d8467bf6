"""A few seconds of `make load` and of `make starts`, which judge by themselves. docs/reliability.md has the figures."""

from __future__ import annotations

import os
import subprocess

from emulator.process import PROJECT, PYTHON
from patience import LIMIT_S

PLACES = {"PYTHONPATH": f"{PROJECT / 'local'}:{PROJECT / 'layers/core'}", "PATH": os.environ["PATH"]}


def told(program: str, *words: str) -> str:
    """What `local/<program>` prints when all is well."""
    command = [str(PYTHON), str(PROJECT / "local" / program), *words]
    done = subprocess.run(command, env=PLACES, capture_output=True, text=True, timeout=10 * LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_fleet_that_reports_and_people_who_ask_are_all_answered_in_bounded_memory() -> None:
    printed = told("load.py", "--notebooks", "200", "--lookups", "10", "--seconds", "8", "--most-growth", "20")
    lines = {line.split()[0]: line.split()[1:3] for line in printed.splitlines() if line[:6] in ("report", "lookup")}
    assert lines["lookup"] == ["80", "0"]
    assert int(lines["report"][0]) > 10
    assert lines["report"][1] == "0"


def test_a_fleet_that_starts_at_once_is_connected_and_nothing_more_is_written() -> None:
    printed = told("starts.py", "--notebooks", "40", "--seconds", "4", "--no-status-tags", "--most-growth", "20")
    assert "Tagged and set up" in printed
    assert "2 × UpdateNotebookInstanceLifecycleConfig." in printed
    assert "Asked for: 40 addresses, all right; 0 wrong." in printed
