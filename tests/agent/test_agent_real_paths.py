"""The agent with a notebook's real paths, a real ec2-user without sudo, and a real sshd on port 22."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import needs
from support.agent_env import PROJECT

from patience import LIMIT_S

NIGHTLY = pytest.mark.nightly(sibling="test_root_and_ec2_user_each_do_their_part")


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "scenario", ["systemd", "sessions", pytest.param("users", marks=NIGHTLY), pytest.param("sshd", marks=NIGHTLY)]
)
def test_root_and_ec2_user_each_do_their_part(scenario: str) -> None:
    """The scenarios are in agent_real_paths.py; the output explains a failure."""
    needs.root("for a user and namespaces of its own")
    needs.mounts()
    needs.networks()
    for name in ("rsync", "scp", "setpriv", "sftp", "sshd"):
        needs.program(name)
    command = ["unshare", "--mount", "--propagation", "unchanged", "--net", "--pid", "--fork", "--kill-child"]
    completed = subprocess.run(
        [*command, sys.executable, PROJECT / "tests" / "support" / "agent_real_paths.py", scenario],
        capture_output=True,
        text=True,
        timeout=10 * LIMIT_S,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{PROJECT / 'tests'}:{PROJECT / 'local'}:{PROJECT / 'layers/core'}"},
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
