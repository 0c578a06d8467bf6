"""Problems that the model derives from a record, which check a problem belongs to, and the remedies of problems."""

from __future__ import annotations

from notebook_ssh.errors import Problem
from notebook_ssh.model.text import iso_time

REMEDIES = {
    "agent-stuck": "Read /var/log/notebook-ssh.log in a terminal of its Jupyter; a stop and a start brings a new agent.",
    "config-too-large": "Once the script is short enough, the stack does the rest.",
    "config-not-shell": "Once a shell runs the script, the stack does the rest.",
    "block-damaged": "Once those lines are gone, the stack does the rest.",
    "not-in-vpc": "After either, the stack does the rest.",
    "no-bastion": "Once either is done, the stack does the rest.",
    "no-endpoint": "Once either is done, the stack does the rest.",
    "ngrok-token-missing": "Once the secret holds the token, the agent picks it up at its next report.",
    "ngrok-token-invalid": "Once the secret holds a valid token, the agent picks it up at its next report.",
    "ngrok-card-required": "Once there is a card, the agent connects by itself; nothing is charged for it.",
}
"""The next step of problems whose message does not say it all: what to do, or what happens once that is done."""

PROBLEM_OWNER = {
    "platform-unsupported": "configuration",
    "no-bastion": "rule",
    "no-endpoint": "rule",
    "bastion-gone": "rule",
    "endpoint-gone": "rule",
    "endpoint-client-ip": "rule",
    "not-in-vpc": "rule",
    "other-vpc": "rule",
    "group-gone": "rule",
    "client-cidr-invalid": "rule",
    "no-keys": "keys",
    "files": "agent",
    "disk-full": "agent",
    "setup-by-hand": "agent",
}
"""The check that a problem belongs to, by its code."""

_OWNER_OF_PREFIX = (
    ("rule-", "rule"),
    ("keys-", "keys"),
    ("central-key-", "keys"),
    ("agent-", "agent"),
    ("sshd-", "agent"),
    ("api-", "agent"),
)


AGENT_FAILED = "agent-failed"
"""The code in place of one that is not in `CODES`."""

CODES = frozenset(
    {
        *("invalid-tag", "config-too-large", "config-not-shell", "config-line-ends", "block-damaged"),
        *("not-detached", "notebook-failed"),
        *("platform-unsupported", "not-allowed", "paused"),
        *("agent-silent", "agent-stuck", AGENT_FAILED, "agent-outdated", "files", "disk-full"),
        "setup-by-hand",
        *("sshd-down", "sshd-missing", "sshd-port-taken"),
        # Why a report failed (layers/notebook_agent/worker/causes.py).
        *("api-unreachable", "api-name-unknown", "api-certificate", "api-proxy-refused", "api-proxy-page"),
        *("api-no-credentials", "api-credentials-refused", "api-clock", "api-not-allowed", "api-private-endpoint"),
        *("api-not-found", "api-refused", "api-busy", "api-unavailable"),
        *("ngrok-token-missing", "ngrok-token-invalid", "ngrok-token-not-granted", "ngrok-card-required"),
        *(
            "ngrok-session-limit",
            "ngrok-monthly-limit",
            "ngrok-proxy-plan",
            "ngrok-address-refused",
            "ngrok-address-busy",
            "ngrok-other-endpoint",
            "ngrok-agent-old",
        ),
        *("ngrok-download", "ngrok-config", "ngrok-failed", "ngrok-ended", "ngrok-unreachable"),
        *("no-bastion", "bastion-gone", "not-in-vpc", "other-vpc", "group-gone", "client-cidr-invalid"),
        *("no-endpoint", "endpoint-gone", "endpoint-client-ip"),
        *("rule-limit", "rule-refused", "rule-stuck"),
        *("no-keys", "central-key-missing", "central-key-malformed", "central-key-not-here"),
    }
)
"""Every code of docs/statuses.md. Codes are shown in mails, tags and events, so a notebook can report no other."""


def problem_owner(problem: Problem, default: str) -> str:
    """Return the name of the check that `problem` belongs to; `default` if its code belongs to none in particular."""
    if owner := PROBLEM_OWNER.get(problem.code):
        return owner
    return next((owner for prefix, owner in _OWNER_OF_PREFIX if problem.code.startswith(prefix)), default)


def remedy_of(problem: Problem) -> str:
    """Return what to do about `problem`."""
    return REMEDIES.get(problem.code, "Do what the message says.")


def silent_since(received_at: int) -> Problem:
    """The agent has stopped reporting."""
    return Problem("agent-silent", f"No report since {iso_time(received_at)}.")


def never_reported(name: str, started_at: int) -> Problem:
    """The agent has not reported since the notebook started."""
    return Problem(
        "agent-silent",
        f"The agent on {name} has not reported since the notebook started at {iso_time(started_at)}: it has no route to "
        "the API (a NAT gateway, or an execute-api endpoint together with a private API), or it could not run.",
    )


def agent_failed(name: str) -> Problem:
    """The agent reported a failure without a problem."""
    return Problem(AGENT_FAILED, f"The agent on {name} failed without a reason: see /var/log/notebook-ssh.log there.")


def agent_stuck(name: str, since: int) -> Problem:
    """The agent has been connecting for too long without reporting a problem."""
    return Problem(
        "agent-stuck",
        f"The agent on {name} has been connecting since {iso_time(since)} and does not report why.",
    )


def notebook_failed(name: str, reason: str) -> Problem:
    """SageMaker could not start the notebook. reason: an excerpt of its `FailureReason`, or ""."""
    why = f'it reports "{reason}"; see' if reason else "see its failure reason and"
    return Problem("notebook-failed", f"SageMaker could not start {name}: {why} its lifecycle log.")


def platform_unsupported(name: str, platform: str) -> Problem:
    """The notebook is on a platform for which there is no agent."""
    return Problem(
        "platform-unsupported",
        f"{name} is on {platform}, which AWS has ended and does not start again once it is stopped: save what is not in "
        f"~/SageMaker, stop it, and run aws sagemaker update-notebook-instance --notebook-instance-name {name} "
        "--platform-identifier notebook-al2023-v1, or create a new notebook.",
    )


def no_endpoint() -> Problem:
    """The stack has no EC2 Instance Connect Endpoint."""
    return Problem(
        "no-endpoint",
        "This stack was deployed without an EC2 Instance Connect Endpoint: set its endpoint parameters, or set the tag to"
        " ngrok.",
    )


def no_keys(name: str) -> Problem:
    """The notebook has no public key."""
    return Problem(
        "no-keys",
        f"{name} has no public key, so no user can log in: write one into ~/SageMaker/ssh/authorized_keys there, "
        "then run copy-ssh-keys.",
    )
