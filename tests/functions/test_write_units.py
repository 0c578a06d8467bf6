"""What a report costs the table: one write unit for a usual notebook, and one replacement after an upgrade."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pytest
from support.api_env import ApiEnv, api_env
from support.builders import HOST_KEY, NOW, a_record, a_report, wire

from notebook_ssh.adapters.attributes import key, to_attribute
from notebook_ssh.adapters.clients import client
from notebook_ssh.model.record import Endpoint, Network, Record, Route
from notebook_ssh.model.spec import Mode, NotebookSpec, tag_value

UNIT = 1024
"""Bytes of a write unit (DynamoDB developer guide, "DynamoDB read and write operations")."""

ECDSA_KEY = f"ecdsa-sha2-nistp256 {wire(b'ecdsa-sha2-nistp256', b'nistp256', bytes([4]) + bytes(range(64)))}"
USUAL = {
    "name": "churn-model-training-2",
    "arn": "arn:aws:sagemaker:us-east-1:123456789012:notebook-instance/churn-model-training-2",
    "role": "AmazonSageMaker-ExecutionRole-20260101T120000",
    "lifecycle_config": "data-science-on-start",
    "network": Network("subnet-0123456789abcdef0", ("sg-0123456789abcdef0",), "eni-0123456789abcdef0"),
    "observed_hash": "0123456789abcdef",
    "notified_status": "connected",
    "spec_changed_at": NOW - 5000,
    "first_connected": True,
}
"""A notebook with a name and a role as SageMaker's console makes them."""


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        yield env


def size(attribute: Mapping[str, Any]) -> int:
    """Bytes of an attribute's value (DynamoDB developer guide, "DynamoDB item sizes and formats")."""
    ((kind, value),) = attribute.items()
    match kind:
        case "NULL" | "BOOL":
            return 1
        case "N":
            return (len(value.strip("-").strip("0")) + 1) // 2 + 1
        case "S":
            return len(value.encode())
        case "L":
            return 3 + sum(1 + size(each) for each in value)
        case "M":
            return 3 + sum(1 + len(name) + size(each) for name, each in value.items())
    raise AssertionError(kind)


def bytes_of(record: Record) -> int:
    item = client("dynamodb").get_item(TableName="records", Key=key("notebook", record.name))["Item"]
    return sum(len(name) + size(value) for name, value in item.items())


THROUGH_ENDPOINT = Route(
    open=True,
    private_ip="10.0.12.34",
    since=NOW - 400,
    endpoint=Endpoint(
        "eice-0123456789abcdef0",
        "eice-0123456789abcdef0.1a2b3c4d.ec2-instance-connect-endpoint.eu-central-1.amazonaws.com",
    ),
)


@pytest.mark.parametrize(
    ("parts", "units"),
    [
        ({"spec": NotebookSpec((Mode.NGROK,), users=("mario", "ana"))}, 1),
        (
            {
                "spec": NotebookSpec((Mode.BASTION,)),
                "routes": {Mode.BASTION: Route(open=True, private_ip="10.0.12.34", since=NOW - 400)},
            },
            1,
        ),
        # The endpoint's DNS name is in the record, since a lookup is one read.
        ({"spec": NotebookSpec((Mode.EICE,)), "routes": {Mode.EICE: THROUGH_ENDPOINT}}, 2),
        ({"spec": NotebookSpec((Mode.EICE, Mode.NGROK)), "routes": {Mode.EICE: THROUGH_ENDPOINT}}, 2),
    ],
    ids=["ngrok", "bastion", "eice", "eice ngrok"],
)
def test_a_report_of_a_usual_notebook_takes_no_more_write_units_than_the_page_says(
    env: ApiEnv, parts: dict[str, Any], units: int
) -> None:
    modes = parts["spec"].modes
    address = {"host": "0.tcp.eu.ngrok.io", "port": 17887} if Mode.NGROK in modes else {"host": None, "port": None}
    told = {
        "modes": [str(mode) for mode in modes],
        "boot": "b6c1e1b6-0000-4000-8000-000000000001",
        # What Amazon Linux 2023 makes (its user guide, "Default SSH server configuration").
        "host_keys": [HOST_KEY, ECDSA_KEY],
        "keys": {"own": 2, "central": 2, "rejected": []},
        "sessions": {"open": 1, "active_at": NOW},
    } | address
    record = env.knows(a_record(**USUAL, **parts))
    caller = {
        "requestId": "r",
        "accountId": "123456789012",
        "identity": {"userArn": f"arn:aws:sts::123456789012:assumed-role/{record.role}/SageMaker"},
    }
    for sequence in (1, 2):
        said = env.report(told | {"sequence": sequence}, name=record.name, requestContext=caller)
        assert said.status == 200, said.text
    assert (units - 1) * UNIT < bytes_of(record) <= units * UNIT


def test_a_report_that_an_earlier_version_wrote_whole_is_replaced_once(env: ApiEnv) -> None:
    env.knows(a_record())
    whole = asdict(a_report())
    whole["mode"] = tag_value(whole.pop("modes"))
    client("dynamodb").update_item(
        TableName="records",
        Key=key("notebook", "demo"),
        UpdateExpression="SET #report = :report",
        ExpressionAttributeNames={"#report": "report"},
        ExpressionAttributeValues={":report": to_attribute(whole)},
    )
    writes = []
    for sequence in (6, 7):
        env.since()
        assert env.report({"sequence": sequence}).status == 200
        writes.append(env.since()["UpdateItem"])
    assert writes == [2, 1]
    assert env.report_of("demo") == a_report(sequence=7, received_at=NOW)
