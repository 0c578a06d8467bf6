"""Facts about a notebook: what its on-start script saw there (probe.sh)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from notebook_ssh_verify.experiments.base import Experiment, Need
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab


def _printed(lab: Lab, fact: str) -> Mapping[str, str]:
    """Return what the probe of a fact printed, and keep it as evidence."""
    found = lab.probes.of(fact)
    lab.account.note(
        f"on-start script, {fact}", ", ".join(f"{key}={value}" for key, value in found.items()) or "nothing"
    )
    return found


class Sshd(NamedTuple):
    """The system's sshd at a start without an agent. active, enabled: systemctl's words, "" without systemctl.

    banner: the first line that port 22 of the loopback sent, "" if it sent none. has_agent: the stack's block was in the
    script, so its agent may have started sshd. was_seen: the probe printed anything.
    """

    was_seen: bool
    is_installed: bool
    active: str
    enabled: str
    banner: str
    has_agent: bool


def observe_sshd(lab: Lab) -> Sshd:
    """Read what the probe printed."""
    found = _printed(lab, "sshd-runs")
    return Sshd(
        was_seen=bool(found),
        is_installed=found.get("installed") == "yes",
        active=found.get("active", ""),
        enabled=found.get("enabled", ""),
        banner=found.get("banner", ""),
        has_agent=found.get("agent") == "yes",
    )


def decide_sshd(seen: Sshd) -> Decision:
    """It must be installed and serve by itself."""
    serves = seen.banner.startswith("SSH-")
    state = f"systemctl says {seen.active}, {seen.enabled}" if seen.active else "there is no systemctl to ask"
    if not seen.was_seen:
        return Undecided("the on-start script printed nothing about sshd")
    if serves and seen.has_agent and seen.enabled != "enabled":
        return Undecided(f"port 22 answers as SSH, but the agent may have started sshd ({state})")
    if serves:
        return Holds(f"port 22 answers {seen.banner} ({state})")
    if not seen.is_installed:
        return Refuted("sshd is not installed, and port 22 does not answer")
    return Refuted(f"sshd is installed, and port 22 does not answer as SSH ({state})")


class Unit(NamedTuple):
    """A unit that the script started. status: of `systemctl start`, 124 after 15 seconds. active: systemctl's word."""

    has_systemctl: bool | None
    status: str
    active: str


def observe_unit(lab: Lab) -> Unit:
    """Read what the probe printed."""
    found = _printed(lab, "systemd-on-start")
    told = found.get("systemctl")
    return Unit(None if told is None else told == "yes", found.get("status", ""), found.get("active", ""))


def decide_unit(seen: Unit) -> Decision:
    """The unit must be active after `systemctl start`."""
    match seen:
        case Unit(has_systemctl=None):
            return Undecided("the on-start script printed nothing about systemctl")
        case Unit(has_systemctl=False):
            return Refuted("there is no systemctl")
        case Unit(_, "0", "active"):
            return Holds("a unit of the script's own was active after systemctl start")
        case Unit(_, "", _) | Unit(_, _, ""):
            return Undecided("the on-start script ended before it had asked for its unit")
        case Unit(_, "124", active):
            return Refuted(f"systemctl start did not return within 15 seconds, and its unit was {active}")
        case Unit(_, status, active):
            return Refuted(f"systemctl start ended with status {status}, and its unit was {active}")


class FirstRole(NamedTuple):
    """The first role that IMDSv2 lists. owner: the role whose credentials it hands out, as STS says; error: why it did not."""

    listed: str
    owner: str
    error: str
    execution_role: str


def observe_role(lab: Lab) -> FirstRole:
    """Read what the probe printed, and the notebook's execution role."""
    found = _printed(lab, "imds-role")
    described = lab.account.call("sagemaker", "describe_notebook_instance", NotebookInstanceName=lab.notebooks[0])
    role = str(described["RoleArn"]).rpartition("/")[2]
    return FirstRole(found.get("listed", ""), found.get("owner", ""), found.get("error", ""), role)


def decide_role(seen: FirstRole) -> Decision:
    """The credentials must be the execution role's, whatever the name is that is listed."""
    name = "under the execution role's name"
    if seen.listed != seen.execution_role:
        name = f"under the name {seen.listed}"
    match seen:
        case FirstRole(listed=""):
            return Undecided("IMDSv2 listed no role")
        case FirstRole(owner="", listed=listed, execution_role=role) if listed == role:
            return Holds("the first role that IMDSv2 lists is the execution role, by its name")
        case FirstRole(owner="", error=error):
            return Undecided(f"IMDSv2 lists a role {name}, and STS did not say whose its credentials are ({error})")
        case FirstRole(owner=owner, execution_role=role) if owner == role:
            return Holds(f"IMDSv2 hands out the execution role's credentials, {name}")
        case FirstRole(owner=owner):
            return Refuted(f"IMDSv2 hands out the credentials of the role {owner}, {name}")


class OtherPort(NamedTuple):
    """An sshd on a high port of the loopback. mode: getenforce's word, or "none". valid: `sshd -t` accepted it."""

    mode: str
    is_valid: bool | None
    listens: bool | None
    error: str


_YES = {"yes": True, "no": False}


def observe_port(lab: Lab) -> OtherPort:
    """Read what the probe printed."""
    found = _printed(lab, "selinux-port")
    valid = found.get("valid")
    return OtherPort(
        found.get("mode", ""),
        None if valid is None else valid == "0",
        _YES.get(found.get("listens", "")),
        found.get("error", ""),
    )


def decide_port(seen: OtherPort) -> Decision:
    """It must listen."""
    selinux = "there is no SELinux" if seen.mode == "none" else f"SELinux is {seen.mode.lower()}"
    said = seen.error or "without a word"
    match seen:
        case OtherPort(mode=""):
            return Undecided("the on-start script printed nothing about SELinux")
        case OtherPort(is_valid=None):
            return Undecided(f"there was no sshd to try with ({selinux})")
        case OtherPort(listens=True):
            return Holds(f"an sshd listened on a high port ({selinux})")
        case OtherPort(is_valid=False):
            return Undecided("sshd refused the configuration that was to be tried")
        case OtherPort(listens=None):
            return Undecided("the on-start script ended before sshd had been tried")
        case OtherPort(error=error) if "permission denied" in error.lower():
            return Refuted(f"an sshd could not listen on a high port ({selinux}): {error}")
        case OtherPort(mode="Enforcing") if "in use" not in seen.error:
            return Refuted(f"an sshd did not listen on a high port ({selinux}): {said}")
        case _:
            return Undecided(f"an sshd did not listen on a high port ({selinux}): {said}")


EXPERIMENTS = (
    Experiment(
        "sshd-runs",
        "look on the notebook for sshd and what answers on port 22",
        frozenset({Need.PROBE}),
        observe_sshd,
        decide_sshd,
    ),
    Experiment(
        "systemd-on-start",
        "start a unit on the notebook from its on-start script, and stop it",
        frozenset({Need.PROBE}),
        observe_unit,
        decide_unit,
    ),
    Experiment(
        "imds-role",
        "ask STS on the notebook whose credentials IMDSv2's first role has",
        frozenset({Need.PROBE, Need.NOTEBOOK}),
        observe_role,
        decide_role,
    ),
    Experiment(
        "selinux-port",
        "let an sshd on the notebook listen on a high port of the loopback for a second",
        frozenset({Need.PROBE}),
        observe_port,
        decide_port,
    ),
)
