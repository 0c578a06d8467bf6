"""Upgrade and rollback: a record that another version of the stack wrote is read, whatever it lacks or has besides."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import pytest
from builders import a_record, a_report
from hypothesis import given, strategies as st

from notebook_ssh.adapters.table import encode_sparse, from_attribute, record_of, to_attribute
from notebook_ssh.model.record import BastionRoute, Record, Restart, RestartStep


def whole() -> dict[str, Any]:
    """An item with every part of a record."""
    record = a_record(
        report=a_report(), route=BastionRoute(open=True), restart=Restart(RestartStep.STOP, 5, 7), observed_at=9
    )
    return {name: from_attribute(to_attribute(value)) for name, value in asdict(record).items()}


@pytest.mark.parametrize("missing", [field.name for field in fields(Record) if field.name != "name"])
def test_a_part_that_an_older_version_did_not_write_has_its_default(missing: str) -> None:
    item = whole()
    del item[missing]
    read = record_of(item)
    assert asdict(read)[missing] == asdict(record_of({"name": read.name}))[missing]


def test_a_part_that_a_newer_version_wrote_is_left_alone() -> None:
    assert record_of(whole() | {"mood": "sunny"}) == record_of(whole())


def test_a_restart_that_an_older_version_wrote_down_was_then_as_it_was_seen() -> None:
    item = whole()
    del item["restart"]["at"]
    assert record_of(item).restart == Restart(RestartStep.STOP, 5, 9)


@given(st.builds(Record, **dict.fromkeys((field.name for field in fields(Record)), ...)))
def test_what_is_left_out_of_an_item_is_what_is_read_when_it_is_not_there(record: Record) -> None:
    item = {name: from_attribute(to_attribute(value)) for name, value in encode_sparse(record).items()}
    assert record_of(item | {"name": record.name}) == record
