"""docs/hazards.md names only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_every_hazard_has_its_test() -> None:
    table = (PROJECT / "docs" / "hazards.md").read_text()
    files = [PROJECT / path for path in re.findall(r"`(tests/[\w/]+\.py)`", table)]
    tests = {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    rows = [line for line in table.splitlines() if line.startswith("| ") and "**" not in line][2:]
    assert len(rows) > 30
    assert set(re.findall(r"`(test_\w+)`", table)) <= tests
    assert all("test" in row or row.endswith("R |") or "| P" in row for row in rows)
