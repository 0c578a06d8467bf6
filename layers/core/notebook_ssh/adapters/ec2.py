"""Security-group rules and network interfaces in EC2: one complete reading, and the changes of one plan.

Reads are paged and asked for by filters of ids, so their number grows with the pages of the fleet. Writes are one
call a rule: EC2 refuses a whole call for one duplicate in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters.clients import client, code_of, retryable
from notebook_ssh.errors import Problem, RetryableError
from notebook_ssh.model.network import Direction, Ec2Query, FoundRule, NetworkState, Rule, canonical_peer
from notebook_ssh.model.record import OWNER_TAG
from notebook_ssh.planning.bastion import AuthorizeRule, BastionPlan, Outcome, RevokeRule

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, IpPermissionTypeDef, SecurityGroupRuleTypeDef

FILTER_VALUES = 200
"""Most values of one filter in a request (EC2, limits of `Filter.N.Value.M`)."""
PAGE = 1000
"""Most items of a page of the three Describe actions used here (`MaxResults`)."""

DUPLICATE = "InvalidPermission.Duplicate"
GROUP_GONE = "InvalidGroup.NotFound"
GROUP_MALFORMED = "InvalidGroupId.Malformed"
TOO_MANY_RULES = "RulesPerSecurityGroupLimitExceeded"
RULE_GONE = frozenset({"InvalidPermission.NotFound", "InvalidSecurityGroupRuleId.NotFound", GROUP_GONE})


def observe(stack: str, query: Ec2Query) -> NetworkState:
    """Everything in `look`, the rules of its groups, and every rule tagged with `stack`.

    Raises RetryableError when any read fails: an answer that is not complete is none.
    """
    vpc_of = _vpcs(query.groups)
    found = {each.id: each for each in _rules(f"tag:{OWNER_TAG}", [stack])}
    found |= {each.id: each for each in _rules("group-id", sorted(vpc_of))}
    return NetworkState(vpc_of, _addresses(query.interfaces), tuple(found.values()))


def apply(plan: BastionPlan, stack: str) -> Outcome:
    """Make and take away rules: every grant, then every revoke, then the grants for which that made room.

    Raises RetryableError when EC2 says "later"; what was done until then stays done and is found by the next run.
    """
    refused = _grant(plan.authorizations, stack)
    removed, not_revoked = _revoke(plan.revocations, stack)
    roomier = {found.rule.group for found in removed}
    again = [
        grant
        for grant in plan.authorizations
        if grant.rule.group in roomier and (why := refused.get(grant.rule)) and why.code == "rule-limit"
    ]
    for grant in again:
        del refused[grant.rule]
    refused |= _grant(again, stack)
    granted = {grant.rule for grant in plan.authorizations} - refused.keys()
    return Outcome(in_effect=plan.satisfied | granted, refused=refused, not_revoked=not_revoked)


def _vpcs(groups: Sequence[str]) -> dict[str, str]:
    """The VPC of each group that exists."""
    pages = client("ec2").get_paginator("describe_security_groups")
    found: dict[str, str] = {}
    for filters in _filters("group-id", groups):
        with _later():
            for page in pages.paginate(Filters=filters, PaginationConfig={"PageSize": PAGE}):
                found |= {group["GroupId"]: group["VpcId"] for group in page["SecurityGroups"]}
    # A filter is silent about what it does not find. A group that is gone has consequences, so hear it by name.
    for group in groups:
        if group not in found:
            found |= _vpc_by_id(group)
    return found


def _vpc_by_id(group: str) -> dict[str, str]:
    try:
        with _later():
            answer = client("ec2").describe_security_groups(GroupIds=[group])
    except ClientError as error:
        if code_of(error) in (GROUP_GONE, GROUP_MALFORMED):
            return {}
        raise
    return {each["GroupId"]: each["VpcId"] for each in answer["SecurityGroups"]}


def _rules(filter_name: str, values: Sequence[str]) -> Iterator[FoundRule]:
    pages = client("ec2").get_paginator("describe_security_group_rules")
    for filters in _filters(filter_name, values):
        with _later():
            for page in pages.paginate(Filters=filters, PaginationConfig={"PageSize": PAGE}):
                yield from map(_found, page["SecurityGroupRules"])


def _addresses(interfaces: Sequence[str]) -> dict[str, str]:
    """The private IPv4 address of each interface that exists."""
    pages = client("ec2").get_paginator("describe_network_interfaces")
    found: dict[str, str] = {}
    for filters in _filters("network-interface-id", interfaces):
        with _later():
            for page in pages.paginate(Filters=filters, PaginationConfig={"PageSize": PAGE}):
                found |= {
                    each["NetworkInterfaceId"]: each["PrivateIpAddress"]
                    for each in page["NetworkInterfaces"]
                    if "PrivateIpAddress" in each
                }
    return found


def _filters(name: str, values: Sequence[str]) -> Iterator[list[FilterTypeDef]]:
    """One list of filters for each request that is needed to ask for all `values`."""
    for start in range(0, len(values), FILTER_VALUES):
        yield [{"Name": name, "Values": list(values[start : start + FILTER_VALUES])}]


@contextmanager
def _later() -> Iterator[None]:
    """Failures that pass by themselves become RetryableError; all others go on as they are."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise (retryable(error) or error) from error


def _found(answer: SecurityGroupRuleTypeDef) -> FoundRule:
    peer = answer.get("ReferencedGroupInfo", {}).get("GroupId") or answer.get("PrefixListId")
    return FoundRule(
        id=answer["SecurityGroupRuleId"],
        rule=Rule(
            group=answer["GroupId"],
            direction=Direction.EGRESS if answer["IsEgress"] else Direction.INGRESS,
            peer=peer or canonical_peer(answer.get("CidrIpv4") or answer["CidrIpv6"]),
            protocol=answer["IpProtocol"],
            first_port=answer.get("FromPort", -1),
            last_port=answer.get("ToPort", -1),
        ),
        stack=next((tag["Value"] for tag in answer.get("Tags", ()) if tag["Key"] == OWNER_TAG), None),
    )


def _grant(authorizations: Iterable[AuthorizeRule], stack: str) -> dict[Rule, Problem]:
    """Make each rule; answers why for the refused ones. One refusal keeps no other rule from being made."""
    problems = {grant.rule: _grant_one(grant.rule, stack) for grant in authorizations}
    return {rule: problem for rule, problem in problems.items() if problem is not None}


def _grant_one(rule: Rule, stack: str) -> Problem | None:
    ec2 = client("ec2")
    authorize = (
        ec2.authorize_security_group_ingress
        if rule.direction is Direction.INGRESS
        else ec2.authorize_security_group_egress
    )
    try:
        with _later():
            authorize(
                GroupId=rule.group,
                IpPermissions=[_permission(rule, f"ssh through the bastion, by stack {stack}")],
                TagSpecifications=[
                    {"ResourceType": "security-group-rule", "Tags": [{"Key": OWNER_TAG, "Value": stack}]}
                ],
            )
    except ClientError as error:
        if code_of(error) != DUPLICATE:
            return _refusal(rule, code_of(error))
        # Somebody was faster. Theirs serves as well, once it can be seen.
        if rule not in (found.rule for found in _rules("group-id", [rule.group])):
            raise RetryableError(f"EC2 says that {rule} exists, and does not show it yet") from error
    return None


def _permission(rule: Rule, description: str) -> IpPermissionTypeDef:
    permission: IpPermissionTypeDef = {
        "IpProtocol": rule.protocol,
        "FromPort": rule.first_port,
        "ToPort": rule.last_port,
    }
    if rule.peer.startswith("sg-"):
        permission["UserIdGroupPairs"] = [{"GroupId": rule.peer, "Description": description}]
    elif rule.peer.startswith("pl-"):
        permission["PrefixListIds"] = [{"PrefixListId": rule.peer, "Description": description}]
    elif ":" in rule.peer:
        permission["Ipv6Ranges"] = [{"CidrIpv6": rule.peer, "Description": description}]
    else:
        permission["IpRanges"] = [{"CidrIp": rule.peer, "Description": description}]
    return permission


def _refusal(rule: Rule, code: str) -> Problem:
    if code == TOO_MANY_RULES:
        return Problem(
            "rule-limit",
            f"Security group {rule.group} already has as many {rule.direction} rules as it may have (60 by default):"
            ' remove some, or raise the quota "Inbound or outbound rules per security group".',
        )
    if code == GROUP_GONE:
        return Problem("group-gone", f"The rule {rule} was not made: one of the groups does not exist any more.")
    return Problem("rule-refused", f"EC2 refused the rule {rule} with {code}: see “Refused” in docs/bastion.md.")


def _revoke(revocations: Sequence[RevokeRule], stack: str) -> tuple[list[FoundRule], dict[FoundRule, Problem]]:
    """Take away each rule that is still ours and as it was planned: the ones that went, and why others could not.

    IAM cannot limit revoking to tagged rules, so a fresh look is what protects everybody else's.
    """
    fresh = {each.id: each for each in _rules("security-group-rule-id", [revoke.found.id for revoke in revocations])}
    removed, not_revoked = [], {}
    for found in (revoke.found for revoke in revocations):
        if fresh.get(found.id) != found or found.stack != stack:
            continue
        if problem := _revoke_one(found):
            not_revoked[found] = problem
        else:
            removed.append(found)
    return removed, not_revoked


def _revoke_one(found: FoundRule) -> Problem | None:
    ec2 = client("ec2")
    revoke = (
        ec2.revoke_security_group_ingress
        if found.rule.direction is Direction.INGRESS
        else ec2.revoke_security_group_egress
    )
    try:
        with _later():
            revoke(GroupId=found.rule.group, SecurityGroupRuleIds=[found.id])
    except ClientError as error:
        if code_of(error) not in RULE_GONE:
            return Problem(
                "rule-stuck", f"EC2 did not take away {found.id} ({found.rule}): {code_of(error)}. Remove it by hand."
            )
    return None
