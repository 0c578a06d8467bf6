"""What a revocation withdraws, and why no older certificate fits a notebook that has heard of it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from notebook_ssh.model.revocation import (
    MOST_LISTED,
    MOST_PRINCIPALS,
    OVERLAP_S,
    Revocation,
    is_revoked,
    principals_to_sign,
    required_principal,
    withdrawn,
)

NOW = 1_800_000_000
NOTEBOOK = "team-ssh", "Demo", NOW - 10_000_000
MARIO = "arn:aws:sts::123456789012:assumed-role/data-science/mario"
KEY = "SHA256:" + 43 * "k"


@pytest.mark.parametrize(
    ("text", "caller", "revoked"),
    [
        (MARIO, MARIO, True),
        (MARIO, MARIO + "2", False),
        (f" {MARIO}\n", MARIO, True),
        ("arn:aws:iam::123456789012:role/data-science", MARIO, True),
        ("arn:aws:iam::123456789012:role/teams/one/data-science", MARIO, True),
        ("arn:aws:iam::123456789012:role/data", MARIO, False),
        ("arn:aws:iam::210987654321:role/data-science", MARIO, False),
        ("arn:aws:sts::123456789012:assumed-role/data-science", MARIO, True),
        ("arn:aws:sts::123456789012:assumed-role/data-science/", MARIO, True),
        ("arn:aws:iam::123456789012:user/mario", "arn:aws:iam::123456789012:user/mario", True),
        ("arn:aws:iam::123456789012:user/mario", "arn:aws:iam::123456789012:user/mario2", False),
        ("4711", MARIO, False),
        (KEY, MARIO, False),
        ("mario", MARIO, False),
        ("", MARIO, False),
    ],
)
def test_who_gets_no_certificate_any_more(text: str, caller: str, revoked: bool) -> None:
    assert is_revoked(caller, [Revocation(text, NOW)]) is revoked


def test_each_kind_is_listed_for_what_it_is() -> None:
    texts = ["4711", MARIO, "arn:aws:iam::123456789012:role/x/data", KEY, "nonsense", "-1", "1" * 21]
    found = withdrawn([Revocation(text, NOW) for text in texts], ("ana",))
    assert found.serials == ("4711",)
    assert set(found.arns) == {MARIO, "arn:aws:sts::123456789012:assumed-role/data/"}
    assert (found.keys, found.users) == ((KEY,), ("ana",))


def test_the_newest_are_listed() -> None:
    found = withdrawn([Revocation(str(number), number) for number in range(MOST_LISTED + 50)])
    assert (len(found.serials), found.serials[0]) == (MOST_LISTED, str(MOST_LISTED + 49))


def test_without_a_revocation_the_principal_is_the_notebooks() -> None:
    assert required_principal(*NOTEBOOK, []) == f"team-ssh/Demo/{NOW - 10_000_000}"
    assert principals_to_sign(*NOTEBOOK, [], NOW) == (f"team-ssh/Demo/{NOW - 10_000_000}",)


times = st.lists(st.integers(NOW - 5 * OVERLAP_S, NOW), max_size=6, unique=True)


@given(times, st.integers(0, 2 * OVERLAP_S))
def test_what_was_signed_before_fits_no_notebook_that_has_heard(before: list[int], ago: int) -> None:
    """A certificate is signed, and later something is withdrawn."""
    signed = principals_to_sign(*NOTEBOOK, [Revocation("1", at) for at in before], NOW)
    later = [Revocation("1", at) for at in (*before, NOW + 1 + ago)]
    assert required_principal(*NOTEBOOK, later) not in signed


@given(times, st.integers(0, OVERLAP_S - 1))
def test_what_is_signed_fits_a_notebook_that_has_not_heard_yet(known: list[int], ago: int) -> None:
    """The notebook reported `ago` seconds ago, and knows of what was withdrawn by then."""
    revocations = [Revocation("1", at) for at in known]
    required = required_principal(*NOTEBOOK, [each for each in revocations if each.at <= NOW - ago])
    signed = principals_to_sign(*NOTEBOOK, revocations, NOW)
    assert required in signed
    assert signed[0] == required_principal(*NOTEBOOK, revocations)
    assert len(signed) <= MOST_PRINCIPALS
