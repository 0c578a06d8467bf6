"""What the experiments on notebooks decide, as tables over what they see."""

from __future__ import annotations

import pytest
from notebook_ssh_verify.experiments.notebook import (
    FirstRole,
    OtherPort,
    Sshd,
    Unit,
    decide_port,
    decide_role,
    decide_sshd,
    decide_unit,
)
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided

BANNER = "SSH-2.0-OpenSSH_8.7"


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (
            Sshd(True, True, "active", "enabled", BANNER, False),
            Holds(f"port 22 answers {BANNER} (systemctl says active, enabled)"),
        ),
        (
            Sshd(True, True, "active", "disabled", BANNER, False),
            Holds(f"port 22 answers {BANNER} (systemctl says active, disabled)"),
        ),
        (Sshd(True, True, "", "", BANNER, False), Holds(f"port 22 answers {BANNER} (there is no systemctl to ask)")),
        (
            Sshd(True, True, "active", "enabled", BANNER, True),
            Holds(f"port 22 answers {BANNER} (systemctl says active, enabled)"),
        ),
        (
            Sshd(True, True, "active", "disabled", BANNER, True),
            Undecided("port 22 answers as SSH, but the agent may have started sshd (systemctl says active, disabled)"),
        ),
        (
            Sshd(True, True, "", "", BANNER, True),
            Undecided("port 22 answers as SSH, but the agent may have started sshd (there is no systemctl to ask)"),
        ),
        (
            Sshd(True, False, "inactive", "not-found", "", False),
            Refuted("sshd is not installed, and port 22 does not answer"),
        ),
        (
            Sshd(True, True, "inactive", "masked", "", False),
            Refuted("sshd is installed, and port 22 does not answer as SSH (systemctl says inactive, masked)"),
        ),
        (
            Sshd(True, True, "active", "enabled", "220 mail", False),
            Refuted("sshd is installed, and port 22 does not answer as SSH (systemctl says active, enabled)"),
        ),
        (Sshd(False, False, "", "", "", False), Undecided("the on-start script printed nothing about sshd")),
    ],
)
def test_sshd_runs_if_it_answers_and_no_agent_started_it(seen: Sshd, expected: Decision) -> None:
    assert decide_sshd(seen) == expected


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Unit(True, "0", "active"), Holds("a unit of the script's own was active after systemctl start")),
        (Unit(True, "1", "failed"), Refuted("systemctl start ended with status 1, and its unit was failed")),
        (Unit(True, "0", "inactive"), Refuted("systemctl start ended with status 0, and its unit was inactive")),
        (
            Unit(True, "124", "activating"),
            Refuted("systemctl start did not return within 15 seconds, and its unit was activating"),
        ),
        (Unit(False, "", ""), Refuted("there is no systemctl")),
        (Unit(True, "", ""), Undecided("the on-start script ended before it had asked for its unit")),
        (Unit(True, "0", ""), Undecided("the on-start script ended before it had asked for its unit")),
        (Unit(None, "", ""), Undecided("the on-start script printed nothing about systemctl")),
    ],
)
def test_a_script_may_start_units_if_its_own_was_active(seen: Unit, expected: Decision) -> None:
    assert decide_unit(seen) == expected


BASE = "BaseNotebookInstanceEc2InstanceRole"


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (
            FirstRole("team", "team", "", "team"),
            Holds("IMDSv2 hands out the execution role's credentials, under the execution role's name"),
        ),
        (
            FirstRole(BASE, "team", "", "team"),
            Holds(f"IMDSv2 hands out the execution role's credentials, under the name {BASE}"),
        ),
        (
            FirstRole(BASE, BASE, "", "team"),
            Refuted(f"IMDSv2 hands out the credentials of the role {BASE}, under the name {BASE}"),
        ),
        (
            FirstRole("team", BASE, "", "team"),
            Refuted(f"IMDSv2 hands out the credentials of the role {BASE}, under the execution role's name"),
        ),
        (
            FirstRole("team", "", "curl: (28)", "team"),
            Holds("the first role that IMDSv2 lists is the execution role, by its name"),
        ),
        (
            FirstRole(BASE, "", "curl: (28)", "team"),
            Undecided(
                f"IMDSv2 lists a role under the name {BASE}, and STS did not say whose its credentials are (curl: (28))"
            ),
        ),
        (FirstRole("", "", "", "team"), Undecided("IMDSv2 listed no role")),
    ],
)
def test_whose_the_credentials_are_counts_more_than_the_name(seen: FirstRole, expected: Decision) -> None:
    assert decide_role(seen) == expected


DENIED = "error: Bind to port 40001 on 127.0.0.1 failed: Permission denied."
IN_USE = "error: Bind to port 40001 on 127.0.0.1 failed: Address already in use."


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (OtherPort("Enforcing", True, True, ""), Holds("an sshd listened on a high port (SELinux is enforcing)")),
        (OtherPort("Permissive", True, True, ""), Holds("an sshd listened on a high port (SELinux is permissive)")),
        (OtherPort("none", True, True, ""), Holds("an sshd listened on a high port (there is no SELinux)")),
        (
            OtherPort("Enforcing", True, False, DENIED),
            Refuted(f"an sshd could not listen on a high port (SELinux is enforcing): {DENIED}"),
        ),
        (
            OtherPort("Enforcing", True, False, ""),
            Refuted("an sshd did not listen on a high port (SELinux is enforcing): without a word"),
        ),
        (
            OtherPort("Enforcing", True, False, IN_USE),
            Undecided(f"an sshd did not listen on a high port (SELinux is enforcing): {IN_USE}"),
        ),
        (
            OtherPort("Permissive", True, False, ""),
            Undecided("an sshd did not listen on a high port (SELinux is permissive): without a word"),
        ),
        (OtherPort("Permissive", False, False, ""), Undecided("sshd refused the configuration that was to be tried")),
        (OtherPort("Permissive", True, None, ""), Undecided("the on-start script ended before sshd had been tried")),
        (OtherPort("Disabled", None, None, ""), Undecided("there was no sshd to try with (SELinux is disabled)")),
        (OtherPort("", None, None, ""), Undecided("the on-start script printed nothing about SELinux")),
    ],
)
def test_selinux_lets_sshd_listen_if_it_did(seen: OtherPort, expected: Decision) -> None:
    assert decide_port(seen) == expected
