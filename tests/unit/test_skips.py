"""On a build server nothing is skipped: neither a test nor a whole file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts pytest

CONFTEST = Path(__file__).resolve().parent.parent / "conftest.py"
SKIPS = {
    "a test": "import pytest\n@pytest.mark.skip\ndef test_it() -> None: ...\n",
    "a test as it runs": "import pytest\ndef test_it() -> None:\n    pytest.skip('not here')\n",
    "a file": "import pytest\npytest.importorskip('there_is_no_such_module')\ndef test_it() -> None: ...\n",
}


@pytest.mark.parametrize(
    ("what", "ci", "word"),
    [*((what, "true", "CI does not allow") for what in SKIPS), ("a test", "false", "1 skipped")],
)
def test_what_becomes_of_a_skip(tmp_path: Path, what: str, ci: str, word: str) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_skipped.py").write_text(SKIPS[what])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "CI": ci,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(CONFTEST.parent),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert word in done.stdout
    assert (done.returncode in (0, 5)) == (ci == "false")  # 5: nothing was left to run
