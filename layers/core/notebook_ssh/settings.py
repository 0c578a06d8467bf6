"""The stack's settings as the functions see them: read once from the environment, checked, immutable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from notebook_ssh.model.stack import Bastion, EndpointSettings

ENDED_KINDS: dict[str, tuple[str, ...]] = {
    "granted": ("certificate", "central"),
    "all": ("certificate", "central", "own"),
    "none": (),
}
"""What the parameter EndSessions lets the stack end (model/session_ends.py): sessions by how they logged in."""


class Settings(NamedTuple):
    """What `template.yaml` passes to every function under `Globals`. Empty text means: not set.

    stack: the stack's name; it owns blocks, rules and records under this name.
    tag_key: the tag that users set; the other keys derive from it (`ssh`, `ssh-users`, …).
    api_url: base address of the API with its stage, no slash at the end.
    sync_seconds: time between two reports of an agent.
    default_config: the lifecycle configuration made for notebooks that have none.
    keys_path: SSM path of the central public keys, no slash at the end.
    alarm_topic: ARN of the SNS topic to which mails for the admin are published.
    dry_run: plan, record and log, but write nothing outside the table.
    upgrade_after_hours: hours for which scripts keep a block that works once the stack has another; 0: none.
    sweep_minutes: time between two sweeps.
    paused: every notebook closes, rules are revoked, lookups and wakes are refused, scripts stay as they are.
    allow_loopback: a notebook may report an address of this very machine. Set by the local run alone.
    install_sshd: the agent may install openssh-server on a notebook that has no sshd.
    status_tags: show status and address as tags on the notebook, for the AWS console.
    certificates: the stack has certificates: lists say so to clients.
    certificate_key: ARN of the KMS key that signs certificates; empty: no certificates.
    certificate_authorities: public keys, `type base64`, whose certificates notebooks admit; the first is of that key.
    certificate_seconds: for how long a certificate is good at most.
    ngrok_endpoints: how many endpoints the ngrok plan has; 0: unknown.
    access_days: for how many days the table keeps who was let in where; 0: it does not.
    end_sessions: the kinds of open sessions that notebooks end when access does (`ENDED_KINDS`).
    """

    stack: str
    tag_key: str
    table: str
    api_url: str
    region: str
    sync_seconds: int
    default_config: str
    ngrok_secret: str
    keys_path: str
    notebook_queue: str
    rule_queue: str
    bastion: Bastion | None
    dry_run: bool
    endpoint: EndpointSettings | None = None
    alarm_topic: str = ""
    ngrok_download: str = ""
    ngrok_sha256: str = ""
    ngrok_endpoints: int = 0
    install_sshd: bool = False
    status_tags: bool = True
    paused: bool = False
    upgrade_after_hours: int = 24
    sweep_minutes: int = 15
    allow_loopback: bool = False
    certificates: bool = False
    certificate_key: str = ""
    certificate_authorities: tuple[str, ...] = ()
    certificate_seconds: int = 3600
    access_days: int = 0
    end_sessions: tuple[str, ...] = ENDED_KINDS["granted"]

    @property
    def entrance_vpcs(self) -> frozenset[str]:
        """The VPCs of the bastion and of the endpoint: in these alone may the stack change rules."""
        return frozenset(each.vpc for each in (self.bastion, self.endpoint) if each)

    @property
    def observes_only(self) -> bool:
        """Whether notebooks and configurations are observed and recorded, and nothing of theirs is changed."""
        return self.dry_run or self.paused


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in `environment`.

    Raises KeyError naming the variable when one that has no default is missing: a deployment fault,
    caught by the template's tests, never at run time.
    """
    group = environment.get("BASTION_SECURITY_GROUP", "")
    bastion = (
        Bastion(
            host=environment["BASTION_HOST"],
            user=environment.get("BASTION_USER", "") or "ec2-user",
            security_group=group,
            vpc=environment["BASTION_VPC"],
            client_cidrs=tuple(environment.get("BASTION_CLIENT_CIDRS", "").replace(",", " ").split()),
            host_keys=tuple(
                " ".join(key.split()) for key in environment.get("BASTION_HOST_KEYS", "").split(",") if key
            ),
        )
        if group
        else None
    )
    endpoint = environment.get("ENDPOINT_ID", "")
    return Settings(
        stack=environment["STACK_NAME"],
        tag_key=environment.get("TAG_KEY", "ssh"),
        table=environment["TABLE_NAME"],
        api_url=environment.get("API_URL", ""),
        region=environment["AWS_REGION"],
        sync_seconds=int(environment.get("SYNC_SECONDS", "300")),
        default_config=environment.get("DEFAULT_LIFECYCLE_CONFIG", "better-sagemaker"),
        ngrok_secret=environment.get("NGROK_SECRET", ""),
        keys_path=environment.get("KEYS_PATH", "").rstrip("/"),
        notebook_queue=environment.get("NOTEBOOK_QUEUE", ""),
        rule_queue=environment.get("RULE_QUEUE", ""),
        bastion=bastion,
        endpoint=EndpointSettings(endpoint, environment["ENDPOINT_VPC"]) if endpoint else None,
        dry_run=environment.get("DRY_RUN", "false") == "true",
        alarm_topic=environment.get("ALARM_TOPIC", ""),
        ngrok_download=environment.get("NGROK_DOWNLOAD", ""),
        ngrok_sha256=environment.get("NGROK_SHA256", ""),
        ngrok_endpoints=int(environment.get("NGROK_ENDPOINTS", "0")),
        install_sshd=environment.get("INSTALL_SSHD", "false") == "true",
        paused=environment.get("PAUSED", "false") == "true",
        allow_loopback=environment.get("ALLOW_LOOPBACK_ADDRESSES", "false") == "true",
        upgrade_after_hours=int(environment.get("UPGRADE_AFTER_HOURS", "24")),
        sweep_minutes=int(environment.get("SWEEP_MINUTES", "15")),
        status_tags=environment.get("STATUS_TAGS", "true") == "true",
        certificates=environment.get("CERTIFICATES", "false") == "true",
        certificate_key=environment.get("CERTIFICATE_KEY", ""),
        certificate_authorities=tuple(filter(None, environment.get("CERTIFICATE_AUTHORITIES", "").split(","))),
        certificate_seconds=int(environment.get("CERTIFICATE_SECONDS", "3600")),
        access_days=int(environment.get("ACCESS_DAYS", "0")),
        end_sessions=ENDED_KINDS[environment.get("END_SESSIONS", "granted")],
    )
