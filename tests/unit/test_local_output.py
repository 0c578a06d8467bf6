"""What the local run writes to: a reader may go away, and standard output may be closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import output

TELL = """
import sys, time
from output import standard_output

out = standard_output()
try:
    while True:
        out.write("a line\\n")
        out.flush()
        time.sleep(0.001)
        if "--once" in sys.argv:
            break
except KeyboardInterrupt:
    out.write("what is said afterwards goes nowhere\\n")
    out.flush()
    print("it was interrupted", file=sys.stderr)
"""
HERE = Path(output.__file__).parent


@pytest.mark.parametrize(
    ("command", "said", "why"),
    [
        ("$PYTHON -c '$TELL' | head -n 1", "a line\n", "it was interrupted\n"),
        ("$PYTHON -c '$TELL' --once | cat", "a line\n", ""),
        ("$PYTHON -c '$TELL' --once >&-", "", ""),
    ],
    ids=["the reader goes away", "the reader stays", "closed"],
)
def test_what_becomes_of_standard_output(command: str, said: str, why: str) -> None:
    script = command.replace("$PYTHON", f"'{sys.executable}'").replace("$TELL", TELL)
    done = subprocess.run(["bash", "-c", script], cwd=HERE, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (said, why)


def test_where_it_is_closed_no_file_takes_its_place() -> None:
    script = (
        "import output; output.standard_output(); print(open('/dev/zero').fileno() > 2, file=__import__('sys').stderr)"
    )
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -c \"$0\" >&-", script],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "True\n"
