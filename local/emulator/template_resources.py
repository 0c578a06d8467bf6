"""What a template makes in EC2 is made in moto's, which answers for EC2 here: ministack would put it into its own.

Only what the project's template has: a security group and an EC2 Instance Connect Endpoint.
"""

from __future__ import annotations

from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services.cloudformation import provisioners
from moto.ec2.models import ec2_backends

from emulator import connect_endpoints

Made = tuple[str, dict[str, Any]]
"""The physical id, and the attributes for Fn::GetAtt."""


def _backend() -> Any:
    return ec2_backends[get_account_id()][get_region()]


def _create_group(logical_id: str, props: dict[str, Any], stack: str) -> Made:
    backend, vpc = _backend(), props["VpcId"]
    group = backend.create_security_group(f"{stack}-{logical_id}", props["GroupDescription"], vpc_id=vpc)
    given = props.get("SecurityGroupEgress", [])
    if given:
        # A template's rules of egress take the place of the one to everywhere (AWS::EC2::SecurityGroup).
        backend.revoke_security_group_egress(group.id, "-1", None, None, [{"CidrIp": "0.0.0.0/0"}])
    for rule in given:
        ports = rule.get("FromPort"), rule.get("ToPort")
        backend.authorize_security_group_egress(group.id, rule["IpProtocol"], *ports, [{"CidrIp": rule["CidrIp"]}])
    return group.id, {"GroupId": group.id, "VpcId": vpc}


def _delete_group(physical_id: str, _props: dict[str, Any]) -> None:
    _backend().delete_security_group(group_id=physical_id)


def _create_endpoint(_logical_id: str, props: dict[str, Any], _stack: str) -> Made:
    preserves = str(props.get("PreserveClientIp", False)).lower() == "true"
    made = connect_endpoints.create(
        _backend(), props["SubnetId"], list(props["SecurityGroupIds"]), preserve_client_ip=preserves
    )
    return made.id, {"Id": made.id}


def _delete_endpoint(physical_id: str, _props: dict[str, Any]) -> None:
    connect_endpoints.delete(_backend(), physical_id)


def make_in_moto() -> None:
    """From now on templates make these two in moto's EC2. Any change replaces them, as it does the endpoint in AWS."""
    provisioners._RESOURCE_HANDLERS["AWS::EC2::SecurityGroup"] = {"create": _create_group, "delete": _delete_group}
    provisioners._RESOURCE_HANDLERS["AWS::EC2::InstanceConnectEndpoint"] = {
        "create": _create_endpoint,
        "delete": _delete_endpoint,
    }
