"""What a template makes in EC2 is made in moto's, which answers for EC2 here: ministack would put it into its own.

Only what the project's templates have: a security group, a rule of one, and an EC2 Instance Connect Endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services.cloudformation import provisioners
from moto.ec2.models import ec2_backends

from emulator import connect_endpoints

Made = tuple[str, dict[str, Any]]
"""The physical id, and the attributes for Fn::GetAtt."""


def _backend() -> Any:
    return ec2_backends[get_account_id()][get_region()]


def _tags(props: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in props.get("Tags", [])}


def _create_group(logical_id: str, props: dict[str, Any], stack: str) -> Made:
    backend, vpc = _backend(), props["VpcId"]
    name = props.get("GroupName") or f"{stack}-{logical_id}"
    group = backend.create_security_group(name, props["GroupDescription"], vpc_id=vpc, tags=_tags(props))
    egress = props.get("SecurityGroupEgress", [])
    if egress:
        # A template's rules of egress take the place of the one to everywhere (AWS::EC2::SecurityGroup).
        backend.revoke_security_group_egress(group.id, "-1", None, None, [{"CidrIp": "0.0.0.0/0"}])
    for rule in egress:
        backend.authorize_security_group_egress(group.id, **_rule(rule, "DestinationSecurityGroupId"))
    for rule in props.get("SecurityGroupIngress", []):
        backend.authorize_security_group_ingress(group.id, **_rule(rule, "SourceSecurityGroupId"))
    return group.id, {"GroupId": group.id, "VpcId": vpc}


def _rule(rule: dict[str, Any], other_group: str) -> dict[str, Any]:
    """A rule of a template as moto takes it. other_group: the property that names a group in place of addresses."""
    return {
        "ip_protocol": rule["IpProtocol"],
        "from_port": rule.get("FromPort"),
        "to_port": rule.get("ToPort"),
        "ip_ranges": [{"CidrIp": rule["CidrIp"]}] if "CidrIp" in rule else [],
        "source_groups": [{"GroupId": rule[other_group]}] if other_group in rule else [],
    }


def _create_ingress(_logical_id: str, props: dict[str, Any], _stack: str) -> Made:
    made, _ = _backend().authorize_security_group_ingress(props["GroupId"], **_rule(props, "SourceSecurityGroupId"))
    return made[0].id, {"Id": made[0].id}


def _delete_ingress(_physical_id: str, props: dict[str, Any]) -> None:
    _backend().revoke_security_group_ingress(props["GroupId"], **_rule(props, "SourceSecurityGroupId"))


def _delete_group(physical_id: str, _props: dict[str, Any]) -> None:
    _backend().delete_security_group(group_id=physical_id)


def _create_endpoint(_logical_id: str, props: dict[str, Any], _stack: str) -> Made:
    preserves = str(props.get("PreserveClientIp", False)).lower() == "true"
    groups = list(props.get("SecurityGroupIds", []))
    made = connect_endpoints.create(_backend(), props["SubnetId"], groups, _tags(props), preserve_client_ip=preserves)
    return made.id, {"Id": made.id}


def _delete_endpoint(physical_id: str, _props: dict[str, Any]) -> None:
    connect_endpoints.delete(_backend(), physical_id)


MADE: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "AWS::EC2::SecurityGroup": {"create": _create_group, "delete": _delete_group},
    "AWS::EC2::SecurityGroupIngress": {"create": _create_ingress, "delete": _delete_ingress},
    "AWS::EC2::InstanceConnectEndpoint": {"create": _create_endpoint, "delete": _delete_endpoint},
}


def make_in_moto() -> None:
    """From now on templates make these in moto's EC2. Any change replaces them, as it does the endpoint in AWS."""
    provisioners._RESOURCE_HANDLERS.update({kind: dict(handlers) for kind, handlers in MADE.items()})
