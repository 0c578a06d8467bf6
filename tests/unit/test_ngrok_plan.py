"""Whether the fleet wants more tunnels than the ngrok plan has, and what an admin reads then."""

from __future__ import annotations

import pytest
from support.builders import NOW, a_record

from notebook_ssh.model.ngrok_plan import excess, tunnels_wanted
from notebook_ssh.model.record import NotebookState, Record
from notebook_ssh.model.spec import Mode, NotebookSpec


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (a_record(), True),
        (a_record(state=NotebookState.PENDING), True),
        (a_record(spec=NotebookSpec((Mode.EICE, Mode.NGROK))), True),
        (a_record(spec=NotebookSpec((Mode.NGROK,), until=NOW + 1)), True),
        (a_record(spec=NotebookSpec((Mode.NGROK,), until=NOW)), False),
        (a_record(spec=NotebookSpec((Mode.EICE,))), False),
        (a_record(spec=NotebookSpec()), False),
        (a_record(state=NotebookState.STOPPED), False),
    ],
)
def test_a_notebook_takes_a_tunnel_while_it_runs_and_its_tag_asks_for_ngrok(record: Record, counts: bool) -> None:
    assert tunnels_wanted([record], NOW) == (["demo"] if counts else [])


def test_the_latest_start_comes_last() -> None:
    fleet = [a_record(name=name, started_at=NOW - ago) for name, ago in (("c", 1), ("a", 9), ("b", 5))]
    assert tunnels_wanted(fleet, NOW) == ["a", "b", "c"]


@pytest.mark.parametrize(("wanted", "endpoints"), [(9, 0), (3, 3), (2, 3), (0, 1)])
def test_there_is_nothing_to_say_within_the_plan_or_without_its_number(wanted: int, endpoints: int) -> None:
    assert excess([f"nb-{number}" for number in range(wanted)], endpoints) is None


def test_what_is_over_the_plan_is_named_with_what_to_do() -> None:
    said = excess([f"nb-{number}" for number in range(10)], 3) or ""
    assert said.startswith("10 running notebooks request ngrok, and the plan has 3 endpoints")
    assert "Started last: nb-3, nb-4, nb-5, nb-6, nb-7 and 2 more." in said
    assert "NgrokEndpoints" in said
