"""EC2 Instance Connect Endpoints, which moto lacks: made, described, deleted.

As EC2: one endpoint a VPC, the VPC's default group where none is named, a DNS name below the region's, and refusals in
the service's words (API reference, CreateInstanceConnectEndpoint; "Error codes for the Amazon EC2 API"). It is ready at
once under `mock_aws` and in the emulator alike.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.responses import EC2Response
from moto.ec2.utils import add_tag_specification, random_id

_FILTERS = {
    "instance-connect-endpoint-id": "id",
    "state": "state",
    "subnet-id": "subnet_id",
    "vpc-id": "vpc_id",
}


class ConnectEndpoint(TaggedEC2Resource):
    """One endpoint, with the fields that the answers need."""

    served_at: str | None = None
    """The name, with the port, at which the stand-in for all of them listens, if there is one (`tunnels.py`)."""

    def __init__(self, backend: Any, subnet: Any, groups: list[str], tags: dict[str, str], **more: Any) -> None:
        self.ec2_backend = backend
        self.id = random_id("eice")
        self.state = "create-complete"
        self.subnet_id, self.vpc_id, self.zone = subnet.id, subnet.vpc_id, subnet.availability_zone
        self.groups = groups
        self.preserves_client_ip = bool(more.get("preserve_client_ip"))
        self.created_at = datetime.now(UTC)
        self.interface = backend.create_network_interface(subnet, None, group_ids=list(groups), description=self.id).id
        region = backend.region_name
        name = f"{self.id}.{random_id('')[1:9]}.ec2-instance-connect-endpoint.{region}.amazonaws.com"
        self.dns_name = self.served_at or name
        self.add_tags(tags)

    def described(self) -> dict[str, Any]:
        """The endpoint as DescribeInstanceConnectEndpoints returns it."""
        account, region = self.ec2_backend.account_id, self.ec2_backend.region_name
        return {
            "OwnerId": account,
            "InstanceConnectEndpointId": self.id,
            "InstanceConnectEndpointArn": f"arn:aws:ec2:{region}:{account}:instance-connect-endpoint/{self.id}",
            "State": self.state,
            "StateMessage": "",
            "DnsName": self.dns_name,
            "NetworkInterfaceIds": [self.interface],
            "VpcId": self.vpc_id,
            "AvailabilityZone": self.zone,
            "CreatedAt": self.created_at,
            "SubnetId": self.subnet_id,
            "PreserveClientIp": self.preserves_client_ip,
            "SecurityGroupIds": self.groups,
            "Tags": self.get_tags(),
        }


def endpoints(backend: Any) -> dict[str, ConnectEndpoint]:
    """The endpoints of one account and region by their ids."""
    found: dict[str, ConnectEndpoint] = backend.__dict__.setdefault("connect_endpoints", {})
    return found


def create(
    backend: Any,
    subnet: str,
    groups: list[str],
    tags: dict[str, str] | None = None,
    *,
    preserve_client_ip: bool = False,
) -> ConnectEndpoint:
    """Make an endpoint. Raises what EC2 answers."""
    place = backend.get_subnet(subnet)
    if any(each.vpc_id == place.vpc_id for each in endpoints(backend).values()):
        raise EC2ClientError(
            "InstanceConnectEndpointLimitExceeded",
            f"The VPC {place.vpc_id} has an EC2 Instance Connect Endpoint already",
        )
    chosen = groups or [backend.get_default_security_group(place.vpc_id).id]
    for group in chosen:
        if backend.get_security_group_from_id(group) is None:
            raise EC2ClientError("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
    made = ConnectEndpoint(backend, place, chosen, tags or {}, preserve_client_ip=preserve_client_ip)
    endpoints(backend)[made.id] = made
    return made


def delete(backend: Any, identifier: str) -> ConnectEndpoint:
    """Delete an endpoint and its interface. Raises what EC2 answers."""
    deleted = _existing(backend, identifier)
    del endpoints(backend)[identifier]
    backend.delete_network_interface(deleted.interface)
    deleted.state = "delete-in-progress"
    return deleted


def _existing(backend: Any, identifier: str) -> ConnectEndpoint:
    if not identifier.startswith("eice-"):
        raise EC2ClientError("InvalidInstanceConnectEndpointId.Malformed", f"Invalid id: '{identifier}'")
    if identifier not in endpoints(backend):
        raise EC2ClientError("InvalidInstanceConnectEndpointId.NotFound", f"The ID '{identifier}' does not exist")
    return endpoints(backend)[identifier]


def _create(self: Any) -> ActionResult:
    tags = add_tag_specification(self._get_param("TagSpecifications", []))
    made = create(
        self.ec2_backend,
        self._get_param("SubnetId"),
        self._get_param("SecurityGroupIds", []),
        tags,
        preserve_client_ip=self._get_bool_param("PreserveClientIp", False),
    )
    return ActionResult({"InstanceConnectEndpoint": made.described()})


def _describe(self: Any) -> ActionResult:
    named = self._get_param("InstanceConnectEndpointIds", [])
    found = [_existing(self.ec2_backend, each) for each in named] or list(endpoints(self.ec2_backend).values())
    for name, values in self._filters_from_querystring().items():
        found = [each for each in found if getattr(each, _FILTERS[name]) in values]
    return ActionResult({"InstanceConnectEndpoints": [each.described() for each in found]})


def _delete(self: Any) -> ActionResult:
    return ActionResult(
        {"InstanceConnectEndpoint": delete(self.ec2_backend, self._get_param("InstanceConnectEndpointId")).described()}
    )


def add_connect_endpoints() -> None:
    """Teach moto these three actions. Calling it again changes nothing."""
    response: Any = EC2Response
    response.create_instance_connect_endpoint = _create
    response.describe_instance_connect_endpoints = _describe
    response.delete_instance_connect_endpoint = _delete
