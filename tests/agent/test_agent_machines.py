"""The agent's suite again, on notebooks on which something is not as usual.

Other machines are in agent_real_paths.py: no sshd and a masked one (`sshd`), a volume that is full when the agent starts
and no systemd (`users`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.agent_env import PROJECT

from patience import LIMIT_S

SUITE = ["test_agent_exchange.py", "test_agent_hostile.py", "test_agent_ngrok.py", "test_agent_signing.py"]

OWN = {
    "late proxy": ["TestProxies", "first_boot_without_a_network", "slow_stack", "credentials", "log_that_is_full"],
    "clock ahead": ["wrong_by_hours"],
    "clock behind": ["wrong_by_hours"],
}
"""Tests that arrange the same themselves, or its opposite."""


def run_suite(**environment: str) -> None:
    """Run the suite in a process of its own; fail with its output."""
    left_out = " or ".join(OWN.get(environment.get("AGENT_MACHINE", ""), []))
    chosen = ["-k", f"not ({left_out})"] if left_out else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", *chosen, *SUITE],
        cwd=PROJECT / "tests/agent",
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=10 * LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


@pytest.mark.nightly(sibling="tests/agent/test_agent_ngrok.py::test_a_clock_that_is_wrong_by_hours_is_corrected")
@pytest.mark.parametrize("machine", ["clock ahead", "clock behind"])
def test_a_clock_that_is_a_day_off(machine: str) -> None:
    run_suite(AGENT_MACHINE=machine)


@pytest.mark.nightly(
    sibling="tests/agent/test_agent_exchange.py::test_that_the_on_start_script_sets_after_the_agent_started_are_used"
)
def test_a_proxy_that_is_set_late() -> None:
    run_suite(AGENT_MACHINE="late proxy")


@pytest.mark.nightly(sibling="tests/agent/test_agent_signing.py::test_needs_no_library_but_the_standard_one")
def test_a_python_without_botocore(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True, timeout=LIMIT_S)
    run_suite(AGENT_PYTHON=str(tmp_path / "bare/bin/python"))


@pytest.mark.nightly(sibling="tests/agent/test_agent_texts.py::test_the_language_is_python_3_9")
def test_a_real_python_3_9() -> None:
    """The system's on notebook-al2023-v1: $PYTHON39, or python3.9."""
    found = subprocess.run(
        [os.environ.get("PYTHON39", "python3.9"), "-c", "import sys; print(sys.executable, *sys.version_info[:2])"],
        capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    if not found.stdout.endswith(" 3 9\n"):
        pytest.skip("needs Python 3.9: name one with PYTHON39=…")
    run_suite(AGENT_PYTHON=found.stdout.split()[0])
