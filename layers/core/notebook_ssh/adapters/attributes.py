"""DynamoDB's notation of attributes: `{"S": "text"}`, `{"N": "7"}`, `{"M": {…}}`.

Source: API reference, "AttributeValue".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

_WHOLE = re.compile(r"-?\d{1,38}")


def to_attribute(value: Any) -> AttributeValueTypeDef:
    """Convert a plain value (None, bool, int, str, enum, list, tuple, dict) to DynamoDB's notation.

    Raises TypeError for any other type. Bytes and sets are excluded because the packed client passes attributes on
    without converting them (packaging/artifact.py).
    """
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case Enum():
            return {"S": str(value.value)}
        case int():
            return {"N": str(value)}
        case str():
            return {"S": value}
        case list() | tuple():
            return {"L": [to_attribute(item) for item in value]}
        case dict():
            return {"M": {key: to_attribute(item) for key, item in value.items()}}
    raise TypeError(f"{type(value).__name__} cannot be stored in the table")


def from_attribute(attribute: Mapping[str, Any]) -> Any:
    """Convert an attribute in DynamoDB's notation to a plain value. All numbers of the stack are integers."""
    ((kind, value),) = attribute.items()
    match kind:
        case "NULL":
            return None
        case "N":
            # A number that is not whole stays text, which no attribute of a record accepts.
            return int(value) if _WHOLE.fullmatch(value) else value
        case "L":
            return [from_attribute(item) for item in value]
        case "M":
            return {key: from_attribute(item) for key, item in value.items()}
        case _:
            return value


def item_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an item in DynamoDB's notation to plain values."""
    return {name: from_attribute(value) for name, value in attributes.items()}


def key(pk: str, sk: str) -> dict[str, AttributeValueTypeDef]:
    """Return the primary key of an item in DynamoDB's notation."""
    return {"pk": {"S": pk}, "sk": {"S": sk}}
