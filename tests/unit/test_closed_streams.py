"""A program of the local run may be started with its standard streams closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import processes

SCRIPT = """
import os, sys, processes

processes.open_closed_streams()
print("out")
print("err", file=sys.stderr)
taken = open("/dev/zero").fileno()
with open(sys.argv[1], "w") as file:
    print(sys.stdin.read(), taken > 2, all(os.get_inheritable(number) for number in range(3)), file=file)
"""


@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leads_nowhere(closed: str, tmp_path: Path) -> None:
    command = f"exec '{sys.executable}' -c \"$0\" '{tmp_path}/told' {closed}"
    done = subprocess.run(
        ["bash", "-c", command, SCRIPT],
        cwd=Path(processes.__file__).parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ("" if " >&-" in f" {closed}" else "out\n")
    assert done.stderr == ("" if "2>&-" in closed else "err\n")
    assert (tmp_path / "told").read_text() == " True True\n"
