"""docs/hazards.md names only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_every_hazard_has_its_test() -> None:
    table = (PROJECT / "docs" / "hazards.md").read_text()
    files = [PROJECT / path for path in re.findall(r"`(tests/[\w/]+\.py)`", table)]
    tests = {name for path in files for name in re.findall(r"^ *def (test_\w+)", path.read_text(), re.MULTILINE)}
    headings = ("| by hand |", "| hazard |")
    rows = [line for line in table.splitlines() if line.startswith("| ") and "**" not in line]
    rows = [row for row in rows if not row.startswith(headings)]
    assert len(rows) > 30
    assert set(re.findall(r"`(test_\w+)`", table)) <= tests
    assert [row for row in rows if "test" not in row.rpartition(" | ")[2]] == []
