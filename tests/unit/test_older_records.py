"""Upgrade and rollback: what is left out of an item is what is read when it is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from hypothesis import assume, example, given, strategies as st
from support.builders import a_record

from notebook_ssh.adapters import codec
from notebook_ssh.adapters.attributes import from_attribute, to_attribute
from notebook_ssh.adapters.codec import decode_config_record, decode_record, encode_config_record, encode_record
from notebook_ssh.model.record import Record, Route
from notebook_ssh.model.spec import Mode
from notebook_ssh.planning.observation import LifecycleConfigRecord

LARGEST = 10**38 - 1
"""The largest whole number that a table keeps: 38 digits (DynamoDB developer guide, "Data types", Number)."""


ROUTES = st.dictionaries(st.sampled_from([Mode(path.partition(".")[2]) for path in codec.ROUTES]), st.builds(Route))


@given(st.builds(Record, **dict.fromkeys((field.name for field in fields(Record)), ...) | {"routes": ROUTES}))
@example(a_record(status_tags_at=LARGEST, state_since=-LARGEST))
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    assert decode_record(_stored(encode_record(record))) == record


@given(st.builds(LifecycleConfigRecord, **dict.fromkeys(LifecycleConfigRecord._fields, ...)))
def test_a_configurations_record_is_read_as_it_was_written(record: LifecycleConfigRecord) -> None:
    assert decode_config_record(_stored(encode_config_record(record)) | {"sk": record.name}) == record


def _stored(item: Mapping[str, Any]) -> dict[str, Any]:
    # DynamoDB refuses a longer number when it is written.
    assume(all(abs(number) <= LARGEST for number in _numbers(item)))
    return {name: from_attribute(to_attribute(value)) for name, value in item.items()}


def _numbers(value: Any) -> Iterator[int]:
    match value:
        case int():
            yield value
        case Mapping():
            for part in value.values():
                yield from _numbers(part)
        case list() | tuple():
            for part in value:
                yield from _numbers(part)
