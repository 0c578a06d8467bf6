"""Plan the security-group rules through which entrances reach notebooks.

One pure pass over the whole fleet. `adapters.ec2` reads and writes; docs/bastion.md has the design.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from notebook_ssh.errors import Problem
from notebook_ssh.model.network import SSH_PORT, Direction, FoundRule, NetworkState, Rule
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import Mode
from notebook_ssh.planning.entrances import Entrance, blocker, client_rules, route_is_desired, wants_route

_EVERYWHERE = "0.0.0.0/0"
_ALL_PROTOCOLS = "-1"


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired rules of a fleet through one entrance."""

    # Each rule, with the reason.
    rules: Mapping[Rule, str] = field(default_factory=dict)
    # By notebook, the rules without which the entrance does not reach it; only notebooks with a desired route.
    needs: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    # By notebook, why no rule can give it a route.
    blockers: Mapping[str, Problem] = field(default_factory=dict)
    # Those of `rules` that admit clients to the entrance.
    clients: tuple[Rule, ...] = ()
    # What is wrong with the stack's parameters although notebooks are reached, or None.
    config_problem: Problem | None = None
    # What the rules lead through, for their descriptions.
    noun: str = "bastion"


@dataclass(frozen=True, slots=True)
class AuthorizeRule:
    """Create a rule."""

    rule: Rule
    reason: str
    # What it leads through: `bastion` or `endpoint`.
    noun: str


@dataclass(frozen=True, slots=True)
class RevokeRule:
    """Delete a rule of this stack."""

    found: FoundRule
    reason: str


@dataclass(frozen=True, slots=True)
class RulePlan:
    """The changes of rules: first every authorization, then every revocation."""

    authorizations: tuple[AuthorizeRule, ...] = ()
    revocations: tuple[RevokeRule, ...] = ()
    # Desired rules that exist already.
    satisfied: frozenset[Rule] = frozenset()
    # Rules with this stack's tag that no notebook needs and that the stack did not make, or may not change.
    left: Mapping[FoundRule, Problem] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unread:
    """The notebooks of which it is not known what they need: their records, or their entrance, could not be read."""

    count: int = 0
    # Their security groups, as far as these can be read.
    groups: frozenset[str] = frozenset()
    # The groups of each of them could be read.
    groups_complete: bool = True

    def and_those_of(self, mode: Mode, fleet: Iterable[Record], now: int) -> Unread:
        """Return these and the notebooks that need a route in `mode` at `now`, of whose entrance nothing is known."""
        unknown = [record for record in fleet if route_is_desired(record, mode, now)]
        groups = self.groups.union(*(record.network.security_groups for record in unknown))
        return Unread(self.count + len(unknown), groups, self.groups_complete)


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


def desired_rules(fleet: Iterable[Record], entrance: Entrance, network: NetworkState, stack: str, now: int) -> Desired:
    """Return the rules that should exist at `now` for the notebooks of `fleet` to be reached through `entrance`.

    Each notebook with a desired route needs tcp/22 from the entrance's group into one of its own, and the same egress
    unless it is open anyway. While there is such a notebook, the entrance admits its clients.
    """
    requested = [record for record in fleet if wants_route(record, entrance.mode, now)]
    blockers = {
        record.name: problem for record in requested if (problem := blocker(record, entrance, network)) is not None
    }
    routed = [
        record for record in requested if record.name not in blockers and route_is_desired(record, entrance.mode, now)
    ]
    if not routed:
        return Desired(blockers=blockers, noun=entrance.noun)

    clients, config_problem = client_rules(entrance)
    rules = dict.fromkeys(clients, "a client that the stack admits")
    egress_is_open = _egress_is_open(entrance, network.rules, stack)
    ingress_groups = _choose_ingress_groups(routed, entrance, network, stack)
    needs = {}
    for record in routed:
        group = ingress_groups[record.name]
        needed = [_ingress_rule(group, entrance)]
        if not egress_is_open:
            needed.append(Rule(entrance.group, Direction.EGRESS, group))
        needs[record.name] = tuple(needed)
        for rule in needed:
            rules.setdefault(rule, f"notebook {record.name} is {record.state}")
    return Desired(rules, needs, blockers, clients, config_problem or entrance.warning, entrance.noun)


def plan_rules(
    desired: Iterable[Desired],
    rules: Iterable[FoundRule],
    stack: str,
    *,
    complete: bool,
    revocable: Callable[[Rule], bool] = lambda rule: True,
    certain: Callable[[Rule], bool] = lambda rule: True,
) -> RulePlan:
    """Plan the changes from `rules` to what is `desired` through each entrance.

    An equal rule of any origin satisfies. Only rules of `stack` are revoked, and of these only `revocable` ones
    (`is_revocable`) that no notebook needs. complete: whether the whole fleet was read; if not, nothing is revoked.
    certain: whether it is known that no notebook needs the rule (`is_certain`).
    """
    found = sorted(rules)
    in_effect = {each.rule for each in found}
    wanted: dict[Rule, AuthorizeRule] = {}
    for each in desired:
        for rule, reason in sorted(each.rules.items()):
            wanted.setdefault(rule, AuthorizeRule(rule, reason, each.noun))
    unneeded = [each for each in found if complete and each.stack == stack and each.rule not in wanted]
    return RulePlan(
        authorizations=tuple(each for rule, each in wanted.items() if rule not in in_effect),
        revocations=tuple(
            RevokeRule(each, "no notebook needs it") for each in unneeded if revocable(each.rule) and certain(each.rule)
        ),
        satisfied=frozenset(rule for rule in wanted if rule in in_effect),
        left={each: _left(each, stack) for each in unneeded if not revocable(each.rule)},
    )


def is_revocable(rule: Rule, network: NetworkState, vpcs: frozenset[str]) -> bool:
    """Return whether the stack makes rules such as `rule`, and IAM lets it revoke them: tcp/22 in one of its `vpcs`.

    vpcs: of the stack's entrances. Without any, what is left of them may be in every VPC.
    """
    is_ssh = (rule.protocol, rule.first_port, rule.last_port) == ("tcp", SSH_PORT, SSH_PORT)
    has_peer = rule.direction is Direction.INGRESS or rule.peer.startswith("sg-")
    in_vpc = not vpcs or network.vpc_of.get(rule.group) in vpcs
    return is_ssh and has_peer and in_vpc


def is_certain(rule: Rule, fleet: Iterable[Record], unread: Unread) -> bool:
    """Return whether no notebook that could not be read can need `rule`: its group is known to be another's."""
    if not unread.count:
        return True
    if not rule.peer.startswith("sg-"):
        return False  # it admits the clients of every notebook
    group = rule.peer if rule.direction is Direction.EGRESS else rule.group
    known = {group for record in fleet for group in record.network.security_groups}
    return group not in unread.groups and (unread.groups_complete or group in known)


def _left(found: FoundRule, stack: str) -> Problem:
    return Problem(
        "rule-stuck",
        f"The rule {found.id} ({found.rule}) has the tag of stack {stack}, and is not one that the stack makes in the"
        " VPC of its bastion or endpoint: remove the rule, or its tag.",
    )


def _choose_ingress_groups(
    routed: Sequence[Record], entrance: Entrance, network: NetworkState, stack: str
) -> Mapping[str, str]:
    """Return by notebook which of its groups holds the rule: stable, and with as few open groups as possible.

    First a group that has this stack's rule, then one with an equal rule of other origin, else the first by id.
    The entrance's own groups come last: a rule there would admit bastions to each other.
    """
    ingress = [each for each in network.rules if each.rule == _ingress_rule(each.rule.group, entrance)]
    ours = {each.rule.group for each in ingress if each.stack == stack}
    theirs = {each.rule.group for each in ingress} - ours

    def choose(record: Record) -> str:
        candidates = [group for group in record.network.security_groups if network.vpc_of.get(group) == entrance.vpc]
        return min(
            candidates,
            key=lambda group: (group not in ours, group not in theirs, group in entrance.groups, group),
        )

    chosen: dict[str, str] = {}
    # A rule created for one notebook serves others as well, so the choice is repeated until it is stable. No choice
    # gets worse by that, so it terminates.
    while chosen != (chosen := {record.name: choose(record) for record in routed}):
        ours = set(chosen.values()) - theirs
    return chosen


def _ingress_rule(group: str, entrance: Entrance) -> Rule:
    return Rule(group, Direction.INGRESS, entrance.group)


def _egress_is_open(entrance: Entrance, rules: Iterable[FoundRule], stack: str) -> bool:
    """Return whether a rule of other origin permits tcp/22 from `entrance` to everywhere (this stack's may be revoked)."""
    return any(
        found.stack != stack
        and found.rule.group in entrance.groups
        and found.rule.direction is Direction.EGRESS
        and found.rule.peer == _EVERYWHERE
        and _covers_ssh(found.rule)
        for found in rules
    )


def _covers_ssh(rule: Rule) -> bool:
    return rule.protocol == _ALL_PROTOCOLS or (rule.protocol == "tcp" and rule.first_port <= SSH_PORT <= rule.last_port)
