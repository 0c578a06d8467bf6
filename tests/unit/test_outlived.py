"""What the tests start does not outlive a pytest that is killed, and can be interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import processes

CONFTEST = Path(__file__).resolve().parent.parent / "conftest.py"
STARTS = """
import os, subprocess, threading


def start(name, command, environment):
    program = 'echo $$ >"$0.new"; mv "$0.new" "$0"; exec "$@"'
    subprocess.run(["setsid", "-f", "sh", "-c", program, name, *command], env=environment, cwd="/", check=True)


def test_it(tmp_path):
    start("{0}/by-its-variable", ["sleep", "1000"], None)
    file = tmp_path / "file"
    file.touch()
    start("{0}/by-its-words", ["tail", "-f", str(file)], {{"PATH": os.environ["PATH"]}})
    below = 'env -i sh -c "echo \\$\\$ >$0.new; mv $0.new $0; exec sleep 1000" & wait'
    subprocess.Popen(["sh", "-c", below, "{0}/below-it", str(file)], env={{"PATH": os.environ["PATH"]}}, cwd="/")
    threading.Event().wait()
"""


def is_over(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("options", [[], ["-p", "xdist.plugin", "-n", "1"]], ids=["alone", "with workers"])
@pytest.mark.slow
def test_of_a_killed_run_no_process_is_left(tmp_path: Path, options: list[str]) -> None:
    started = tmp_path / "started"
    started.mkdir()
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_starts.py").write_text(STARTS.format(started))
    files = [started / name for name in ("by-its-variable", "by-its-words", "below-it")]
    pytest_alone = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        str(tmp_path / "base"),
    ]
    with subprocess.Popen(
        [*pytest_alone, *options, "."],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(CONFTEST.parent),
        },
        stdout=subprocess.DEVNULL,
    ) as run:
        try:
            processes.wait_until(
                "both run", lambda: all(file.exists() for file in files), alive=lambda: run.poll() is None
            )
        finally:
            run.kill()
    processes.wait_until("none is left", lambda: all(is_over(int(file.read_text())) for file in files))


def test_what_a_run_in_the_background_starts_can_be_interrupted() -> None:
    """A shell lets such a run ignore SIGINT, and what it starts would inherit that."""
    interrupted = "import conftest, subprocess; print(subprocess.run(['sh', '-c', 'kill -INT $$; exit 7']).returncode)"
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "background", sys.executable, "-c", interrupted],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CONFTEST.parent), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{-signal.SIGINT}\n"
