"""Tunnels through an endpoint of the emulated account: IAM decides with the condition keys of OpenTunnel, then the network."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from emulator.process import ACCOUNT, REGION, Emulator
from notebook_ssh_client.credentials import AccessKey
from notebook_ssh_client.endpoint import presigned_url
from notebook_ssh_client.ssh_address import Endpoint
from patience import LIMIT_S

OPENED = "Unable to connect to target"
"""What a tunnel ends with that was opened: nothing is at the address."""

DENIED, INVALID = "AccessDeniedException", "InvalidParameter"
ARN = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance-connect-endpoint"


class Account:
    """An account with an endpoint in a VPC. address: one in it, at which there is nothing."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        ec2 = emulator.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="127.251.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="127.251.1.0/24")["Subnet"]["SubnetId"]
        made = ec2.create_instance_connect_endpoint(SubnetId=subnet)["InstanceConnectEndpoint"]
        self.id, self.dns_name, self.address = made["InstanceConnectEndpointId"], made["DnsName"], "127.251.1.99"

    def user(self, name: str, *statements: dict[str, Any]) -> AccessKey:
        iam = self.emulator.client("iam")
        iam.create_user(UserName=name)
        for number, statement in enumerate(statements):
            document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            iam.put_user_policy(UserName=name, PolicyName=f"p{number}", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return AccessKey(key["AccessKeyId"], key["SecretAccessKey"], None)

    def ask(self, key: AccessKey, port: int = 22, seconds: int | None = None, endpoint: str = "") -> str:
        """Open a tunnel; return the code of the refusal, or what the tunnel ends with."""
        asked = Endpoint(endpoint or self.id, self.dns_name, REGION, "stack")
        url = presigned_url(asked, self.address, port, key, seconds)
        trusted = ssl.create_default_context(cafile=str(self.emulator.authorities))
        try:
            tunnel = connect(url, ssl=trusted, proxy=None, open_timeout=LIMIT_S)
            with tunnel, pytest.raises(ConnectionClosedError) as ended:
                tunnel.recv()
            return str(ended.value.rcvd and ended.value.rcvd.reason)
        except InvalidStatus as error:
            return str(json.loads(error.response.body or b"{}")["ErrorCode"])


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with closing(Emulator(machines=False)) as emulator:
        yield Account(emulator.start())


def allow(conditions: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a statement that allows tunnels."""
    statement = {"Effect": "Allow", "Action": "ec2-instance-connect:OpenTunnel", "Resource": f"{ARN}/*", **fields}
    return {**statement, "Condition": conditions} if conditions else statement


PORT = {"NumericEquals": {"ec2-instance-connect:remotePort": "22"}}
ADDRESS = {"IpAddress": {"ec2-instance-connect:privateIpAddress": "127.251.1.0/24"}}
ELSEWHERE = {"IpAddress": {"ec2-instance-connect:privateIpAddress": "127.250.0.0/16"}}
HOUR = {"NumericLessThanEquals": {"ec2-instance-connect:maxTunnelDuration": "3600"}}
TEN_MINUTES = {"NumericLessThanEquals": {"ec2-instance-connect:maxTunnelDuration": "600"}}

DECISIONS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "no policy": ([], {}, DENIED),
    "allowed": ([allow()], {}, OPENED),
    "another action": ([allow(Action="ec2-instance-connect:SendSSHPublicKey")], {}, DENIED),
    "another endpoint": ([allow(Resource=f"{ARN}/eice-other")], {}, DENIED),
    "an endpoint that does not exist": ([allow()], {"endpoint": "eice-00000000000000000"}, INVALID),
    "denied": ([allow(), allow(Effect="Deny")], {}, DENIED),
    "the port": ([allow(PORT)], {}, OPENED),
    "another port": ([allow(PORT)], {"port": 3389}, DENIED),
    "a port that no endpoint leads to": ([allow()], {"port": 8888}, INVALID),
    "the address": ([allow(ADDRESS)], {}, OPENED),
    "another address": ([allow(ELSEWHERE)], {}, DENIED),
    "no longer than an hour": ([allow(HOUR)], {}, OPENED),
    "ten minutes, and an hour asked for": ([allow(TEN_MINUTES)], {}, DENIED),
    "ten minutes, asked for": ([allow(TEN_MINUTES)], {"seconds": 600}, OPENED),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_who_may_open_a_tunnel(account: Account, case: str) -> None:
    statements, asked, expected = DECISIONS[case]
    key = account.user(case.replace(" ", "-").replace(",", ""), *statements)
    assert account.ask(key, **asked) == expected


def test_a_session_of_a_role(account: Account) -> None:
    iam, sts = account.emulator.client("iam"), account.emulator.client("sts")
    trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]["Arn"]
    made = sts.assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    key = AccessKey(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])
    assert account.ask(key) == DENIED
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=json.dumps({"Statement": [allow()]}))
    assert account.ask(key) == OPENED
    assert account.ask(key._replace(token="another")) == "InvalidToken"
