"""A run that is killed, at whatever moment: the next one deletes what it created, and nothing of anybody else's."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator

import pytest
from support.verification_run import Verification, of_runs, picture

from processes import wait_until

pytestmark = pytest.mark.takes_minutes


@pytest.fixture(scope="module")
def verification() -> Iterator[Verification]:
    made = Verification()
    try:
        wait_until("their notebooks run", lambda: made.env.state("their-notebook") == "InService")
        wait_until("their notebooks run", lambda: made.env.state("nbssh-verify-notebook") == "InService")
        yield made
    finally:
        made.close()


def kill_after_lines(verification: Verification, lines: int, number: signal.Signals) -> int:
    """Start a run, and end it once its journal has so many lines, or it has ended; the exit status."""
    child = verification.start()
    wait_until("its journal grows", lambda: verification.lines_of_journals() >= lines or child.poll() is not None)
    child.send_signal(number)
    return child.wait()


@pytest.mark.parametrize("lines", [2, 6])
def test_killed_right_after_a_line_of_the_journal(verification: Verification, lines: int) -> None:
    before = picture(verification.env.emulator)
    assert of_runs(before) == []
    assert kill_after_lines(verification, lines, signal.SIGKILL) == -signal.SIGKILL
    assert verification.lines_of_journals() >= lines
    done = verification.run("--clean")
    assert done.returncode == 0, done.stdout + done.stderr
    assert verification.lines_of_journals() == 0
    assert picture(verification.env.emulator) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_it_delete_everything_by_itself(verification: Verification, number: signal.Signals) -> None:
    before = picture(verification.env.emulator)
    assert kill_after_lines(verification, 5, number) == 1
    assert verification.lines_of_journals() == 0
    assert picture(verification.env.emulator) == before


@pytest.mark.nightly(sibling="test_killed_right_after_a_line_of_the_journal")
@pytest.mark.parametrize("attempt", range(10))
def test_killed_at_a_random_moment(verification: Verification, attempt: int) -> None:
    """The next run cleans up before it begins, here with reading alone."""
    before = picture(verification.env.emulator)
    child = verification.start()
    moment = random.Random().uniform(1, 60)
    try:
        status: int | None = child.wait(moment)
    except subprocess.TimeoutExpired:
        child.kill()
        status = child.wait()
    done = verification.run("--without-cost", "--only", "name-case")
    assert done.returncode == 0, f"killed after {moment:.1f} s ({status}): {done.stdout}{done.stderr}"
    assert picture(verification.env.emulator) == before, f"attempt {attempt}, killed after {moment:.1f} s"
