"""Security-group rules, network interfaces and the endpoint in EC2: reads them completely, and applies a plan.

Reads are paged and filtered by ids, so their number grows with the pages of the fleet. Writes are one call for each
rule, because EC2 refuses a whole call when one rule in it exists already (API reference,
AuthorizeSecurityGroupIngress).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from notebook_ssh.adapters.clients import call, client, code_of, pages
from notebook_ssh.errors import NotAllowedError, Problem, RetryableError
from notebook_ssh.model.network import Direction, Ec2Query, FoundEndpoint, FoundRule, NetworkState, Rule, canonical_peer
from notebook_ssh.model.record import OWNER_TAG, ROUTED
from notebook_ssh.planning.rules import AuthorizeRule, Outcome, RevokeRule, RulePlan

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, IpPermissionTypeDef, SecurityGroupRuleTypeDef

FILTER_VALUES = 200
"""Most values of one filter in a request (API reference, `Filter.N.Value.M`)."""
PAGE = 1000
"""Most items of a page of the three Describe actions used here (API reference, `MaxResults`)."""

DUPLICATE = "InvalidPermission.Duplicate"
GROUP_GONE = "InvalidGroup.NotFound"
ENDPOINT_GONE = frozenset({"InvalidInstanceConnectEndpointId.NotFound", "InvalidInstanceConnectEndpointId.Malformed"})
GROUP_MALFORMED = "InvalidGroupId.Malformed"
TOO_MANY_RULES = "RulesPerSecurityGroupLimitExceeded"
NOUNS = tuple(mode.entrance for mode in ROUTED)
"""What the stack's rules lead through, in their descriptions."""
RULE_GONE = frozenset({"InvalidPermission.NotFound", "InvalidSecurityGroupRuleId.NotFound", GROUP_GONE})


def observe(stack: str, query: Ec2Query) -> NetworkState:
    """Read the resources of a query, the rules of its groups, and every rule tagged with `stack`.

    Raises RetryableError when any read fails; there is no partial result.
    """
    vpc_of = _vpcs(query.groups)
    found = {each.id: each for each in _rules(f"tag:{OWNER_TAG}", [stack])}
    found |= {each.id: each for each in _rules("group-id", sorted(vpc_of))}
    others = {each.rule.group for each in found.values()} - vpc_of.keys()
    return NetworkState(vpc_of | _vpcs(sorted(others)), _addresses(query.interfaces), tuple(found.values()))


def observe_endpoint(endpoint: str) -> FoundEndpoint | None:
    """Return the EC2 Instance Connect Endpoint with this id, or None only if EC2 answers that there is none.

    Raises RetryableError when EC2 throttles or does not answer: an endpoint that was not read is not gone.
    """
    try:
        response = call(client("ec2").describe_instance_connect_endpoints, InstanceConnectEndpointIds=[endpoint])
    except ClientError as error:
        if code_of(error) in ENDPOINT_GONE:
            return None
        raise
    for each in response["InstanceConnectEndpoints"]:
        return FoundEndpoint(
            id=each["InstanceConnectEndpointId"],
            state=each["State"],
            vpc=each.get("VpcId", ""),
            groups=tuple(sorted(each.get("SecurityGroupIds", ()))),
            dns_name=each.get("DnsName", ""),
            preserves_client_ip=each.get("PreserveClientIp", False),
        )
    raise RetryableError(f"EC2 does not describe the endpoint {endpoint}, and does not say that there is none")


def apply(plan: RulePlan, stack: str) -> Outcome:
    """Authorize rules, revoke rules, then authorize the rules for which revoking made room.

    Raises RetryableError when EC2 throttles or does not answer; earlier changes persist, and the next run finds them.
    """
    refused = _authorize(plan.authorizations, stack)
    removed, not_revoked = _revoke(plan.revocations, stack)
    with_room = {found.rule.group for found in removed}
    retried = [
        each
        for each in plan.authorizations
        if each.rule.group in with_room and (problem := refused.get(each.rule)) and problem.code == "rule-limit"
    ]
    for each in retried:
        del refused[each.rule]
    refused |= _authorize(retried, stack)
    authorized = {each.rule for each in plan.authorizations} - refused.keys()
    return Outcome(plan.satisfied | authorized, refused, not_revoked={**plan.left, **not_revoked})


def _vpcs(groups: Sequence[str]) -> dict[str, str]:
    """Return the VPC of each group that exists."""
    paginator = client("ec2").get_paginator("describe_security_groups")
    found: dict[str, str] = {}
    for filters in _filters("group-id", groups):
        for page in pages(paginator, Filters=filters, PaginationConfig={"PageSize": PAGE}):
            found |= {group["GroupId"]: group["VpcId"] for group in page["SecurityGroups"]}
    # A filter does not report what it did not find, and rules are planned on a group's absence: ask for it by id.
    for group in groups:
        if group not in found:
            found |= _vpc_by_id(group)
    return found


def _vpc_by_id(group: str) -> dict[str, str]:
    try:
        response = call(client("ec2").describe_security_groups, GroupIds=[group])
    except ClientError as error:
        if code_of(error) in (GROUP_GONE, GROUP_MALFORMED):
            return {}
        raise
    return {each["GroupId"]: each["VpcId"] for each in response["SecurityGroups"]}


def _rules(filter_name: str, values: Sequence[str]) -> Iterator[FoundRule]:
    paginator = client("ec2").get_paginator("describe_security_group_rules")
    for filters in _filters(filter_name, values):
        for page in pages(paginator, Filters=filters, PaginationConfig={"PageSize": PAGE}):
            yield from map(_found, page["SecurityGroupRules"])


def _addresses(interfaces: Sequence[str]) -> dict[str, str]:
    """Return the private IPv4 address of each interface that exists."""
    paginator = client("ec2").get_paginator("describe_network_interfaces")
    found: dict[str, str] = {}
    for filters in _filters("network-interface-id", interfaces):
        for page in pages(paginator, Filters=filters, PaginationConfig={"PageSize": PAGE}):
            found |= {
                each["NetworkInterfaceId"]: each["PrivateIpAddress"]
                for each in page["NetworkInterfaces"]
                if "PrivateIpAddress" in each
            }
    return found


def _filters(name: str, values: Sequence[str]) -> Iterator[list[FilterTypeDef]]:
    """Yield the filters of each request that is needed for all values."""
    for start in range(0, len(values), FILTER_VALUES):
        yield [{"Name": name, "Values": list(values[start : start + FILTER_VALUES])}]


def _found(response: SecurityGroupRuleTypeDef) -> FoundRule:
    peer = response.get("ReferencedGroupInfo", {}).get("GroupId") or response.get("PrefixListId")
    return FoundRule(
        id=response["SecurityGroupRuleId"],
        rule=Rule(
            group=response["GroupId"],
            direction=Direction.EGRESS if response["IsEgress"] else Direction.INGRESS,
            peer=peer or canonical_peer(response.get("CidrIpv4") or response["CidrIpv6"]),
            protocol=response["IpProtocol"],
            first_port=response.get("FromPort", -1),
            last_port=response.get("ToPort", -1),
        ),
        stack=_stack_of(response),
    )


def _stack_of(response: SecurityGroupRuleTypeDef) -> str | None:
    """Return the stack that made a rule. Its tag is not enough: `ec2:CreateTags` alone can put it on any rule."""
    tagged = next((tag["Value"] for tag in response.get("Tags", ()) if tag["Key"] == OWNER_TAG), None)
    return tagged if tagged and response.get("Description") in [_description(noun, tagged) for noun in NOUNS] else None


def _description(noun: str | None, stack: str) -> str:
    return f"ssh through the {noun}, by stack {stack}"


def _authorize(authorizations: Iterable[AuthorizeRule], stack: str) -> dict[Rule, Problem]:
    """Authorize each rule, and return the problem of each that EC2 refused."""
    problems = {each.rule: _authorize_rule(each.rule, _description(each.noun, stack), stack) for each in authorizations}
    return {rule: problem for rule, problem in problems.items() if problem is not None}


def _authorize_rule(rule: Rule, description: str, stack: str) -> Problem | None:
    ec2 = client("ec2")
    authorize = (
        ec2.authorize_security_group_ingress
        if rule.direction is Direction.INGRESS
        else ec2.authorize_security_group_egress
    )
    try:
        call(
            authorize,
            GroupId=rule.group,
            IpPermissions=[_permission(rule, description)],
            TagSpecifications=[{"ResourceType": "security-group-rule", "Tags": [{"Key": OWNER_TAG, "Value": stack}]}],
        )
    except NotAllowedError as denied:
        return replace(denied.problem, message=f"The rule {rule} was not made. {denied.problem.message}")
    except ClientError as error:
        if code_of(error) != DUPLICATE:
            return _refusal(rule, code_of(error))
        # An equal rule of another owner serves as well, once reads return it.
        if rule not in (found.rule for found in _rules("group-id", [rule.group])):
            raise RetryableError(f"EC2 reports that {rule} exists, and does not list it yet") from error
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
    """Revoke each rule that still has the stack's tag and is as it was planned.

    Returns the rules that were revoked, and the problem of each that EC2 refused. IAM cannot limit revoking to tagged
    rules (Service Authorization Reference), so the rules are read again here to protect those of other owners.
    """
    fresh = {each.id: each for each in _rules("security-group-rule-id", [revoke.found.id for revoke in revocations])}
    removed, not_revoked = [], {}
    for found in (revoke.found for revoke in revocations):
        if fresh.get(found.id) != found or found.stack != stack:
            continue
        if problem := _revoke_rule(found):
            not_revoked[found] = problem
        else:
            removed.append(found)
    return removed, not_revoked


def _revoke_rule(found: FoundRule) -> Problem | None:
    ec2 = client("ec2")
    revoke = (
        ec2.revoke_security_group_ingress
        if found.rule.direction is Direction.INGRESS
        else ec2.revoke_security_group_egress
    )
    try:
        call(revoke, GroupId=found.rule.group, SecurityGroupRuleIds=[found.id])
    except NotAllowedError as denied:
        return Problem("rule-stuck", f"The rule {found.id} ({found.rule}) was not revoked. {denied.problem.message}")
    except ClientError as error:
        if code_of(error) not in RULE_GONE:
            return Problem(
                "rule-stuck", f"EC2 did not revoke {found.id} ({found.rule}): {code_of(error)}. Remove it manually."
            )
    return None
