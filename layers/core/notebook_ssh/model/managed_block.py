"""Insert and remove the managed block of a lifecycle script, and leave the owner's bytes as they are.

A script with blocks reads

    #!/bin/bash                                   the shebang line, if there is one
    # >>> notebook-ssh stack=a … >>> …            the block of stack a
    …
    # <<< notebook-ssh stack=a <<<
    # >>> notebook-ssh stack=b … >>> …            the block of stack b, …
    …
    # <<< notebook-ssh stack=b <<<
    set -e                                        everything else is the owner's

What counts as a block, exactly:

1. *On top*: an opening line directly after the shebang line (or at the first byte when there is none), or
   directly after another block on top, down to the first closing line of the same stack.
2. *Moved*: the owner wrote lines above it. It counts if its sum is right, the stack has no other, and the owner's
   lines above it cannot contain an open here-document or quotation.

Any other text like a marker, for example in a here-document, is the owner's and stays. Ambiguous cases are `Damaged`:
nothing is changed, and the problem names the line.

What the bytes do not show afterwards (was there a script at all? did its only line end?) is recorded in the opening
line, by every stack alike, so that stacks can be installed and removed in any order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from notebook_ssh.errors import Problem
from notebook_ssh.model.shebang import first_line_problem

LIMIT = 12_288
"""Bytes of one script. SageMaker takes 16,384 characters of base64 (NotebookInstanceLifecycleHook,
`Content`), which are 12,288 bytes; whether it counts base64 or bytes is UNCONFIRMED(script-limit), and both end here."""

SHEBANG = b"#!/bin/sh\n"
"""The first line given to a script without content. Never change it: `remove_block` compares with it."""

STACK = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
"""Names of CloudFormation stacks (CreateStack, `StackName`)."""
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")
FINGERPRINT = re.compile(r"[0-9a-f]{12}")


class Original(StrEnum):
    """What the owner's script was, where the bytes around the blocks do not show it."""

    # There was none.
    ABSENT = "absent"
    # It had no byte.
    EMPTY = "empty"
    # Its only line, the shebang, had no line end.
    NO_TRAILING_NEWLINE = "unended"
    # The bytes around the blocks are the script.
    COMPLETE = "whole"


def fingerprint(content: bytes) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of `content`: against accidents, not against attacks."""
    return hashlib.sha256(content).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Block:
    """What a stack inserts into a script.

    Raises ValueError for a part that would make the block unreadable, which is a defect of the stack.
    """

    stack: str
    version: str
    # Fingerprint of the body's source, before packing. The same id means the same block, even if another version of a
    # compression library packed it into other bytes.
    id: str
    # Shell text that ends with a line end and contains no marker line, or a function that returns it when a script is
    # written: packing is a fifth of a function's start.
    body: bytes | Callable[[], bytes] = field(compare=False)
    # The agent's settings in the body, by their words (`block_program.read_settings`).
    settings: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name, pattern in (("stack", STACK), ("version", VERSION), ("id", FINGERPRINT)):
            if not pattern.fullmatch(value := getattr(self, name)):
                raise ValueError(f"the block's {name} is {value!r}, which is not {pattern.pattern}")

    def text(self) -> bytes:
        """Return the body's bytes. Raises ValueError if the block could not be found in a script."""
        body = self.body if isinstance(self.body, bytes) else self.body()
        if not body.endswith(b"\n"):
            raise ValueError("the block's body does not end with a line end")
        if _ANY_MARKER.search(body):
            raise ValueError("the block's body holds a marker line")
        return body

    def render(self, original: Original) -> bytes:
        """Return the block's bytes: opening line, body, closing line."""
        body = self.text()
        opening = (
            f"# >>> notebook-ssh stack={self.stack} version={self.version} id={self.id} "
            f"sum={fingerprint(body)} original={original} >>> managed: edits inside are undone\n"
        )
        return opening.encode() + body + f"# <<< notebook-ssh stack={self.stack} <<<\n".encode()


@dataclass(frozen=True, slots=True)
class Inserted:
    """The script with the block."""

    script: bytes
    # It differs from the given script.
    changed: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The script stays as it is because of a problem."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class NoBlock:
    """The script holds no block of this stack."""

    # The script as given.
    owner: bytes | None


@dataclass(frozen=True, slots=True)
class Present:
    """The script holds the stack's block."""

    version: str
    id: str
    # The text between the markers is unedited.
    intact: bool
    # It is where it belongs.
    on_top: bool
    # The script without this stack's block; None if there was no script before the block.
    owner: bytes | None
    # The text between the markers.
    body: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Damaged:
    """It is ambiguous which bytes are the block."""

    problem: Problem
    # The script as given.
    owner: bytes | None


Inspection = NoBlock | Present | Damaged


def inspect(script: bytes | None, stack: str) -> Inspection:
    """Return what `script` holds of `stack`, by the rules at the top of this module."""
    if script is None:
        return NoBlock(owner=None)
    try:
        found = _own_block(script, stack)
    except _DamagedError as damage:
        return Damaged(problem=damage.problem, owner=script)
    if found is None:
        return NoBlock(owner=script)
    return Present(
        version=found.version,
        id=found.id,
        intact=found.intact,
        on_top=found in _blocks_on_top(script),
        owner=_as_it_was(found.cut_from(script), found.original),
        body=found.body,
    )


def remove_block(script: bytes | None, stack: str) -> bytes | None:
    """Return `script` without the block of `stack`: for any `x` without one, `remove_block(insert_block(x)) == x`.

    None if there was no script before the block (whether SageMaker accepts an empty `OnStart` is UNCONFIRMED(empty-hook); the
    adapter that writes it handles both). A damaged script is returned as it is: call `inspect` to report the problem.
    """
    return inspect(script, stack).owner


def insert_block(script: bytes | None, block: Block) -> Inserted | Refused:
    """Return `script` with `block` on top, in place of this stack's former block if there is one.

    The owner's bytes and other stacks' blocks stay as they are. The same block again changes nothing.
    Refused with `config-not-shell`, `config-line-ends`, `block-damaged` or `config-too-large`.
    """
    if problem := first_line_problem(script or b""):
        return Refused(problem)
    try:
        found = _own_block(script or b"", block.stack)
    except _DamagedError as damage:
        return Refused(damage.problem)
    on_top = found is not None and found in _blocks_on_top(script or b"")
    if found and on_top and found.intact and (found.id, found.version) == (block.id, block.version):
        return Inserted(script=script or b"", changed=False)

    rendered = block.render(_original(script, found))
    if script and found and on_top:
        inserted = script[: found.start] + rendered + script[found.end :]
    else:
        inserted = _insert_on_top(found.cut_from(script) if script and found else script, rendered)
    if len(inserted) > LIMIT:
        return Refused(_too_large(len(inserted), len(rendered)))
    return Inserted(script=inserted, changed=True)


class _Found(NamedTuple):
    """One block in a script, from the first byte of its opening line to the end of its closing line."""

    start: int
    end: int
    stack: str
    version: str
    id: str
    original: Original
    intact: bool
    body: bytes

    def cut_from(self, script: bytes) -> bytes:
        return script[: self.start] + script[self.end :]

    def covers(self, place: int) -> bool:
        return self.start <= place < self.end


class _DamagedError(Exception):
    """It is ambiguous which bytes are the block."""

    def __init__(self, script: bytes, place: int, what: str, stack: str) -> None:
        line = script.count(b"\n", 0, place) + 1
        self.problem = Problem(
            "block-damaged",
            f"The on-start script is left as it is, because in line {line} {what}: delete every line from "
            f"`# >>> notebook-ssh stack={stack} …` to `# <<< notebook-ssh stack={stack} <<<`, and both of them.",
        )


_ANY_MARKER = re.compile(rb"^# (?:>>>|<<<) notebook-ssh\b", re.MULTILINE)
_ANY_OPENING = re.compile(rb"^# >>> notebook-ssh\b", re.MULTILINE)
_OPENING = re.compile(
    rb"^# >>> notebook-ssh stack=(?P<stack>[A-Za-z][A-Za-z0-9-]*) version=(?P<version>[0-9A-Za-z.+-]+)"
    rb" id=(?P<id>[0-9a-f]{12}) sum=(?P<sum>[0-9a-f]{12}) original=(?P<original>absent|empty|unended|whole)"
    rb" >>>[^\n]*(?:\n|\Z)",
    re.MULTILINE,
)


def _closing(stack: str) -> re.Pattern[bytes]:
    # Spaces and carriage returns at the end are accepted: editors on Windows add them to every line.
    return re.compile(rb"^# <<< notebook-ssh stack=%b <<<[ \t\r]*(?:\n|\Z)" % stack.encode(), re.MULTILINE)


def _block_at(script: bytes, place: int) -> _Found | None:
    """Return the block whose opening line begins at `place`; None without one, or if it has no closing line of its own."""
    opening = _OPENING.match(script, place)
    if not opening:
        return None
    stack = opening["stack"].decode()
    closing = _closing(stack).search(script, opening.end())
    if not closing or _ANY_OPENING.search(script, opening.end(), closing.start()):
        return None
    body = script[opening.end() : closing.start()]
    return _Found(
        start=place,
        end=closing.end(),
        stack=stack,
        version=opening["version"].decode(),
        id=opening["id"].decode(),
        original=Original(opening["original"].decode()),
        intact=fingerprint(body) == opening["sum"].decode(),
        body=body,
    )


def _top(script: bytes) -> int:
    """Return where blocks belong: the first byte after the shebang line, or 0 without one."""
    if not script.startswith(b"#!"):
        return 0
    return script.find(b"\n") + 1 or len(script)


def _blocks_on_top(script: bytes) -> list[_Found]:
    blocks = []
    place = _top(script)
    while block := _block_at(script, place):
        blocks.append(block)
        place = block.end
    return blocks


def _blocks(script: bytes) -> list[_Found]:
    """Return all blocks on top, and those below whose sum is right."""
    blocks = _blocks_on_top(script)
    below = blocks[-1].end if blocks else _top(script)
    for opening in _OPENING.finditer(script, below):
        block = _block_at(script, opening.start())
        if block and block.intact:
            blocks.append(block)
    return blocks


def _own_block(script: bytes, stack: str) -> _Found | None:
    """Return the one block of `stack`. Raises _DamagedError if the owner's bytes could be affected."""
    blocks = _blocks(script)
    own = [block for block in blocks if block.stack == stack]
    if len(own) > 1:
        raise _DamagedError(script, own[1].start, "there is a second block of this stack", stack)
    if own and own[0].start != _top(script) and not _plain(script, own[0].start, blocks):
        raise _DamagedError(script, own[0].start, "the block may be part of a here-document or a quoted text", stack)
    marker = re.compile(rb"^# (?:>>>|<<<) notebook-ssh stack=%b(?![A-Za-z0-9-])" % stack.encode(), re.MULTILINE)
    for stray in marker.finditer(script):
        if not any(block.covers(stray.start()) for block in own) and _plain(script, stray.start(), blocks):
            raise _DamagedError(script, stray.start(), "there is a marker line that belongs to no block", stack)
    return own[0] if own else None


def _plain(script: bytes, place: int, blocks: list[_Found]) -> bool:
    """Return whether no here-document, quotation or continued line of the owner can be open at `place`.

    Conservative: `<<` anywhere above, or an odd number of quotation marks outside of comment lines, makes it False.
    """
    above = bytearray()
    start = 0
    for block in blocks:
        if block.end <= place:
            above += script[start : block.start]
            start = block.end
    above += script[start:place]
    code = [line for line in bytes(above).splitlines() if not line.lstrip().startswith(b"#")]
    text = b"\n".join(code)
    marks = (text.count(mark) % 2 for mark in (b"'", b'"', b"`"))
    return b"<<" not in text and not any(marks) and not text.endswith(b"\\")


def _as_it_was(rest: bytes, original: Original) -> bytes | None:
    """Return the owner's script, given its text without blocks: `original` applies while it can be true."""
    match original:
        case Original.ABSENT if rest == SHEBANG:
            return None
        case Original.EMPTY if rest == SHEBANG:
            return b""
        case Original.NO_TRAILING_NEWLINE if rest.startswith(b"#!") and rest.find(b"\n") == len(rest) - 1:
            return rest[:-1]
        case _:
            return rest


def _original(script: bytes | None, own: _Found | None) -> Original:
    """Return what the new block must record: what the existing blocks record, while it can be true."""
    if script is None:
        return Original.ABSENT
    if not script:
        return Original.EMPTY
    blocks = _blocks(script)
    bare = script
    for block in reversed(blocks):
        bare = block.cut_from(bare)
    for block in [own, *blocks] if own else blocks:
        if _as_it_was(bare, block.original) != bare:
            return block.original
    unended = not blocks and script.startswith(b"#!") and b"\n" not in script
    return Original.NO_TRAILING_NEWLINE if unended else Original.COMPLETE


def _insert_on_top(script: bytes | None, rendered: bytes) -> bytes:
    if not script:
        return SHEBANG + rendered
    top = _top(script)
    newline = b"" if script[:top].endswith(b"\n") or not top else b"\n"
    return script[:top] + newline + rendered + script[top:]


def _too_large(size: int, block: int) -> Problem:
    owners = size - block
    return Problem(
        "config-too-large",
        f"The on-start script has {owners:,} bytes and the block {block:,}, together {size:,}; the limit is {LIMIT:,} "
        f"bytes, {size - LIMIT:,} less: shorten the script, or move a part of it to a file that it calls.",
    )
