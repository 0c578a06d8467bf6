"""Upgrade and rollback: what is left out of an item is what is read when it is missing."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import given, strategies as st

from notebook_ssh.adapters.attributes import from_attribute, to_attribute
from notebook_ssh.adapters.codec import decode_config_record, decode_record, encode_config_record, encode_record
from notebook_ssh.model.record import Record
from notebook_ssh.planning.observation import LifecycleConfigRecord


@given(st.builds(Record, **dict.fromkeys((field.name for field in fields(Record)), ...)))
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    item = {name: from_attribute(to_attribute(value)) for name, value in encode_record(record).items()}
    assert decode_record(item) == record


@given(st.builds(LifecycleConfigRecord, **dict.fromkeys((field.name for field in fields(LifecycleConfigRecord)), ...)))
def test_a_configurations_record_is_read_as_it_was_written(record: LifecycleConfigRecord) -> None:
    item = {name: from_attribute(to_attribute(value)) for name, value in encode_config_record(record).items()}
    assert decode_config_record(item | {"sk": record.name}) == record
