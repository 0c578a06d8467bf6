"""An account for scenarios of bastion mode: a VPC, a bastion's group and a table, on moto, and the real handler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from moto import mock_aws
from moto.core.responses import ActionResult
from moto.ec2.responses.security_groups import SecurityGroups
from support.builders import a_lambda_context
from support.faster_moto import make_moto_faster

from emulator.connect_endpoints import add_connect_endpoints
from emulator.security_groups import describe_rules
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.table import Table
from notebook_ssh.model.record import Network, NotebookState, Record, Route
from notebook_ssh.model.spec import Mode, NotebookSpec
from reconcile_rules import handler

make_moto_faster()

NOW = 1_800_000_000
STACK = "team-ssh"
RUNNING, STOPPED = NotebookState.IN_SERVICE, NotebookState.STOPPED


@dataclass
class BastionEnv:
    """An account with a VPC, a bastion's group and a table, a clock, and the function under test."""

    monkeypatch: pytest.MonkeyPatch
    vpc: str
    subnet: str
    bastion: str
    now: int = NOW
    table: Table = field(default_factory=lambda: Table("records"))

    def group(self, name: str, vpc: str = "") -> str:
        answer = client("ec2").create_security_group(GroupName=name, Description=name, VpcId=vpc or self.vpc)
        return answer["GroupId"]

    def notebook(
        self, name: str, *groups: str, state: NotebookState = RUNNING, modes: tuple[Mode, ...] = (Mode.BASTION,)
    ) -> Record:
        interface = client("ec2").create_network_interface(SubnetId=self.subnet, Groups=list(groups))
        record = Record(
            name,
            spec=NotebookSpec(modes),
            state=state,
            network=Network(self.subnet, groups, interface["NetworkInterface"]["NetworkInterfaceId"]),
            observed_at=NOW,
        )
        self.table.save_observed(record, None)
        return record

    def change(self, record: Record, **parts: Any) -> None:
        self.table.save_observed(replace(record, **parts), self.table.record(record.name))

    def run(self, *sent_ms: int) -> None:
        messages = [{"attributes": {"SentTimestamp": str(sent)}, "body": "{}"} for sent in sent_ms]
        handler.handle({"Records": messages}, a_lambda_context(), clock=lambda: self.now + 0.5)

    def route(self, name: str, mode: Mode = Mode.BASTION) -> Route:
        record = self.table.record(name)
        assert record is not None
        return record.routes[mode]

    def rules(self, group: str, *, egress: bool = False) -> dict[str, dict[str, Any]]:
        answer = client("ec2").describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])
        return {
            rule["SecurityGroupRuleId"]: dict(rule)
            for rule in answer["SecurityGroupRules"]
            if rule["IsEgress"] is egress
        }

    def only_rule(self, group: str, *, egress: bool = False) -> dict[str, Any]:
        (rule,) = self.rules(group, egress=egress).values()
        return rule

    def write_rule(self, group: str, **permission: Any) -> None:
        """A rule made by a person."""
        tcp_22: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **permission}
        client("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=[cast("Any", tcp_22)])

    def endpoint(self, *groups: str, **more: Any) -> str:
        """Make an endpoint, and give the stack its id."""
        made = client("ec2").create_instance_connect_endpoint(
            SubnetId=self.subnet, SecurityGroupIds=list(groups) or [self.group("endpoint")], **more
        )["InstanceConnectEndpoint"]
        self.monkeypatch.setenv("ENDPOINT_ID", made["InstanceConnectEndpointId"])
        self.monkeypatch.setenv("ENDPOINT_VPC", self.vpc)
        return made["InstanceConnectEndpointId"]

    def close_egress(self) -> None:
        client("ec2").revoke_security_group_egress(
            GroupId=self.bastion, SecurityGroupRuleIds=list(self.rules(self.bastion, egress=True))
        )

    def limit(self, group: str, *, leave: int = 0) -> None:
        """Fill `group` up to the 60 inbound rules that EC2 allows, but for `leave`."""
        for number in range(60 - leave - len(self.rules(group))):
            self.write_rule(group, IpRanges=[{"CidrIp": f"192.0.2.{number}/32"}])


@contextmanager
def bastion_env(monkeypatch: pytest.MonkeyPatch) -> Iterator[BastionEnv]:
    """An account of its own, for the time of a test."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    describe_rules()
    add_connect_endpoints()
    with mock_aws():
        ec2 = client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/16")["Subnet"]["SubnetId"]
        bastion = ec2.create_security_group(GroupName="bastion", Description="bastion", VpcId=vpc)["GroupId"]
        client("dynamodb").create_table(
            TableName="records",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        for name, value in {
            "STACK_NAME": STACK,
            "TABLE_NAME": "records",
            "AWS_REGION": "us-east-1",
            "BASTION_HOST": "bastion.example.com",
            "BASTION_SECURITY_GROUP": bastion,
            "BASTION_VPC": vpc,
            "BASTION_CLIENT_CIDRS": "",
        }.items():
            monkeypatch.setenv(name, value)
        yield BastionEnv(monkeypatch, vpc, subnet, bastion)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often each operation is called of EC2 and DynamoDB within the block."""
    calls: Counter[str] = Counter()

    def count(model: Any, **_: Any) -> None:
        calls[model.name] += 1

    services = [client("ec2"), client("dynamodb")]
    for service in services:
        service.meta.events.register("before-call", count)
    try:
        yield calls
    finally:
        for service in services:
            service.meta.events.unregister("before-call", count)


@contextmanager
def failing(
    operation: str, code: str, *, status: int = 400, when: Callable[[dict[str, Any]], bool] = lambda _: True
) -> Iterator[None]:
    """AWS answers `operation` with the error `code` where `when` says so of the request."""

    def answer(params: dict[str, Any], **_: Any) -> Any:
        if not when(params):
            return None
        error = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return SimpleNamespace(status_code=status), error

    services = [client("ec2"), client("dynamodb")]
    for service in services:
        service.meta.events.register(f"before-call.*.{operation}", answer)
    try:
        yield
    finally:
        for service in services:
            service.meta.events.unregister(f"before-call.*.{operation}", answer)


@contextmanager
def answering(
    operation: str, response: dict[str, Any], *, when: Callable[[dict[str, Any]], bool] = lambda _: True
) -> Iterator[None]:
    """EC2 answers `operation` with `response` where `when` says so of the request."""

    def answer(params: dict[str, Any], **_: Any) -> Any:
        return (SimpleNamespace(status_code=200), response) if when(params) else None

    events = client("ec2").meta.events
    events.register(f"before-call.ec2.{operation}", answer)
    try:
        yield
    finally:
        events.unregister(f"before-call.ec2.{operation}", answer)


def forgetful_filters() -> AbstractContextManager[None]:
    """For a moment, DescribeSecurityGroups finds nothing by its filters, as a read just after a change may."""
    return answering(
        "DescribeSecurityGroups", {"SecurityGroups": []}, when=lambda params: "Filter.1.Name" in params["body"]
    )


def once(condition: Callable[[dict[str, Any]], bool]) -> Callable[[dict[str, Any]], bool]:
    """`condition`, asked the first time only; the calls that it makes itself go through."""
    asked = False

    def ask(params: dict[str, Any]) -> bool:
        nonlocal asked
        if asked:
            return False
        asked = True
        return condition(params)

    return ask


def one_item_a_page(env: BastionEnv) -> None:
    """DynamoDB answers a query one item at a time."""
    ask = client("dynamodb").query
    env.monkeypatch.setattr(client("dynamodb"), "query", lambda **request: ask(**request, Limit=1))


def pages_as_in_ec2(env: BastionEnv, size: int = 1000) -> None:
    """moto answers all rules at once; EC2 pages by MaxResults (at most `size` here)."""

    def describe(self: SecurityGroups) -> ActionResult:
        start = int(self._get_param("NextToken") or 0)
        end = start + min(size, int(self._get_param("MaxResults") or size))
        rules = self.ec2_backend.describe_security_group_rules([], self._filters_from_querystring())
        more = {"NextToken": str(end)} if end < len(rules) else {}
        return ActionResult({"SecurityGroupRules": rules[start:end], **more})

    env.monkeypatch.setattr(SecurityGroups, "describe_security_group_rules", describe)
