"""The experiments on EC2 Instance Connect Endpoints: what they decide, and against either answer of the embedded AWS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from notebook_ssh_verify import probe
from notebook_ssh_verify.experiments import endpoint
from notebook_ssh_verify.experiments.endpoint import (
    Closed,
    NoAnswer,
    Opened,
    Pings,
    Reach,
    Refusals,
    Refused,
    admits,
    decide_pings,
    decide_reach,
    decide_refusals,
    read_refusal,
)
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab
from support.verification import begin, create_stack, decide, emulated_account

from emulator.process import Emulator
from processes import wait_until

BANNER = "SSH-2.0-OpenSSH_8.7"
PORT = Refused(400, "InvalidParameter", "The specified RemotePort is not valid.")
DENIED = Refused(403, "AccessDeniedException", "User: nobody is not authorized")
GONE = Closed("1011 Unable to connect to target")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Refusals(PORT, DENIED, GONE), Holds),
        (Refusals(PORT._replace(status=403), DENIED._replace(status=400), GONE), Holds),
        (Refusals(PORT._replace(code="ValidationException"), DENIED, GONE), Refuted),
        (Refusals(PORT, DENIED._replace(code="Forbidden"), GONE), Refuted),
        (Refusals(PORT._replace(status=429), DENIED, GONE), Refuted),
        (Refusals(PORT, DENIED, Closed("1000")), Refuted),
        (Refusals(PORT, DENIED, PORT), Refuted),
        (Refusals(PORT, Opened(BANNER), GONE), Refuted),
        (Refusals(DENIED, DENIED, DENIED), Undecided),
        (Refusals(PORT, DENIED, Opened("")), Undecided),
        (Refusals(PORT, NoAnswer("TimeoutError"), GONE), Undecided),
    ],
)
def test_refusals_are_as_known_if_codes_and_reason_are(seen: Refusals, expected: type[Decision]) -> None:
    assert isinstance(decide_refusals(seen), expected)


def test_what_was_seen_of_each_refusal_is_told() -> None:
    assert decide_refusals(Refusals(PORT, DENIED, GONE)) == Holds(
        "another port refused with 400 InvalidParameter: The specified RemotePort is not valid.; "
        "without the right refused with 403 AccessDeniedException: User: nobody is not authorized; "
        "no answer opened, and closed (1011 Unable to connect to target)"
    )


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Pings(True), Holds("a Ping was answered by a Pong")),
        (Pings(False), Refuted("a Ping was not answered in 5 seconds")),
        (Pings(None, GONE), Undecided(f"no tunnel to the notebook was there to try with: {GONE}")),
    ],
)
def test_a_pong_decides(seen: Pings, expected: Decision) -> None:
    assert decide_pings(seen) == expected


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Reach(Opened(BANNER), True, True), Holds),
        (Reach(Opened(BANNER), False, False), Holds),
        (Reach(PORT, True, True), Refuted),
        (Reach(PORT, False, False), Refuted),
        (Reach(GONE, True, True), Refuted),
        (Reach(Opened(""), True, True), Refuted),
        (Reach(GONE, False, True), Undecided),
        (Reach(GONE, True, False), Undecided),
        (Reach(DENIED, True, True), Undecided),
        (Reach(Refused(429, "ThrottlingException", ""), True, True), Undecided),
        (Reach(Opened("220 mail"), True, True), Undecided),
        (Reach(NoAnswer("TimeoutError"), True, True), Undecided),
    ],
)
def test_a_notebook_is_reached_if_ssh_answers(seen: Reach, expected: type[Decision]) -> None:
    assert isinstance(decide_reach(seen), expected)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"ErrorCode": "InvalidParameter", "Message": "no"}', Refused(400, "InvalidParameter", "no")),
        (b'{"__type": "Throttled", "message": "no"}', Refused(400, "Throttled", "no")),
        (b"<html>", Refused(400, "", "<html>")),
        (b"[]", Refused(400, "", "[]")),
        (b"", Refused(400, "", "")),
    ],
)
def test_a_refusal_is_read_whatever_its_shape(body: bytes, expected: Refused) -> None:
    assert read_refusal(400, body) == expected


TO_SSH: Mapping[str, Any] = {
    "IsEgress": False,
    "IpProtocol": "tcp",
    "FromPort": 22,
    "ToPort": 22,
    "ReferencedGroupInfo": {"GroupId": "sg-1"},
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (TO_SSH, True),
        ({**TO_SSH, "IpProtocol": "-1", "FromPort": -1, "ToPort": -1}, True),
        ({**TO_SSH, "IsEgress": True}, False),
        ({**TO_SSH, "ReferencedGroupInfo": {"GroupId": "sg-2"}}, False),
        ({**TO_SSH, "FromPort": 443, "ToPort": 443}, False),
        ({**TO_SSH, "IpProtocol": "udp"}, False),
    ],
)
def test_a_rule_admits_the_endpoints_group_to_ssh(rule: Mapping[str, Any], expected: bool) -> None:
    assert admits(rule, ("sg-1",)) is expected


# ---- against the embedded AWS ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    emulator = Emulator()
    try:
        yield emulator.start()
    finally:
        emulator.close()


@pytest.fixture(scope="module")
def lab(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A run with a notebook in a VPC, which an endpoint reaches."""
    folder: Path = tmp_path_factory.mktemp("journal")
    with emulated_account(emulator) as account:
        ec2 = account.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="127.252.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="127.252.1.0/24")["Subnet"]["SubnetId"]
        made = ec2.create_instance_connect_endpoint(SubnetId=subnet)["InstanceConnectEndpoint"]
        lab = begin(account, folder, environ={"AWS_CA_BUNDLE": str(emulator.authorities)})
        lab.outputs = create_stack(lab, Vpc=vpc)
        lab.stack = {"EndpointId": made["InstanceConnectEndpointId"]}
        lab.notebooks = (lab.run.name("first"),)
        lab.probes = probe.parse([f"nbssh-verify sshd-runs banner={BANNER}"])
        account.call(
            "sagemaker",
            "create_notebook_instance",
            NotebookInstanceName=lab.notebooks[0],
            InstanceType="ml.t3.medium",
            RoleArn=lab.outputs["NotebookRole"],
            SubnetId=subnet,
            SecurityGroupIds=[lab.outputs["NotebookGroup"]],
        )
        wait_until("the notebook is InService", lambda: status(lab) == "InService")
        group = {"GroupId": made["SecurityGroupIds"][0]}
        ec2.authorize_security_group_ingress(
            GroupId=lab.outputs["NotebookGroup"],
            IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [group]}],
        )
        yield lab


def status(lab: Lab) -> str:
    return str(lab.describe_notebook(lab.notebooks[0])["NotebookInstanceStatus"])


@pytest.mark.parametrize(
    ("fact", "answer", "expected"),
    [
        ("endpoint-refusals", "as-known", Holds),
        ("endpoint-refusals", "other", Refuted),
        ("endpoint-pings", "pong", Holds),
        ("endpoint-pings", "silent", Refuted),
        ("eice-interface", "reaches", Holds),
        ("eice-interface", "refused", Refuted),
    ],
)
def test_an_experiment_finds_the_answer_that_is_given(
    emulator: Emulator, lab: Lab, fact: str, answer: str, expected: type[Decision]
) -> None:
    with emulator.answering({fact: answer}):
        decision = decide(lab, fact)
    assert isinstance(decision, expected), decision


@pytest.mark.parametrize("fact", ["endpoint-refusals", "endpoint-pings", "eice-interface"])
def test_without_an_endpoint_nothing_is_decided(lab: Lab, fact: str) -> None:
    assert isinstance(decide(replace(lab, stack={}), fact), Undecided)


def test_where_no_rule_admits_the_endpoint_the_stack_is_asked_by_a_tag_that_goes_again(lab: Lab) -> None:
    target = endpoint.find_target(lab)
    assert target is not None
    with endpoint.admitted(lab, target._replace(endpoint_groups=("sg-other",)), 0) as is_in_effect:
        assert tags(lab) == {lab.run.tag_key: "eice"}
    assert not is_in_effect
    assert tags(lab) == {}
    with endpoint.admitted(lab, target) as is_in_effect:
        assert tags(lab) == {}
    assert is_in_effect


def tags(lab: Lab) -> dict[str, str]:
    arn = lab.describe_notebook(lab.notebooks[0])["NotebookInstanceArn"]
    return {each["Key"]: each["Value"] for each in lab.account.call("sagemaker", "list_tags", ResourceArn=arn)["Tags"]}


def test_an_endpoint_that_is_not_trusted_decides_nothing(lab: Lab) -> None:
    decision = decide(replace(lab, environ={}), "endpoint-pings")
    assert isinstance(decision, Undecided)
    assert "CERTIFICATE_VERIFY_FAILED" in decision.why
