"""DynamoDB as far as this project uses it, in memory: items in DynamoDB's own notation, and expressions that are obeyed.

An item is never changed in place: a reader keeps what was read. Every write remembers what was there before, so
that a read that did not ask for consistency can be given the older item.
"""

# ruff: noqa: N803  parameters are named as AWS names them
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from simulation.errors import refusal

from notebook_ssh.adapters.clients import NO_SUCH_ATTRIBUTE

Item = Mapping[str, Any]
Path = tuple[str, ...]
Condition = Callable[[Item, Mapping[str, Any]], bool]
Change = Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]]

_TOKEN = re.compile(r"\s*(?:(\(|\)|,|\+|<=|>=|<>|<|>|=)|([#:]?[A-Za-z_][A-Za-z0-9_]*(?:\.[#A-Za-z_][A-Za-z0-9_]*)*))")


class Dynamo:
    """One table with the key `pk`, `sk`. page: items of a page of a query. unread: keys that a batch leaves out."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}
        self.before: dict[tuple[str, str], Item | None] = {}
        self.writes = 0
        self.page = 1000
        self.unread = 0
        self.stale = False
        self.stale_reads = 0

    # ---- operations, as botocore names them

    def get_item(self, *, TableName: str, Key: Item, ConsistentRead: bool = False) -> dict[str, Any]:
        item = self._read(_key(Key), consistent=ConsistentRead)
        return {"Item": item} if item is not None else {}

    def batch_get_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:
        """The last `unread` keys are left unprocessed, as DynamoDB may do with any of them."""
        ((table, asked),) = RequestItems.items()
        keys, consistent = asked["Keys"], asked.get("ConsistentRead", False)
        found = [self._read(_key(each), consistent=consistent) for each in keys[: max(0, len(keys) - self.unread)]]
        left = keys[max(0, len(keys) - self.unread) :]
        return {
            "Responses": {table: [item for item in found if item is not None]},
            "UnprocessedKeys": {table: asked | {"Keys": left}} if left else {},
        }

    def query(
        self,
        *,
        TableName: str,
        KeyConditionExpression: str,
        ExpressionAttributeValues: Mapping[str, Any],
        ConsistentRead: bool = False,
        ExclusiveStartKey: Item | None = None,
        **projection: Any,
    ) -> dict[str, Any]:
        """Whole items, whatever the projection: more than was asked for does no harm to a reader of names."""
        assert KeyConditionExpression == "pk = :pk"
        pk = ExpressionAttributeValues[":pk"]["S"]
        after = _key(ExclusiveStartKey) if ExclusiveStartKey else (pk, "")
        keys = sorted(key for key in self.items if key[0] == pk and key > after)
        chosen = keys[: self.page]
        read = [self._read(key, consistent=ConsistentRead) for key in chosen]
        answer: dict[str, Any] = {"Items": [item for item in read if item is not None]}
        if len(keys) > len(chosen):
            answer["LastEvaluatedKey"] = {"pk": {"S": pk}, "sk": {"S": chosen[-1][1]}}
        return answer

    def put_item(self, *, TableName: str, Item: Item) -> dict[str, Any]:
        self._write(_key(Item), dict(Item))
        return {}

    def delete_item(self, *, TableName: str, Key: Item, **expressions: Any) -> dict[str, Any]:
        key = _key(Key)
        self._check(key, expressions)
        self._write(key, None)
        return {}

    def update_item(self, *, TableName: str, Key: Item, UpdateExpression: str, **expressions: Any) -> dict[str, Any]:
        key = _key(Key)
        old = self._check(key, expressions)
        names = _frozen(expressions.get("ExpressionAttributeNames"))
        change = _change(UpdateExpression, names)
        new = change(dict(old or Key), expressions.get("ExpressionAttributeValues", {}))
        self._write(key, new)
        match expressions.get("ReturnValues"):
            case "ALL_NEW":
                return {"Attributes": new}
            case "UPDATED_OLD":
                changed = {name for name in new if old is None or new[name] is not old.get(name)}
                return {"Attributes": {name: old[name] for name in changed if old and name in old}}
        return {}

    # ---- how it is done

    def expire(self, now: int) -> None:
        """Delete what is past its time to live."""
        for key in [key for key, item in self.items.items() if int(item.get("expires", {}).get("N", now + 1)) <= now]:
            self._write(key, None)

    def _check(self, key: tuple[str, str], expressions: Mapping[str, Any]) -> Item | None:
        old = self.items.get(key)
        text = expressions.get("ConditionExpression")
        if text is None:
            return old
        condition = _condition(text, _frozen(expressions.get("ExpressionAttributeNames")))
        if not condition(old or {}, expressions.get("ExpressionAttributeValues", {})):
            error = refusal("ConditionalCheckFailedException", "The conditional request failed")
            if old and expressions.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
                error.response["Item"] = old  # type: ignore[typeddict-unknown-key]
            raise error
        return old

    def _read(self, key: tuple[str, str], *, consistent: bool) -> Item | None:
        if self.stale and not consistent and key in self.before:
            self.stale_reads += self.before[key] != self.items.get(key)
            return self.before[key]
        return self.items.get(key)

    def _write(self, key: tuple[str, str], item: Item | None) -> None:
        self.writes += 1
        self.before[key] = self.items.get(key)
        if item is None:
            self.items.pop(key, None)
        else:
            self.items[key] = item


def _key(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _frozen(names: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple(names.items()) if names else ()


# ---- expressions (Amazon DynamoDB Developer Guide, "Using expressions") -------------------------


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise ValueError(f"not understood in an expression: {text[place:]!r}")
        found.append(token[1] or token[2])
        place = token.end()
    return found


class _Reader:
    """Tokens of one expression, read from left to right."""

    def __init__(self, text: str, names: Mapping[str, str]) -> None:
        self.tokens = _tokens(text)
        self.names = names

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, expected: str = "") -> str:
        token = self.tokens.pop(0)
        if expected and token != expected:
            raise ValueError(f"{expected} expected, not {token}")
        return token

    def path(self) -> Path:
        parts = self.take().split(".")
        return tuple(self.names[part] if part.startswith("#") else part for part in parts)


def _at(item: Item, path: Path) -> Any:
    """The attribute there, or None."""
    value: Any = item.get(path[0])
    for part in path[1:]:
        value = value.get("M", {}).get(part) if value else None
    return value


@cache
def _condition(text: str, names: tuple[tuple[str, str], ...]) -> Condition:
    reader = _Reader(text, dict(names))
    condition = _any_of(reader)
    if reader.tokens:
        raise ValueError(f"left over in a condition: {reader.tokens}")
    return condition


def _any_of(reader: _Reader) -> Condition:
    parts = [_all_of(reader)]
    while reader.peek() == "OR":
        reader.take()
        parts.append(_all_of(reader))
    return parts[0] if len(parts) == 1 else lambda item, values: any(part(item, values) for part in parts)


def _all_of(reader: _Reader) -> Condition:
    parts = [_one(reader)]
    while reader.peek() == "AND":
        reader.take()
        parts.append(_one(reader))
    return parts[0] if len(parts) == 1 else lambda item, values: all(part(item, values) for part in parts)


def _one(reader: _Reader) -> Condition:
    if reader.peek() == "(":
        reader.take("(")
        inside = _any_of(reader)
        reader.take(")")
        return inside
    if reader.peek() in ("attribute_exists", "attribute_not_exists"):
        wanted = reader.take() == "attribute_exists"
        reader.take("(")
        path = reader.path()
        reader.take(")")
        return lambda item, values: (_at(item, path) is not None) is wanted
    path, comparison, value = reader.path(), reader.take(), reader.take()
    compare = _COMPARISONS[comparison]
    return lambda item, values: compare(_at(item, path), values[value])


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        if left is None or left.keys() != right.keys():
            return False
        ((kind, a),), ((_, b),) = left.items(), right.items()
        return test(int(a), int(b)) if kind == "N" else test(a, b)

    return compare


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    "<>": lambda left, right: left != right,
    "<": _ordered(lambda a, b: a < b),
    "<=": _ordered(lambda a, b: a <= b),
    ">": _ordered(lambda a, b: a > b),
    ">=": _ordered(lambda a, b: a >= b),
}


@cache
def _change(text: str, names: tuple[tuple[str, str], ...]) -> Change:
    reader = _Reader(text, dict(names))
    steps: list[Change] = []
    clause = ""
    while reader.tokens:
        if reader.peek() in ("SET", "REMOVE"):
            clause = reader.take()
        elif reader.peek() == ",":
            reader.take()
        steps.append(_set(reader) if clause == "SET" else _remove(reader.path()))

    def change(item: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        for step in steps:
            item = step(item, values)
        return item

    return change


def _set(reader: _Reader) -> Change:
    path = reader.path()
    reader.take("=")
    if reader.peek().startswith(":"):
        value = reader.take()
        return lambda item, values: _with(item, path, values[value])
    term, otherwise = _term(reader)
    if not reader.tokens or reader.peek() != "+":
        return lambda item, values: _with(item, path, _at(item, term) or values[otherwise])
    reader.take("+")
    more = reader.take()

    def add(item: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        before = _at(item, term) or values.get(otherwise)
        if before is None:
            raise refusal("ValidationException", f"The provided expression refers to an {NO_SUCH_ATTRIBUTE}")
        return _with(item, path, {"N": str(int(before["N"]) + int(values[more]["N"]))})

    return add


def _term(reader: _Reader) -> tuple[Path, str]:
    """A path, and the name of the value that stands for it where it is not, of `if_not_exists(path, :value)`."""
    if reader.peek() != "if_not_exists":
        return reader.path(), ""
    reader.take()
    reader.take("(")
    path = reader.path()
    reader.take(",")
    otherwise = reader.take()
    reader.take(")")
    return path, otherwise


def _with(item: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**item, path[0]: value}
    inner = item.get(path[0])
    if inner is None or "M" not in inner:
        raise refusal(
            "ValidationException", "The document path provided in the update expression is invalid for update"
        )
    return {**item, path[0]: {"M": _with(inner["M"], path[1:], value)}}


def _remove(path: Path) -> Change:
    (name,) = path
    return lambda item, values: {key: value for key, value in item.items() if key != name}
