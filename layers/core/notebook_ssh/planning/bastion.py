"""Plan the security-group rules through which the bastion reaches notebooks.

One pure pass over the whole fleet. `adapters.ec2` reads and writes; docs/bastion.md has the design.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from notebook_ssh.errors import Problem
from notebook_ssh.model.network import SSH_PORT, Direction, Ec2Query, FoundRule, NetworkState, Rule, canonical_peer
from notebook_ssh.model.record import NotebookState, Record, Route, is_running
from notebook_ssh.model.spec import Mode
from notebook_ssh.model.stack import Bastion
from notebook_ssh.triggers.requests import SAVE_DELAY

CLOCK_SKEW = 5
"""Seconds by which the clocks of the queue and of the function may differ."""

_EVERYWHERE = "0.0.0.0/0"
_ALL_PROTOCOLS = "-1"


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired rules of a fleet."""

    # Each rule, with the reason.
    rules: Mapping[Rule, str] = field(default_factory=dict)
    # By notebook, the rules without which the bastion does not reach it; only notebooks with a desired route.
    needs: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    # By notebook, why no rule can give it a route.
    blockers: Mapping[str, Problem] = field(default_factory=dict)
    # Those of `rules` that admit clients to the bastion.
    clients: tuple[Rule, ...] = ()
    # What is wrong with the stack's list of clients, or None.
    config_problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class AuthorizeRule:
    """Create a rule."""

    rule: Rule
    reason: str


@dataclass(frozen=True, slots=True)
class RevokeRule:
    """Delete a rule of this stack."""

    found: FoundRule
    reason: str


@dataclass(frozen=True, slots=True)
class BastionPlan:
    """The changes of rules: first every authorization, then every revocation."""

    authorizations: tuple[AuthorizeRule, ...] = ()
    revocations: tuple[RevokeRule, ...] = ()
    # Desired rules that exist already.
    satisfied: frozenset[Rule] = frozenset()
    # Rules with this stack's tag that no notebook needs and that the stack did not make, or may not change.
    left: Mapping[FoundRule, Problem] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unread:
    """The notebooks whose records exist and cannot be read: what they need is not known."""

    count: int = 0
    # Their security groups, as far as these can be read.
    groups: frozenset[str] = frozenset()
    # The groups of each of them could be read.
    groups_complete: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a plan."""

    # Desired rules that exist now.
    in_effect: frozenset[Rule] = frozenset()
    # Rules that EC2 refused to create.
    refused: Mapping[Rule, Problem] = field(default_factory=dict)
    # Rules with this stack's tag that no notebook needs and that stay: EC2 refused to delete them, or they are not such as
    # the stack makes.
    not_revoked: Mapping[FoundRule, Problem] = field(default_factory=dict)


def covered_by_last_sync(sent_ms: Sequence[int], observed_from: int | None, now: int) -> bool:
    """Return whether the sync that began at `observed_from` (epoch seconds) covers messages sent at `sent_ms`.

    sent_ms is in epoch milliseconds (SQS, `SentTimestamp`). A message is sent before its record is saved, and at most
    SAVE_DELAY before: a consistent read after that includes the record. The queue delays messages for longer, so that a
    burst of messages leads to one run. A sync that began after `now` (epoch seconds) covers nothing.
    """
    if not sent_ms or observed_from is None or observed_from > now:
        return False
    return max(sent_ms) < (observed_from - SAVE_DELAY - CLOCK_SKEW) * 1000


def uses_bastion(record: Record) -> bool:
    """Return whether the notebook uses the bastion, or once did."""
    return Mode.BASTION in record.spec.modes or Mode.BASTION in record.routes


def wants_bastion(record: Record, now: int) -> bool:
    """Return whether the notebook requests the bastion at `now`, running or not."""
    return Mode.BASTION in record.spec.effective_modes(now) and record.state is not NotebookState.DELETING


def route_is_desired(record: Record, now: int) -> bool:
    """Return whether a route is desired at `now`: requested, and the notebook is starting or running."""
    return wants_bastion(record, now) and is_running(record)


def resources_to_read(fleet: Iterable[Record], bastion: Bastion | None, now: int) -> Ec2Query:
    """Return what the rules of `fleet` depend on: the groups at both ends, and the running notebooks' interfaces."""
    groups, interfaces = set(), set()
    if bastion:
        groups.add(bastion.security_group)
    for record in fleet:
        if wants_bastion(record, now):
            groups.update(record.network.security_groups)
        if record.network.interface and route_is_desired(record, now):
            interfaces.add(record.network.interface)
    return Ec2Query(tuple(sorted(groups)), tuple(sorted(interfaces)))


def desired_rules(
    fleet: Iterable[Record], bastion: Bastion | None, network: NetworkState, stack: str, now: int
) -> Desired:
    """Return the rules that should exist at `now` for the notebooks of `fleet`.

    Each notebook with a desired route needs tcp/22 from the bastion's group into one of its own, and the same egress
    unless it is open anyway. While there is such a notebook, the bastion admits its clients.
    """
    requested = [record for record in fleet if wants_bastion(record, now)]
    blockers = {
        record.name: problem for record in requested if (problem := _blocker(record, bastion, network)) is not None
    }
    routed = [record for record in requested if record.name not in blockers and route_is_desired(record, now)]
    if bastion is None or not routed:
        return Desired(blockers=blockers)

    clients, config_problem = _client_rules(bastion)
    rules = dict.fromkeys(clients, "a client that the stack admits")
    egress_is_open = _egress_is_open(bastion.security_group, network.rules, stack)
    ingress_groups = _choose_ingress_groups(routed, bastion, network, stack)
    needs = {}
    for record in routed:
        group = ingress_groups[record.name]
        needed = [_ingress_rule(group, bastion)]
        if not egress_is_open:
            needed.append(Rule(bastion.security_group, Direction.EGRESS, group))
        needs[record.name] = tuple(needed)
        for rule in needed:
            rules.setdefault(rule, f"notebook {record.name} is {record.state}")
    return Desired(rules, needs, blockers, clients, config_problem)


def plan_bastion(
    desired: Desired,
    rules: Iterable[FoundRule],
    stack: str,
    *,
    complete: bool,
    revocable: Callable[[Rule], bool] = lambda rule: True,
    certain: Callable[[Rule], bool] = lambda rule: True,
) -> BastionPlan:
    """Plan the changes from `rules` to `desired`.

    An equal rule of any origin satisfies. Only rules of `stack` are revoked, and of these only `revocable` ones
    (`is_revocable`) that no notebook needs. complete: whether the whole fleet was read; if not, nothing is revoked.
    certain: whether it is known that no notebook needs the rule (`is_certain`).
    """
    found = sorted(rules)
    in_effect = {each.rule for each in found}
    unneeded = [each for each in found if complete and each.stack == stack and each.rule not in desired.rules]
    return BastionPlan(
        authorizations=tuple(
            AuthorizeRule(rule, why) for rule, why in sorted(desired.rules.items()) if rule not in in_effect
        ),
        revocations=tuple(
            RevokeRule(each, "no notebook needs it") for each in unneeded if revocable(each.rule) and certain(each.rule)
        ),
        satisfied=frozenset(rule for rule in desired.rules if rule in in_effect),
        left={each: _left(each, stack) for each in unneeded if not revocable(each.rule)},
    )


def is_revocable(rule: Rule, network: NetworkState, bastion: Bastion | None) -> bool:
    """Return whether the stack makes rules such as `rule`, and IAM lets it revoke them: tcp/22 in the bastion's VPC."""
    is_ssh = (rule.protocol, rule.first_port, rule.last_port) == ("tcp", SSH_PORT, SSH_PORT)
    has_peer = rule.direction is Direction.INGRESS or rule.peer.startswith("sg-")
    in_vpc = bastion is None or network.vpc_of.get(rule.group) == bastion.vpc
    return is_ssh and has_peer and in_vpc


def is_certain(rule: Rule, bastion: Bastion | None, fleet: Iterable[Record], unread: Unread) -> bool:
    """Return whether no notebook that could not be read can need `rule`: its group is known to be another's."""
    if not unread.count:
        return True
    if not rule.peer.startswith("sg-"):
        return False  # it admits the clients of every notebook
    is_egress = bastion is not None and rule.direction is Direction.EGRESS and rule.group == bastion.security_group
    group = rule.peer if is_egress else rule.group
    known = {group for record in fleet for group in record.network.security_groups}
    return group not in unread.groups and (unread.groups_complete or group in known)


def _left(found: FoundRule, stack: str) -> Problem:
    return Problem(
        "rule-stuck",
        f"The rule {found.id} ({found.rule}) has the tag of stack {stack}, and is not one that the stack makes in its"
        " bastion's VPC: remove the rule, or its tag.",
    )


def changed_routes(
    fleet: Iterable[Record], desired: Desired, outcome: Outcome, network: NetworkState, now: int
) -> dict[str, Route]:
    """Return the current route by notebook, for those where it differs from the record."""
    changed = {}
    for record in fleet:
        before = record.routes.get(Mode.BASTION, Route())
        after = replace(_route(record, desired, outcome, network), since=before.since)
        if after != before or (Mode.BASTION not in record.routes and wants_bastion(record, now)):
            changed[record.name] = replace(after, since=now)
    return changed


def _route(record: Record, desired: Desired, outcome: Outcome, network: NetworkState) -> Route:
    if record.name in desired.blockers:
        return Route(problem=desired.blockers[record.name])
    needs = desired.needs.get(record.name)
    if needs is None:
        groups = record.network.security_groups
        stuck = (problem for found, problem in outcome.not_revoked.items() if found.rule.group in groups)
        return Route(problem=next(stuck, None))
    # A refused client affects some users of the bastion and not this notebook, so it comes last.
    refusals = [outcome.refused[rule] for rule in (*needs, *desired.clients) if rule in outcome.refused]
    return Route(
        open=all(rule in outcome.in_effect for rule in needs),
        private_ip=network.address_of.get(record.network.interface or ""),
        problem=next(iter(refusals), desired.config_problem),
    )


def _blocker(record: Record, bastion: Bastion | None, network: NetworkState) -> Problem | None:
    """Return why no rule can give this notebook a route, or None."""
    if bastion is None:
        return Problem(
            "no-bastion",
            "This stack was deployed without a bastion: set its bastion parameters, or set the tag to ngrok.",
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
            f" {bastion.vpc}, or set the tag to ngrok.",
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
            " in the notebook's VPC, or set the tag to ngrok.",
        )
    return None


def _choose_ingress_groups(
    routed: Sequence[Record], bastion: Bastion, network: NetworkState, stack: str
) -> Mapping[str, str]:
    """Return by notebook which of its groups holds the rule: stable, and with as few open groups as possible.

    First a group that has this stack's rule, then one with an equal rule of other origin, else the first by id.
    The bastion's own group comes last: a rule there would admit bastions to each other.
    """
    ingress = [each for each in network.rules if each.rule == _ingress_rule(each.rule.group, bastion)]
    ours = {each.rule.group for each in ingress if each.stack == stack}
    theirs = {each.rule.group for each in ingress} - ours

    def choose(record: Record) -> str:
        candidates = [group for group in record.network.security_groups if network.vpc_of.get(group) == bastion.vpc]
        return min(
            candidates,
            key=lambda group: (group not in ours, group not in theirs, group == bastion.security_group, group),
        )

    chosen: dict[str, str] = {}
    # A rule created for one notebook serves others as well, so the choice is repeated until it is stable. No choice
    # gets worse by that, so it terminates.
    while chosen != (chosen := {record.name: choose(record) for record in routed}):
        ours = set(chosen.values()) - theirs
    return chosen


def _ingress_rule(group: str, bastion: Bastion) -> Rule:
    return Rule(group, Direction.INGRESS, bastion.security_group)


def _client_rules(bastion: Bastion) -> tuple[tuple[Rule, ...], Problem | None]:
    """Return the rules that admit the bastion's clients, and what is wrong with the given list."""
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
    """Return whether a rule of other origin permits tcp/22 from `group` to everywhere (this stack's may be revoked)."""
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
