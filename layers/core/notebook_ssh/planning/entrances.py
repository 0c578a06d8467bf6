"""The entrances through which users reach notebooks inside their VPC: what rules are made for.

A bastion is known from the stack's parameters. Of an EC2 Instance Connect Endpoint these have the id and the VPC;
EC2 says the rest, so it is observed first. docs/bastion.md and docs/eice.md have the design.
UNCONFIRMED(eice-interface): whether an endpoint reaches a notebook's interface, only a client learns.
"""

from __future__ import annotations

from dataclasses import dataclass

from notebook_ssh.errors import Problem
from notebook_ssh.model import problems
from notebook_ssh.model.network import Direction, FoundEndpoint, NetworkState, Rule, canonical_peer
from notebook_ssh.model.record import ROUTED, Endpoint, NotebookState, Record, is_running
from notebook_ssh.model.spec import Mode
from notebook_ssh.model.stack import Bastion, EndpointSettings

UNUSABLE = frozenset({"create-in-progress", "create-failed", "delete-in-progress", "delete-complete", "delete-failed"})
"""The states in which no tunnel can be opened (API reference, Ec2InstanceConnectEndpoint, `state`). A state that this
version does not know takes nothing away."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """What admits users to the notebooks of one VPC, in one mode."""

    mode: Mode
    # Ids of its VPC and of its security groups, which are not empty unless there is a problem.
    vpc: str = ""
    groups: tuple[str, ...] = ()
    # Networks or prefix lists to admit to it on port 22, as the stack's parameter has them.
    client_cidrs: tuple[str, ...] = ()
    # What users have to know of it, if it is an endpoint.
    endpoint: Endpoint | None = None
    # Why no rule can let a user in through it, or None.
    problem: Problem | None = None
    # What admins should correct although users come in, or None.
    warning: Problem | None = None

    @property
    def noun(self) -> str:
        """What sentences and the descriptions of rules call it."""
        return self.mode.entrance or ""

    @property
    def group(self) -> str:
        """The group that rules name: one is enough, since each of its interfaces is in all of them."""
        return min(self.groups)


def entrances(
    bastion: Bastion | None, endpoint: EndpointSettings | None, found: FoundEndpoint | None
) -> tuple[Entrance, ...]:
    """Return the entrance of each mode that needs one, with its problem where the stack has none.

    found: what EC2 has of `endpoint`; None only if EC2 answered that there is no such endpoint.
    """
    return bastion_entrance(bastion), endpoint_entrance(endpoint, found)


def bastion_entrance(bastion: Bastion | None) -> Entrance:
    """Return the entrance of mode bastion."""
    if bastion is None:
        problem = Problem(
            "no-bastion",
            "This stack was deployed without a bastion: set its bastion parameters, or set the tag to ngrok.",
        )
        return Entrance(Mode.BASTION, problem=problem)
    return Entrance(Mode.BASTION, bastion.vpc, (bastion.security_group,), bastion.client_cidrs)


def endpoint_entrance(settings: EndpointSettings | None, found: FoundEndpoint | None) -> Entrance:
    """Return the entrance of mode eice. found: as in `entrances`."""
    if settings is None:
        return Entrance(Mode.EICE, problem=problems.no_endpoint())
    problem = _endpoint_problem(settings, found)
    if found is None or problem:
        return Entrance(Mode.EICE, settings.vpc, problem=problem)
    warning = Problem(
        "endpoint-client-ip",
        f"The endpoint {found.id} preserves the addresses of clients, which a notebook answers by another way: make one"
        " with PreserveClientIp=false.",
    )
    return Entrance(
        Mode.EICE,
        settings.vpc,
        found.groups,
        endpoint=Endpoint(found.id, found.dns_name),
        warning=warning if found.preserves_client_ip else None,
    )


def _endpoint_problem(settings: EndpointSettings, found: FoundEndpoint | None) -> Problem | None:
    if found is None:
        reason = "does not exist: correct the stack's parameter"
    elif found.vpc != settings.vpc:
        reason = f"is in {found.vpc}, not in {settings.vpc}: correct the stack's parameters"
    elif found.state in UNUSABLE:
        reason = f"is in the state {found.state}: wait for create-complete, or make another"
    elif not (found.groups and found.dns_name):
        reason = "has no security group or no DNS name yet: wait for create-complete"
    else:
        return None
    return Problem("endpoint-gone", f"The EC2 Instance Connect Endpoint {settings.id} {reason}.")


def uses_entrance(record: Record) -> bool:
    """Return whether the notebook uses an entrance, or once did."""
    return bool(record.routes) or any(mode in ROUTED for mode in record.spec.modes)


def wants_route(record: Record, mode: Mode, now: int) -> bool:
    """Return whether the notebook requests `mode` at `now`, running or not."""
    return mode in record.spec.effective_modes(now) and record.state is not NotebookState.DELETING


def route_is_desired(record: Record, mode: Mode, now: int) -> bool:
    """Return whether a route is desired at `now`: requested, and the notebook is starting or running."""
    return wants_route(record, mode, now) and is_running(record)


def blocker(record: Record, entrance: Entrance, network: NetworkState) -> Problem | None:
    """Return why no rule can give this notebook a route through `entrance`, or None."""
    return entrance.problem or _group_problem(entrance, network) or _notebook_problem(record, entrance, network)


def _group_problem(entrance: Entrance, network: NetworkState) -> Problem | None:
    group, noun = entrance.group, entrance.noun
    vpc = network.vpc_of.get(group)
    if vpc == entrance.vpc:
        return None
    if vpc is None:
        reason = "does not exist: correct the stack's parameter."
    else:
        reason = f"is in {vpc}, not in {entrance.vpc}: correct the stack's parameters."
    return Problem(f"{noun}-gone", f"The {noun}'s security group {group} {reason}")


def _notebook_problem(record: Record, entrance: Entrance, network: NetworkState) -> Problem | None:
    noun = entrance.noun
    if not record.network.security_groups:
        return Problem(
            "not-in-vpc",
            f"Notebook {record.name} is not in a VPC, so no {noun} reaches it: create it with a subnet of"
            f" {entrance.vpc}, or set the tag to ngrok.",
        )
    vpcs = {network.vpc_of[group] for group in record.network.security_groups if group in network.vpc_of}
    if not vpcs:
        return Problem(
            "group-gone",
            f"None of notebook {record.name}'s security groups ({' '.join(record.network.security_groups)}) exists.",
        )
    if entrance.vpc not in vpcs:
        article = "an" if noun[0] in "aeiou" else "a"
        return Problem(
            "other-vpc",
            f"Notebook {record.name} is in {' '.join(sorted(vpcs))} and the {noun} in {entrance.vpc}: use {article} {noun}"
            " in the notebook's VPC, or set the tag to ngrok.",
        )
    return None


def client_rules(entrance: Entrance) -> tuple[tuple[Rule, ...], Problem | None]:
    """Return the rules that admit the entrance's clients, and what is wrong with the given list."""
    rules, wrong = [], []
    for text in entrance.client_cidrs:
        try:
            rules.append(Rule(entrance.group, Direction.INGRESS, canonical_peer(text)))
        except ValueError:
            wrong.append(text)
    if not wrong:
        return tuple(rules), None
    return tuple(rules), Problem(
        "client-cidr-invalid",
        f"Not an IPv4 or IPv6 network or a prefix list (pl-…), so not admitted to the {entrance.noun}: {' '.join(wrong)}."
        " Correct the stack's parameter.",
    )
