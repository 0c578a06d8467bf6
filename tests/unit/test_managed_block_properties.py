"""Splice and strip on any bytes: what holds for every script, not only for the examples."""

from __future__ import annotations

from hypothesis import assume, event, given, strategies as st
from support.examples import examples

from notebook_ssh.model.managed_block import (
    Block,
    Damaged,
    Inserted,
    NoBlock,
    Original,
    Present,
    insert_block,
    inspect,
    remove_block,
)

thoroughly = examples(300)

BODY = b"( : ) || :\n"
MINE = Block("alpha", "1.0", "a" * 12, BODY)
NEXT = Block("alpha", "2.0", "b" * 12, b"( :\n: ) || :\n")
THEIRS = Block("beta", "1.0", "c" * 12, b"( cat <<X\n'\nX\n) || :\n")
OPENING, CLOSING = MINE.render(Original.COMPLETE).splitlines(keepends=True)[:: len(BODY.splitlines()) + 1]

crafted = st.lists(
    st.sampled_from(
        [
            b"#!/bin/bash\n", b"#!/bin/sh\n", b"#!/bin/sh", b"\xef\xbb\xbf", b"\n", b"\r\n", b"\0\xff", b"echo hi\n",
            b"# don't\n", b"'", b'"', b"\\\n", b"cat <<EOF\n", b"EOF\n", OPENING, OPENING[:60], b"# >>> notebook-ssh stack=alpha\n",
            CLOSING, CLOSING[:-1], b"# <<< notebook-ssh stack=beta <<<\n", BODY, *(MINE.render(how) for how in Original),
            *(THEIRS.render(how) for how in Original), NEXT.render(Original.COMPLETE).replace(b"\n", b"\r\n"),
        ]
    ),
    max_size=9,
).map(b"".join)  # fmt: skip
"""Scripts made of what could be mistaken for a block, or hide one."""

lines = st.binary(max_size=40) | st.sampled_from([b"set -e\n", b"cat <<E\nE\n", b"echo hi"])
scripts = st.none() | st.binary(max_size=200) | crafted | st.tuples(st.just(b"#!/bin/bash\n"), lines).map(b"".join)


def inserted(script: bytes | None, block: Block) -> bytes:
    """`script` with `block` in it; the example does not count when it is refused."""
    outcome = insert_block(script, block)
    event(type(outcome).__name__)
    assume(isinstance(outcome, Inserted))
    assert isinstance(outcome, Inserted)
    return outcome.script


def without(script: bytes | None, stack: str) -> bytes | None:
    """The owner's script, which for a script without a block is the script itself."""
    found = inspect(script, stack)
    if isinstance(found, NoBlock):
        assert found.owner == script
    return found.owner


@thoroughly
@given(scripts)
def test_strip_undoes_splice(script: bytes | None) -> None:
    assert remove_block(inserted(script, MINE), "alpha") == without(script, "alpha")


@thoroughly
@given(scripts)
def test_splicing_twice_is_splicing_once(script: bytes | None) -> None:
    once = inserted(script, MINE)
    assert insert_block(once, MINE) == Inserted(once, changed=False)


@thoroughly
@given(scripts)
def test_what_was_spliced_is_read_as_intact_and_on_top(script: bytes | None) -> None:
    found = inspect(inserted(script, MINE), "alpha")
    assert found == Present("1.0", "a" * 12, intact=True, on_top=True, owner=without(script, "alpha"))


@thoroughly
@given(scripts)
def test_an_upgrade_is_the_same_as_inserting_again(script: bytes | None) -> None:
    upgraded = inserted(inserted(script, MINE), NEXT)
    assert remove_block(upgraded, "alpha") == without(script, "alpha")
    assert not isinstance(inspect(script, "alpha"), NoBlock) or upgraded == inserted(script, NEXT)


@thoroughly
@given(scripts, st.booleans(), st.booleans())
def test_two_stacks_come_and_go_in_any_order(script: bytes | None, mine_first: bool, mine_leaves_first: bool) -> None:
    assume(isinstance(inspect(script, "alpha"), NoBlock))
    assume(isinstance(inspect(script, "beta"), NoBlock))
    first, second = (MINE, THEIRS) if mine_first else (THEIRS, MINE)
    both = inserted(inserted(script, first), second)
    leaves, stays = (MINE, THEIRS) if mine_leaves_first else (THEIRS, MINE)
    one = remove_block(both, leaves.stack)
    assert isinstance(inspect(one, stays.stack), Present)
    assert remove_block(one, stays.stack) == script


@thoroughly
@given(scripts, st.binary(max_size=40))
def test_what_the_owner_adds_below_survives(script: bytes | None, added: bytes) -> None:
    assume(script)
    whole = inserted(script, MINE)
    assume(isinstance(inspect(whole + added, "alpha"), Present))
    owner = without(script, "alpha")
    left = remove_block(whole + added, "alpha")
    assert left is not None
    assert left.endswith(added)
    # A shebang line that had no end has one as soon as something follows it.
    assert left.removesuffix(added).removesuffix(b"\n") == (owner or b"").removesuffix(b"\n") or not owner


@thoroughly
@given(scripts, lines)
def test_what_the_owner_writes_above_survives(script: bytes | None, added: bytes) -> None:
    assume(isinstance(inspect(script, "alpha"), NoBlock))
    whole = inserted(script, MINE)
    start = whole.index(b"# >>> notebook-ssh stack=alpha version=1.0")
    found = inspect(whole[:start] + added + whole[start:], "alpha")
    event(type(found).__name__)
    match found:
        case Present(owner=owner):
            assert owner is not None or not added
            assert added in (owner or b"")
        case NoBlock() | Damaged():
            assert found.owner == whole[:start] + added + whole[start:]


@thoroughly
@given(scripts)
def test_nothing_is_lost_when_nothing_is_sure(script: bytes | None) -> None:
    found = inspect(script, "alpha")
    if isinstance(found, Damaged | NoBlock):
        assert remove_block(script, "alpha") == script
