"""moto that was made faster (support/faster_moto.py) accepts and refuses the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from support.faster_moto import make_moto_faster

KEY = {"pk": {"S": "a"}}
VALUES = {":one": {"N": "1"}, ":text": {"S": "new"}}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A table `t` with one item."""
    make_moto_faster()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client: Any = botocore.session.Session().create_client("dynamodb", "us-east-1")
        client.create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        client.put_item(TableName="t", Item=KEY | {"m": {"M": {"x": {"S": "old"}}}, "n": {"N": "1"}, "gone": {"S": ""}})
        yield client


def update(table: Any, expression: str) -> dict[str, Any]:
    used = {name: value for name, value in VALUES.items() if name in expression}
    answer = table.update_item(
        TableName="t", Key=KEY, UpdateExpression=expression, ExpressionAttributeValues=used, ReturnValues="ALL_NEW"
    )
    return dict(answer["Attributes"])


def test_what_is_right_is_done(table: Any) -> None:
    expression = "SET m.x = :text, z = if_not_exists(z, :text), n = n + :one REMOVE gone ADD c :one"
    assert update(table, expression) == KEY | {
        "m": {"M": {"x": {"S": "new"}}},
        "z": {"S": "new"},
        "n": {"N": "2"},
        "c": {"N": "1"},
    }


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("SET z = :one SET y = :one", "SET.* section can only be used once"),
        ("SET z = :one REMOVE gone REMOVE n", "REMOVE.* section can only be used once"),
        ("SET z = :one, n = :one REMOVE n", "Two document paths overlap"),
        ("SET m = :one, m.x = :one", "Two document paths overlap"),
        ("SET pk = :text", "part of the key"),
        ("SET n = m + :one", "[Ii]ncorrect operand type|wrong type"),
        ("SET z = nothing + :one", "attribute that does not exist"),
    ],
)
def test_what_is_wrong_is_refused_for_its_reason(table: Any, expression: str, why: str) -> None:
    with pytest.raises(ClientError, match=why):
        update(table, expression)
