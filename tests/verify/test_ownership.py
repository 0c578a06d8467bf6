"""What a run may delete: what carries its id and its tag and is younger than the run. Nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from notebook_ssh_verify.ownership import (
    CLOCK_SKEW_S,
    RUN_TAG,
    Absent,
    Created,
    Delete,
    Gone,
    Keep,
    Kind,
    Observation,
    Observed,
    Run,
    Unreadable,
    deletion,
    in_order,
)

RUN = Run("k3j9x2mp", 1_000_000)
OURS = {RUN_TAG: RUN.id, "team": "ml"}
LATER = RUN.began + 60


@pytest.mark.parametrize(
    ("name", "observation", "expected"),
    [
        ("nbssh-verify-k3j9x2mp", Observed(OURS, LATER), Delete),
        ("nbssh-verify-k3j9x2mp-a", Observed(OURS, LATER), Delete),
        ("nbssh-verify-k3j9x2mp-a", Observed(OURS, RUN.began - CLOCK_SKEW_S), Delete),
        ("nbssh-verify-k3j9x2mp-a", Observed(OURS, RUN.began - CLOCK_SKEW_S - 1), Keep),
        ("nbssh-verify-k3j9x2mp-a", Observed(OURS, None), Keep),
        ("nbssh-verify-k3j9x2mp-a", Observed({}, LATER), Keep),
        ("nbssh-verify-k3j9x2mp-a", Observed({RUN_TAG: "another1"}, LATER), Keep),
        ("nbssh-verify-k3j9x2mp2", Observed(OURS, LATER), Keep),  # another run's prefix, by chance
        ("my-notebook", Observed(OURS, LATER), Keep),
        ("my-notebook", Absent(), Gone),
        ("nbssh-verify-k3j9x2mp-a", Absent(), Gone),
        ("nbssh-verify-k3j9x2mp-a", Unreadable("ThrottlingException: Rate exceeded"), Keep),
    ],
)
def test_what_a_run_deletes(name: str, observation: Observation, expected: type) -> None:
    assert isinstance(deletion(RUN, Created(Kind.NOTEBOOK, name), observation), expected)


@given(
    st.builds(Created, st.sampled_from(Kind), st.sampled_from([RUN.prefix, RUN.name("a"), "other"]) | st.text()),
    st.builds(
        Observed,
        st.dictionaries(st.just(RUN_TAG) | st.text(max_size=3), st.just(RUN.id) | st.text(max_size=3), max_size=2),
        st.none() | st.integers(0, 2_000_000),
        st.text(max_size=5),
    )
    | st.builds(Absent)
    | st.builds(Unreadable, st.text()),
)
def test_nothing_is_deleted_that_lacks_id_tag_or_age(created: Created, observation: Observation) -> None:
    match deletion(RUN, created, observation):
        case Delete(observed):
            assert created.name.startswith(RUN.prefix)
            assert observed.tags[RUN_TAG] == RUN.id
            assert observed.created is not None
            assert observed.created >= RUN.began - CLOCK_SKEW_S
        case Keep(why):
            assert why
            assert not why.endswith(".")
        case Gone():
            assert isinstance(observation, Absent)


def test_scripts_are_restored_before_anything_else_is_deleted_and_roles_go_last() -> None:
    made = [Created(kind, kind.name) for kind in reversed(Kind)]
    order = [each.kind for each in in_order([*made, *made])]
    assert order[0] is Kind.STACK
    assert order[-1] is Kind.LAB
    assert len(order) == len(Kind)


def test_the_stack_acts_on_no_notebook_but_the_runs() -> None:
    assert RUN.tag_key == "nbssh-verify-k3j9x2mp"
    assert RUN.name() == RUN.prefix
    assert RUN.name("b") == "nbssh-verify-k3j9x2mp-b"
