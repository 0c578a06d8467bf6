"""A few seconds of both parts of `make load`, which judge by themselves. docs/reliability.md has the figures."""

from __future__ import annotations

import os
import subprocess

import pytest

from emulator.process import PROJECT, PYTHON
from patience import LIMIT_S

pytestmark = pytest.mark.takes_minutes

PLACES = {"PYTHONPATH": f"{PROJECT / 'local'}:{PROJECT / 'layers/core'}", "PATH": os.environ["PATH"]}


def told(program: str, *words: str) -> str:
    """What `local/<program>` prints when all is well."""
    command = [str(PYTHON), str(PROJECT / "local" / program), *words]
    done = subprocess.run(command, env=PLACES, capture_output=True, text=True, timeout=10 * LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("notebooks", "lookups", "seconds"),
    [
        (40, 5, 4),
        pytest.param(
            200,
            10,
            8,
            marks=pytest.mark.nightly(
                sibling="test_a_fleet_that_reports_and_people_who_ask_are_all_answered_in_bounded_memory"
            ),
        ),
    ],
)
def test_a_fleet_that_reports_and_people_who_ask_are_all_answered_in_bounded_memory(
    notebooks: int, lookups: int, seconds: int
) -> None:
    numbers = ("--notebooks", str(notebooks), "--lookups", str(lookups), "--seconds", str(seconds))
    printed = told("load.py", *numbers, "--most-growth", "20")
    lines = {line.split()[0]: line.split()[1:3] for line in printed.splitlines() if line[:6] in ("report", "lookup")}
    assert lines["lookup"] == [str(lookups * seconds), "0"]
    assert int(lines["report"][0]) > 0
    assert lines["report"][1] == "0"


@pytest.mark.parametrize(
    ("notebooks", "seconds"),
    [
        (8, 2),
        pytest.param(
            40,
            4,
            marks=pytest.mark.nightly(
                sibling="test_a_fleet_that_starts_at_once_is_connected_and_nothing_more_is_written"
            ),
        ),
    ],
)
def test_a_fleet_that_starts_at_once_is_connected_and_nothing_more_is_written(notebooks: int, seconds: int) -> None:
    numbers = ("--notebooks", str(notebooks), "--seconds", str(seconds))
    printed = told("starts.py", *numbers, "--no-status-tags", "--most-growth", "20")
    assert "Tagged and set up" in printed
    assert "× UpdateNotebookInstanceLifecycleConfig." in printed
    assert f"Asked for: {notebooks} addresses, all right; 0 wrong." in printed
