"""The security-group rules that let people through the bastion: which should be, and what must change for that.

One pure pass over the whole fleet. What EC2 answered comes in as values, what to do goes out as values with
reasons; `adapters.ec2` reads and writes, `functions/reconcile_bastion` joins them. docs/bastion.md tells
the same to people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_network

from notebook_ssh.errors import Problem
from notebook_ssh.model.record import BastionRoute, Mode, NotebookState, Record
from notebook_ssh.model.stack import Bastion

SSH_PORT = 22
CLOCK_SKEW = 5
"""Seconds by which the queue's clock and ours may differ."""

_ADMITTED = frozenset({NotebookState.PENDING, NotebookState.IN_SERVICE})
_EVERYWHERE = "0.0.0.0/0"
_ALL_PROTOCOLS = "-1"


class Direction(StrEnum):
    """As seen from the group that holds the rule."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """What one security-group rule lets through, and so its identity: description and tags have no part in it.

    EC2 compares the same way (AuthorizeSecurityGroupIngress, `InvalidPermission.Duplicate`).
    group: id of the group that holds the rule.
    peer: the other end, a security group's id, a network in canonical form, or a prefix list's id.
    protocol: `tcp`, … or `-1` for all, with ports -1.
    """

    group: str
    direction: Direction
    peer: str
    protocol: str = "tcp"
    first_port: int = SSH_PORT
    last_port: int = SSH_PORT

    def __str__(self) -> str:
        toward = "from" if self.direction is Direction.INGRESS else "to"
        return f"{self.group} {self.direction} {self.protocol}/{self.first_port}-{self.last_port} {toward} {self.peer}"


@dataclass(frozen=True, slots=True, order=True)
class FoundRule:
    """A rule that exists. stack: the value of its `OWNER_TAG`, or None when it has none."""

    id: str
    rule: Rule
    stack: str | None = None


@dataclass(frozen=True, slots=True)
class Ec2Query:
    """What to ask EC2 about: ids of security groups and of network interfaces, each sorted and once."""

    groups: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkState:
    """What EC2 answered. Made only when every read succeeded, so what is missing here does not exist.

    vpc_of: the VPC of each security group asked for that exists.
    address_of: private IPv4 address by network interface id.
    rules: every rule of those groups, and every rule anywhere that carries this stack's tag. Each id once.
    """

    vpc_of: Mapping[str, str] = field(default_factory=dict)
    address_of: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[FoundRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """What should be.

    rules: each rule that should exist, with the reason.
    needs: by notebook, the rules without which the bastion does not reach it. Only notebooks to be let in.
    obstacles: by notebook, why no rule can help it.
    clients: those of `rules` that admit people to the bastion.
    trouble: what is wrong with the list of clients, or None.
    """

    rules: Mapping[Rule, str] = field(default_factory=dict)
    needs: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    blockers: Mapping[str, Problem] = field(default_factory=dict)
    clients: tuple[Rule, ...] = ()
    config_problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class AuthorizeRule:
    """A rule to make, and why."""

    rule: Rule
    reason: str


@dataclass(frozen=True, slots=True)
class RevokeRule:
    """A rule of ours to take away, and why."""

    found: FoundRule
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to change: first every grant, then every revoke. satisfied: desired rules that stand already."""

    authorizations: tuple[AuthorizeRule, ...] = ()
    revocations: tuple[RevokeRule, ...] = ()
    satisfied: frozenset[Rule] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a plan.

    standing: desired rules that exist now. refused: rules that EC2 would not make, with what to do about it.
    stuck: rules of ours that EC2 would not take away.
    """

    in_effect: frozenset[Rule] = frozenset()
    refused: Mapping[Rule, Problem] = field(default_factory=dict)
    not_revoked: Mapping[FoundRule, Problem] = field(default_factory=dict)


def covered_by_last_sync(sent_ms: Sequence[int], observed_from: int | None) -> bool:
    """Whether the observation that began at `observed_from` (epoch seconds) saw what all these messages are about.

    sent_ms: when each message was sent, epoch milliseconds (SQS, `SentTimestamp`). A message is sent after its
    record is saved, so a later consistent read includes it; a whole burst is then one run.
    """
    if not sent_ms or observed_from is None:
        return False
    return max(sent_ms) < (observed_from - CLOCK_SKEW) * 1000


def uses_bastion(record: Record) -> bool:
    """Whether the bastion has, or once had, anything to do with this notebook."""
    return record.spec.mode is Mode.BASTION or record.route is not None


def wants_bastion(record: Record, now: int) -> bool:
    """Whether the notebook is to be reached by the bastion at `now`, running or not."""
    return record.spec.effective_mode(now) is Mode.BASTION and record.state is not NotebookState.DELETING


def route_is_desired(record: Record, now: int) -> bool:
    """Whether the bastion is to be let in at `now`: wished, and the notebook is starting or running."""
    return wants_bastion(record, now) and record.state in _ADMITTED


def resources_to_read(fleet: Iterable[Record], bastion: Bastion | None, now: int) -> Ec2Query:
    """All that the rules of `fleet` hang on: the groups at both ends, and where the running notebooks are."""
    groups, interfaces = set(), set()
    if bastion:
        groups.add(bastion.security_group)
    for record in fleet:
        if wants_bastion(record, now):
            groups.update(record.network.security_groups)
        if record.network.interface and route_is_desired(record, now):
            interfaces.add(record.network.interface)
    return Ec2Query(tuple(sorted(groups)), tuple(sorted(interfaces)))


def canonical_peer(text: str) -> str:
    """`text` (an IPv4 or IPv6 address or network, a group's or a prefix list's id) as EC2 writes it.

    Raises ValueError naming `text` when it is none of these.
    """
    if text.startswith(("pl-", "sg-")):
        return text
    return str(ip_network(text, strict=False))


def desired_rules(
    fleet: Iterable[Record], bastion: Bastion | None, network: NetworkState, stack: str, now: int
) -> Desired:
    """The rules that should exist at `now` for the notebooks of `fleet`.

    Each admitted notebook needs tcp/22 from the bastion's group into one of its own groups, and out of the bastion's
    group to there where that is not open anyway. While there is any, the bastion admits its clients.
    """
    wished = [record for record in fleet if wants_bastion(record, now)]
    blockers = {
        record.name: problem for record in wished if (problem := _blocker(record, bastion, network)) is not None
    }
    admitted = [record for record in wished if record.name not in blockers and route_is_desired(record, now)]
    if bastion is None or not admitted:
        return Desired(blockers=blockers)

    clients, config_problem = _client_rules(bastion)
    rules = dict.fromkeys(clients, "a client that the stack admits")
    way_out_is_open = _egress_is_open(bastion.security_group, network.rules, stack)
    entrances = _choose_ingress_groups(admitted, bastion, network, stack)
    needs = {}
    for record in admitted:
        group = entrances[record.name]
        needed = [_ingress_rule(group, bastion)]
        if not way_out_is_open:
            needed.append(Rule(bastion.security_group, Direction.EGRESS, group))
        needs[record.name] = tuple(needed)
        for rule in needed:
            rules.setdefault(rule, f"notebook {record.name} is {record.state}")
    return Desired(rules, needs, blockers, clients, config_problem)


def plan(desired: Desired, rules: Iterable[FoundRule], stack: str, *, complete: bool) -> Plan:
    """How to get from `rules` to `desired`.

    An equal rule satisfies, whoever made it. Only rules tagged with `stack` are revoked: those nobody needs, which
    includes ours that somebody edited. complete: whether the whole fleet was seen; if not, nothing is revoked.
    """
    found = sorted(rules)
    in_effect = {each.rule for each in found}
    return Plan(
        authorizations=tuple(
            AuthorizeRule(rule, why) for rule, why in sorted(desired.rules.items()) if rule not in in_effect
        ),
        revocations=tuple(
            RevokeRule(each, "no notebook needs it")
            for each in found
            if complete and each.stack == stack and each.rule not in desired.rules
        ),
        satisfied=frozenset(rule for rule in desired.rules if rule in in_effect),
    )


def changed_routes(
    fleet: Iterable[Record], desired: Desired, outcome: Outcome, network: NetworkState, now: int
) -> dict[str, BastionRoute]:
    """By notebook, the way as it is now; only where it differs from what its record says."""
    changed = {}
    for record in fleet:
        before = record.route or BastionRoute()
        after = replace(_route(record, desired, outcome, network), since=before.since)
        if after != before or (record.route is None and wants_bastion(record, now)):
            changed[record.name] = replace(after, since=now)
    return changed


def _route(record: Record, desired: Desired, outcome: Outcome, network: NetworkState) -> BastionRoute:
    if record.name in desired.blockers:
        return BastionRoute(problem=desired.blockers[record.name])
    needs = desired.needs.get(record.name)
    if needs is None:
        return BastionRoute()
    # A client that could not be admitted shuts out some people, not this notebook: said last.
    refusals = [outcome.refused[rule] for rule in (*needs, *desired.clients) if rule in outcome.refused]
    return BastionRoute(
        open=all(rule in outcome.in_effect for rule in needs),
        private_ip=network.address_of.get(record.network.interface or ""),
        problem=next(iter(refusals), desired.config_problem),
    )


def _blocker(record: Record, bastion: Bastion | None, network: NetworkState) -> Problem | None:
    """Why no rule can let the bastion in to this notebook, or None."""
    if bastion is None:
        return Problem(
            "no-bastion",
            "This stack was deployed without a bastion: set its bastion parameters, or write ssh=ngrok.",
        )
    group_vpc = network.vpc_of.get(bastion.security_group)
    if group_vpc is None:
        return Problem(
            "bastion-gone",
            f"The bastion's security group {bastion.security_group} does not exist: correct the stack's parameter.",
        )
    if group_vpc != bastion.vpc:
        return Problem(
            "bastion-gone",
            f"The bastion's security group {bastion.security_group} is in {group_vpc}, not in {bastion.vpc}:"
            " correct the stack's parameters.",
        )
    if not record.network.security_groups:
        return Problem(
            "not-in-vpc",
            f"Notebook {record.name} is not in a VPC, so no bastion reaches it: create it with a subnet of"
            f" {bastion.vpc}, or write ssh=ngrok.",
        )
    vpcs = {network.vpc_of[group] for group in record.network.security_groups if group in network.vpc_of}
    if not vpcs:
        return Problem(
            "group-gone",
            f"None of notebook {record.name}'s security groups ({' '.join(record.network.security_groups)}) exists.",
        )
    if bastion.vpc not in vpcs:
        return Problem(
            "other-vpc",
            f"Notebook {record.name} is in {' '.join(sorted(vpcs))} and the bastion in {bastion.vpc}: use a bastion"
            " in the notebook's VPC, or write ssh=ngrok.",
        )
    return None


def _choose_ingress_groups(
    admitted: Sequence[Record], bastion: Bastion, network: NetworkState, stack: str
) -> Mapping[str, str]:
    """By notebook, which of its groups holds the rule: stable, and as few groups opened as possible.

    First one that has our rule already, then one where somebody's equal rule stands, else the first by id.
    The bastion's own group comes last: a rule there would let bastions into each other.
    """
    let_in = [each for each in network.rules if each.rule == _ingress_rule(each.rule.group, bastion)]
    ours = {each.rule.group for each in let_in if each.stack == stack}
    theirs = {each.rule.group for each in let_in} - ours

    def entrance(record: Record) -> str:
        candidates = [group for group in record.network.security_groups if network.vpc_of.get(group) == bastion.vpc]
        return min(
            candidates,
            key=lambda group: (group not in ours, group not in theirs, group == bastion.security_group, group),
        )

    chosen: dict[str, str] = {}
    # A rule that one notebook makes us open serves others as well, so the choice is made until it would stay: nobody's
    # choice gets worse by it, and so it comes to an end.
    while chosen != (chosen := {record.name: entrance(record) for record in admitted}):
        ours = set(chosen.values()) - theirs
    return chosen


def _ingress_rule(group: str, bastion: Bastion) -> Rule:
    return Rule(group, Direction.INGRESS, bastion.security_group)


def _client_rules(bastion: Bastion) -> tuple[tuple[Rule, ...], Problem | None]:
    """The rules that admit the bastion's clients, and what is wrong with the list given."""
    rules, wrong = [], []
    for text in bastion.client_cidrs:
        try:
            rules.append(Rule(bastion.security_group, Direction.INGRESS, canonical_peer(text)))
        except ValueError:
            wrong.append(text)
    if not wrong:
        return tuple(rules), None
    return tuple(rules), Problem(
        "client-cidr-invalid",
        f"Not an IPv4 or IPv6 network or a prefix list (pl-…), so not admitted to the bastion: {' '.join(wrong)}."
        " Correct the stack's parameter.",
    )


def _egress_is_open(group: str, rules: Iterable[FoundRule], stack: str) -> bool:
    """Whether `group` may open tcp/22 to everywhere by a rule that is not ours (ours may be about to go)."""
    return any(
        found.stack != stack
        and found.rule.group == group
        and found.rule.direction is Direction.EGRESS
        and found.rule.peer == _EVERYWHERE
        and _covers_ssh(found.rule)
        for found in rules
    )


def _covers_ssh(rule: Rule) -> bool:
    return rule.protocol == _ALL_PROTOCOLS or (rule.protocol == "tcp" and rule.first_port <= SSH_PORT <= rule.last_port)
