"""Facts about EC2 Instance Connect Endpoints: tunnels to the run's first notebook, signed as the client signs them."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from botocore.httpsession import get_cert_path
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from notebook_ssh_client.endpoint import BUSY_STATUSES, DENIED_CODES, presigned_url
from notebook_ssh_client.ssh_address import Endpoint
from notebook_ssh_verify.account import Account
from notebook_ssh_verify.experiments.base import Experiment, Need
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.notebooks import undone

SSH, OTHER_PORT, REMOTE_DESKTOP = 22, 2222, 3389
"""Ports: the one of this mode, one that no endpoint opens, and the other one that it opens, on which no notebook listens."""

OPEN_LIMIT_S = 20.0
PONG_LIMIT_S = 5.0
ANSWER_LIMIT_S = 60.0
"""Seconds for a byte, or for the endpoint to give up an address that does not answer."""

RULES_LIMIT_S = 300.0
"""Seconds until the stack's rules admit the endpoint: without events that is the next sweep, of two minutes here."""

NO_TARGET = "the stack has no endpoint, or the notebook no address in the VPC"
WRONG_PORT_CODE = "InvalidParameter"
NO_ANSWER = "Unable to connect to target"


class Refused(NamedTuple):
    """The endpoint refused the request. status: of HTTP; code and message: AWS's own."""

    status: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"refused with {self.status} {self.code}: {self.message}".rstrip(": ")


class Closed(NamedTuple):
    """The tunnel was opened, and closed before a byte came through it. reason: the endpoint's."""

    reason: str

    def __str__(self) -> str:
        return f"opened, and closed ({self.reason})"


class Opened(NamedTuple):
    """The tunnel was opened. first: what came through it first, "" if nothing came in ANSWER_LIMIT_S."""

    first: str

    def __str__(self) -> str:
        return f"opened, and the first that came was {self.first}" if self.first else "opened, and nothing came"


class NoAnswer(NamedTuple):
    """Nothing is known: the endpoint could not be asked."""

    why: str

    def __str__(self) -> str:
        return f"not answered: {self.why}"


Outcome = Refused | Closed | Opened | NoAnswer


class Target(NamedTuple):
    """A notebook's address, and the endpoint that leads to it."""

    endpoint: Endpoint
    private_ip: str
    groups: tuple[str, ...]
    endpoint_groups: tuple[str, ...]


def find_target(lab: Lab) -> Target | None:
    """Return where the first notebook is, if the stack has an endpoint and it has an address. Raises AwsError."""
    endpoint_id, account = lab.stack.get("EndpointId"), lab.account
    if not endpoint_id or not lab.notebooks:
        return None
    called = account.call("ec2", "describe_instance_connect_endpoints", InstanceConnectEndpointIds=[endpoint_id])[
        "InstanceConnectEndpoints"
    ]
    interface = account.call("sagemaker", "describe_notebook_instance", NotebookInstanceName=lab.notebooks[0]).get(
        "NetworkInterfaceId"
    )
    if not called or not interface:
        return None
    found = account.call("ec2", "describe_network_interfaces", NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]
    return Target(
        Endpoint(endpoint_id, called[0]["DnsName"], account.region, ""),
        found["PrivateIpAddress"],
        tuple(group["GroupId"] for group in found["Groups"]),
        tuple(called[0]["SecurityGroupIds"]),
    )


def open_tunnel(lab: Lab, account: Account, target: Target, port: int) -> ClientConnection | Refused | NoAnswer:
    """Open a tunnel as `account`; lab: whose environment names a proxy's authorities. Raises BotoCoreError without keys."""
    url = presigned_url(target.endpoint, target.private_ip, port, account.keys())
    try:
        return connect(
            url, ssl=_authorities(lab), open_timeout=OPEN_LIMIT_S, ping_interval=None, compression=None, max_size=None
        )
    except InvalidStatus as error:
        return read_refusal(error.response.status_code, bytes(error.response.body or b""))
    except (OSError, WebSocketException, ImportError) as error:  # without the package for a SOCKS proxy
        return NoAnswer(f"{type(error).__name__}: {error}")


def _authorities(lab: Lab) -> ssl.SSLContext:
    named = lab.environ.get("AWS_CA_BUNDLE") or lab.account.session.get_config_variable("ca_bundle")
    return ssl.create_default_context(cafile=named or str(get_cert_path(True)))


def read_refusal(status: int, body: bytes) -> Refused:
    """Return a refusal; where the body is no JSON, the beginning of it."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return Refused(status, "", body.decode(errors="replace")[:200])
    code = content.get("ErrorCode") or content.get("__type") or ""
    return Refused(status, str(code), str(content.get("Message") or content.get("message") or ""))


def try_tunnel(lab: Lab, account: Account, target: Target | None, port: int) -> Outcome:
    """Open a tunnel, wait for the first byte, and close it."""
    if target is None:
        return NoAnswer(NO_TARGET)
    opened = open_tunnel(lab, account, target, port)
    outcome: Outcome = _first(opened) if isinstance(opened, ClientConnection) else opened
    account.note(f"ec2-instance-connect:OpenTunnel to port {port}", str(outcome))
    return outcome


def _first(connection: ClientConnection) -> Outcome:
    with connection:
        try:
            data = connection.recv(ANSWER_LIMIT_S)
        except TimeoutError:
            return Opened("")
        except ConnectionClosed as error:
            return Closed(_reason(error))
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    return Opened(text.strip()[:80])


def _reason(error: ConnectionClosed) -> str:
    return f"{error.rcvd.code} {error.rcvd.reason}".strip() if error.rcvd else "without a Close"


# ---- how it words refusals -------------------------------------------------------------------------


class Refusals(NamedTuple):
    """What became of tunnels: to another port, as a role without the right, to a port on which nothing listens."""

    other_port: Outcome
    without_right: Outcome
    unanswered: Outcome


def observe_refusals(lab: Lab) -> Refusals:
    """Open each of the three."""
    target = find_target(lab)
    other = lab.account.as_role(lab.outputs["NoTunnelRole"], lab.run.name("tunnel"))
    return Refusals(
        try_tunnel(lab, lab.account, target, OTHER_PORT),
        try_tunnel(lab, other, target, SSH),
        try_tunnel(lab, lab.account, target, REMOTE_DESKTOP),
    )


def decide_refusals(seen: Refusals) -> Decision:
    """The two codes and the reason must be those that are public, and no status one that the client takes for "busy"."""
    said = f"another port {seen.other_port}; without the right {seen.without_right}; no answer {seen.unanswered}"
    refused = [each for each in seen if isinstance(each, Refused)]
    if any(isinstance(each, NoAnswer) or each == Opened("") for each in seen):
        return Undecided(said)
    if any(is_denied(each) for each in (seen.other_port, seen.unanswered)):
        return Undecided(f"this principal may not open tunnels: {said}")
    match seen:
        case Refusals(Refused(code=code), Refused() as denied, Closed(reason)) if (
            code == WRONG_PORT_CODE
            and is_denied(denied)
            and NO_ANSWER in reason
            and not BUSY_STATUSES & {each.status for each in refused}
        ):
            return Holds(said)
        case _:
            return Refuted(said)


def is_denied(outcome: Outcome) -> bool:
    """Return whether AWS refused because of the caller's policies."""
    return isinstance(outcome, Refused) and outcome.code in DENIED_CODES


# ---- whether it answers a Ping ---------------------------------------------------------------------


class Pings(NamedTuple):
    """Whether a Pong came for a Ping, through a tunnel to the notebook; None: outcome is what became of the tunnel."""

    has_pong: bool | None
    outcome: Outcome | None = None


def observe_pings(lab: Lab) -> Pings:
    """Send a Ping through an open tunnel."""
    target = find_target(lab)
    if target is None:
        return Pings(None, NoAnswer(NO_TARGET))
    tries: list[Pings] = []

    def is_final() -> bool:
        tries.append(_ping(lab, target))
        return not isinstance(tries[-1].outcome, Closed)

    with admitted(lab, target):
        lab.wait(is_final, ANSWER_LIMIT_S)
    return tries[-1]


def _ping(lab: Lab, target: Target) -> Pings:
    opened = open_tunnel(lab, lab.account, target, SSH)
    if not isinstance(opened, ClientConnection):
        return Pings(None, opened)
    with opened:
        try:
            opened.recv(ANSWER_LIMIT_S)  # so that the tunnel is known to lead somewhere
            has_pong = opened.ping().wait(PONG_LIMIT_S) and opened.close_code is None
        except TimeoutError:
            return Pings(None, Opened(""))
        except ConnectionClosed as error:
            return Pings(None, Closed(_reason(error)))
    lab.account.note(f"Ping through a tunnel to port {SSH}", "Pong" if has_pong else f"nothing in {PONG_LIMIT_S:.0f} s")
    return Pings(has_pong)


def decide_pings(seen: Pings) -> Decision:
    """A Pong must come. What an endpoint sends before its own Close is not tried: the client does not depend on it."""
    match seen:
        case Pings(None, outcome):
            return Undecided(f"no tunnel to the notebook was there to try with: {outcome}")
        case Pings(True):
            return Holds("a Ping was answered by a Pong")
        case Pings():
            return Refuted(f"a Ping was not answered in {PONG_LIMIT_S:.0f} seconds")


# ---- whether it reaches a notebook -----------------------------------------------------------------


class Reach(NamedTuple):
    """What became of a tunnel to port 22. has_rule: by the rules of the notebook's groups; has_sshd: by what the script saw."""

    outcome: Outcome
    has_rule: bool
    has_sshd: bool


def observe_reach(lab: Lab) -> Reach:
    """Open a tunnel once the rules admit it, again for a while if it is closed."""
    target, has_sshd = find_target(lab), lab.probes.of("sshd-runs").get("banner", "").startswith("SSH-")
    if target is None:
        return Reach(NoAnswer(NO_TARGET), False, has_sshd)
    outcomes: list[Outcome] = []

    def is_final() -> bool:
        outcomes.append(try_tunnel(lab, lab.account, target, SSH))
        return not isinstance(outcomes[-1], Closed)

    with admitted(lab, target) as is_in_effect:
        lab.wait(is_final, ANSWER_LIMIT_S)
    return Reach(outcomes[-1], is_in_effect, has_sshd)


@contextmanager
def admitted(lab: Lab, target: Target, limit_s: float = RULES_LIMIT_S) -> Iterator[bool]:
    """Have the endpoint's group admitted by the stack while inside: by the scenario's tag, or by one of this. Raises AwsError.

    Yields whether it is.
    """
    if has_rule(lab, target):
        yield True
        return
    arn = lab.describe_notebook(lab.notebooks[0])["NotebookInstanceArn"]
    lab.account.call("sagemaker", "add_tags", ResourceArn=arn, Tags=[{"Key": lab.run.tag_key, "Value": "eice"}])
    with undone(partial(lab.account.call, "sagemaker", "delete_tags", ResourceArn=arn, TagKeys=[lab.run.tag_key])):
        yield bool(lab.wait(partial(has_rule, lab, target), limit_s))


def has_rule(lab: Lab, target: Target) -> bool:
    """Return whether the notebook's groups admit the endpoint's to port 22. Raises ClientError."""
    rules = lab.account.client("ec2").describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": list(target.groups)}]
    )["SecurityGroupRules"]
    return any(admits(rule, target.endpoint_groups) for rule in rules)


def admits(rule: Mapping[str, Any], groups: tuple[str, ...]) -> bool:
    """Return whether a rule of EC2's lets one of the groups in to port 22."""
    source = rule.get("ReferencedGroupInfo", {}).get("GroupId")
    if rule.get("IsEgress") or (source is not None and source not in groups):
        return False
    return rule.get("IpProtocol") == "-1" or bool(
        rule.get("IpProtocol") == "tcp" and rule.get("FromPort", 0) <= SSH <= rule.get("ToPort", 0)
    )


def decide_reach(seen: Reach) -> Decision:
    """SSH must answer. That nothing does counts only where nothing else is in the way."""
    said = f"the tunnel to the notebook's port {SSH} was {seen.outcome}"
    match seen.outcome:
        case Opened(first) if first.startswith("SSH-"):
            return Holds(f"through the endpoint the notebook answered {first}")
        case Refused(status=status) if not is_denied(seen.outcome) and status not in BUSY_STATUSES:
            return Refuted(said)
        case Closed() | Opened(first="") if seen.has_rule and seen.has_sshd:
            return Refuted(f"{said}, though the rules admit it and sshd runs")
        case Closed() | Opened(first="") if not seen.has_rule:
            return Undecided(f"{said}, and no rule admits the endpoint's group")
        case _:
            return Undecided(said)


EXPERIMENTS = (
    Experiment(
        "endpoint-refusals",
        "open tunnels that the endpoint refuses: to another port, without the right, and to where nothing answers",
        frozenset({Need.ENDPOINT, Need.LAB, Need.NOTEBOOK}),
        observe_refusals,
        decide_refusals,
    ),
    Experiment(
        "endpoint-pings",
        "send a Ping through a tunnel to the notebook",
        frozenset({Need.ENDPOINT, Need.NOTEBOOK}),
        observe_pings,
        decide_pings,
    ),
    Experiment(
        "eice-interface",
        "open a tunnel to port 22 of the first notebook",
        frozenset({Need.ENDPOINT, Need.NOTEBOOK}),
        observe_reach,
        decide_reach,
    ),
)
