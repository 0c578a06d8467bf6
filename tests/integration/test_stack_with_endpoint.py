"""A stack that makes an EC2 Instance Connect Endpoint: its rules come and go, and its end leaves nothing in the account."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import processes
from environment import STACK, LocalEnv

wait = partial(processes.wait_until)


@pytest.fixture(scope="module")
def env() -> Iterator[LocalEnv]:
    env = LocalEnv()
    try:
        env.start()
        env.make_network()
        env.update(EndpointSubnet=env.network.subnet, EndpointVpc=env.network.vpc)
        env.move_in()
        yield env
    finally:
        env.close()


def endpoints(env: LocalEnv) -> list[dict[str, Any]]:
    ec2 = env.emulator.client("ec2")
    return list(ec2.describe_instance_connect_endpoints()["InstanceConnectEndpoints"])


def our_rules(env: LocalEnv) -> set[tuple[str, bool, str]]:
    """Group, direction and other end of each rule of the stack."""
    filters = [{"Name": "tag:notebook-ssh:stack", "Values": [STACK]}]
    rules = env.emulator.client("ec2").describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
    return {(rule["GroupId"], rule["IsEgress"], rule["ReferencedGroupInfo"]["GroupId"]) for rule in rules}


def test_its_rules_come_and_go_with_the_word_in_the_tag_and_nothing_is_left_of_the_stack(env: LocalEnv) -> None:
    (endpoint,) = endpoints(env)
    (gate,) = endpoint["SecurityGroupIds"]
    group = env.network.notebook_group
    assert env.stack.outputs["EndpointId"] == endpoint["InstanceConnectEndpointId"]
    assert endpoint["PreserveClientIp"] is False
    env.create_notebook("by-endpoint")
    env.tag("by-endpoint", ssh="bastion eice")
    both = {(group, False, gate), (gate, True, group), (group, False, env.network.bastion_group)}
    wait("both ways are open", lambda: our_rules(env) == both)
    env.tag("by-endpoint", ssh="eice")
    wait("the bastion's is closed", lambda: our_rules(env) == {(group, False, gate), (gate, True, group)})

    formation = env.emulator.client("cloudformation")
    formation.delete_stack(StackName=STACK)
    wait(
        "the stack is gone",
        lambda: not [each for each in formation.describe_stacks()["Stacks"] if each["StackName"] == STACK],
    )
    assert our_rules(env) == set()
    assert endpoints(env) == []
    groups = env.emulator.client("ec2").describe_security_groups()["SecurityGroups"]
    assert gate not in {each["GroupId"] for each in groups}
