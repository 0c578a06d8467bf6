"""The three AWS accounts that tests and the local run use in place of AWS, behind one face.

Each gives clients as the adapters ask for them, and does what only people do: make a notebook or a security group, and
wait until every notebook has arrived at its next status.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

import boto3
import pytest
from moto import mock_aws
from simulation.account import BASTION_VPC, Account, Notebook, pages
from support.faster_moto import make_moto_faster

import processes
from emulator import sagemaker
from emulator.process import Emulator

make_moto_faster()

TABLE = "contract"
ROLE = "arn:aws:iam::123456789012:role/notebook"
ON_THE_WAY = ("Pending", "Stopping", "Updating", "Deleting")


class Aws(Protocol):
    """An account with the table `contract`."""

    def client(self, service: str) -> Any:
        """A client of `service`, with the methods of boto3's."""

    def make_notebook(self, name: str, lifecycle_config: str | None = None, **tags: str) -> None:
        """A running notebook of a person's."""

    def make_group(self, name: str) -> str:
        """A security group without any rule of ingress; its id."""

    def make_endpoint(self, name: str) -> str:
        """An EC2 Instance Connect Endpoint in a VPC of its own; its id."""

    def delete_endpoint(self, endpoint: str) -> None:
        """Delete it."""

    def settle(self) -> None:
        """Return when no notebook is on its way from one status to another, and the tagging API knows every tag."""


@dataclass
class InMemory:
    """The account of the simulation."""

    moments: Iterator[int] = field(default_factory=lambda: itertools.count(1_800_000_000_000, 1_000))
    account: Account = field(init=False)

    def __post_init__(self) -> None:
        self.account = Account(clock=lambda: next(self.moments), tell=lambda kind, resource: None)
        self.account.page = 3

    def client(self, service: str) -> Any:
        api: Any = self.account.table if service == "dynamodb" else self.account

        def paginator(operation: str) -> Any:
            ask: Callable[..., Any] = getattr(api, operation)
            return SimpleNamespace(paginate=lambda **given: pages(ask, given))

        return _With(api, get_paginator=paginator)

    def make_notebook(self, name: str, lifecycle_config: str | None = None, **tags: str) -> None:
        self.account.create_notebook(
            Notebook(name, "notebook", 0, lifecycle_config=lifecycle_config, tags=_tag_keys(tags))
        )
        self.settle()

    def make_group(self, name: str) -> str:
        identifier = f"sg-{len(self.account.groups):017x}"
        self.account.groups[identifier] = BASTION_VPC
        return identifier

    def make_endpoint(self, name: str) -> str:
        identifier = f"eice-{len(self.account.groups):017x}"
        self.account.endpoints[identifier] = self.make_group(name), BASTION_VPC
        return identifier

    def delete_endpoint(self, endpoint: str) -> None:
        del self.account.endpoints[endpoint]

    def settle(self) -> None:
        for notebook in list(self.account.notebooks.values()):
            self.account.arrive(notebook)
            self.account.index(notebook)


class _Clients:
    """What moto and the emulator have in common: boto3's clients, through which people do their part too."""

    def client(self, service: str) -> Any:
        raise NotImplementedError

    def make_notebook(self, name: str, lifecycle_config: str | None = None, **tags: str) -> None:
        configured = {"LifecycleConfigName": lifecycle_config} if lifecycle_config else {}
        self.client("sagemaker").create_notebook_instance(
            NotebookInstanceName=name,
            InstanceType="ml.t3.medium",
            RoleArn=ROLE,
            Tags=[{"Key": key, "Value": value} for key, value in _tag_keys(tags).items()],
            **configured,
        )
        self.settle()

    def make_group(self, name: str) -> str:
        ec2 = self.client("ec2")
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        group = ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)
        return str(group["GroupId"])

    def make_endpoint(self, name: str) -> str:
        ec2 = self.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.0.0/24")["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
        made = ec2.create_instance_connect_endpoint(SubnetId=subnet, SecurityGroupIds=[group], PreserveClientIp=False)
        return str(made["InstanceConnectEndpoint"]["InstanceConnectEndpointId"])

    def delete_endpoint(self, endpoint: str) -> None:
        self.client("ec2").delete_instance_connect_endpoint(InstanceConnectEndpointId=endpoint)

    def settle(self) -> None:
        raise NotImplementedError

    def make_table(self) -> None:
        self.client("dynamodb").create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            BillingMode="PAY_PER_REQUEST",
        )


class Moto(_Clients):
    """moto, with the SageMaker of the local run: what the functions' tests use."""

    def client(self, service: str) -> Any:
        return boto3.client(service, region_name="us-east-1")  # type: ignore[call-overload]  # any of them

    def settle(self) -> None:
        sagemaker.finish_transitions()


class Emulated(_Clients):
    """The emulated AWS of the local run, asked over HTTP. Its notebooks have their statuses alone."""

    def __init__(self) -> None:
        self.emulator = Emulator(machines=False)

    def client(self, service: str) -> Any:
        return self.emulator.client(service)

    def settle(self) -> None:
        processes.wait_until("every notebook has arrived", self._has_settled)

    def _has_settled(self) -> bool:
        notebooks = self.client("sagemaker").list_notebook_instances()["NotebookInstances"]
        return not any(each["NotebookInstanceStatus"] in ON_THE_WAY for each in notebooks)


@contextmanager
def in_memory() -> Iterator[Aws]:
    """The account of the simulation."""
    yield InMemory()


@contextmanager
def moto() -> Iterator[Aws]:
    """moto in this process."""
    sagemaker.extend_moto()
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        account = Moto()
        account.make_table()
        yield account


@contextmanager
def emulated() -> Iterator[Aws]:
    """The emulated AWS, in a process of its own."""
    account = Emulated()
    try:
        account.emulator.start()
        account.make_table()
        yield account
    finally:
        account.emulator.close()


ACCOUNTS: Mapping[str, Callable[[], Any]] = {"in memory": in_memory, "moto": moto, "emulator": emulated}


class _With:
    """`api` with something more."""

    def __init__(self, api: Any, **more: Any) -> None:
        self._api = api
        self.__dict__.update(more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)


def _tag_keys(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.replace("_", "-"): value for key, value in tags.items()}
